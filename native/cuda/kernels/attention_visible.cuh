// What all attention kernels share: which queries and keys a block works on, which of them see each other, and what
// dropout keeps.
#pragma once

#include "attention.h"
#include "element.cuh"
#include "philox.cuh"

namespace gradus::cuda {

// Not -inf: exp(x - lowest) of a hidden score is 0 and not NaN.
template <class C>
constexpr C kLowest = sizeof(C) == 8 ? C(-1.7976931348623157e308) : C(-3.4028234663852886e38);

template <class T>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
__device__ inline double widen(double x) { return x; }
template <>
__device__ inline double narrow<double>(float x) {
  return x;
}
template <class T, class C>
__device__ T rounded(C x) {
  if constexpr (sizeof(T) == 8) {
    return x;
  } else {
    return narrow<T>(static_cast<float>(x));
  }
}

// Queries and keys that see each other: a batch entry, or one sequence of a packed batch.
struct Segment {
  int batch, firstQuery, queries, firstKey, keys;
  long long shift;  // the diagonal: query i stands at key i + shift
};

__device__ inline long long lengthAt(const void* data, int wide, long long at) {
  return wide ? static_cast<const long long*>(data)[at] : static_cast<const int*>(data)[at];
}

// Lengths that do not describe the operands are reported by a kernel of their own; here they only stay in bounds.
__device__ inline Segment segmentAt(const AttentionArguments& a, int i) {
  if (a.sequences == 0) {
    long long keys = a.keys;
    if (a.ofKeys) keys = min(max(lengthAt(a.ofKeys, a.keysWide, i * a.keysStride), 0LL), keys);
    return {i, 0, a.queries, 0, static_cast<int>(keys), 0};
  }
  const auto at = [](const void* data, int wide, long long position, long long end) {
    return min(max(lengthAt(data, wide, position), 0LL), end);
  };
  const long long q = at(a.ofQueries, a.queriesWide, i * a.queriesStride, a.queries);
  const long long qEnd = max(q, at(a.ofQueries, a.queriesWide, (i + 1) * a.queriesStride, a.queries));
  const long long k = at(a.ofKeys, a.keysWide, i * a.keysStride, a.keys);
  const long long kEnd = max(k, at(a.ofKeys, a.keysWide, (i + 1) * a.keysStride, a.keys));
  return {0,
          static_cast<int>(q),
          static_cast<int>(qEnd - q),
          static_cast<int>(k),
          static_cast<int>(kEnd - k),
          (kEnd - k) - (qEnd - q)};
}

// A block's place: the segment, one of `heads`, the first query (`byKey`: key) of its tile, and which of the chunks
// that a head is cut into; false: nothing to do.
struct AttentionPlace {
  Segment segment;
  int head, first, chunk;
};

__device__ inline bool placeOf(const AttentionArguments& a, bool byKey, int heads, int tileSize, AttentionPlace& at) {
  unsigned block = blockIdx.x;
  at.chunk = block % a.chunks;
  block /= a.chunks;
  at.head = block % heads;
  block /= heads;
  // under causality the last queries see the most keys: they begin first
  int tile = byKey ? block % a.tiles : a.tiles - 1 - block % a.tiles;
  if (a.sequences == 0) {
    at.segment = segmentAt(a, block / a.tiles);
    at.first = tile * tileSize;
    return at.first < (byKey ? a.keys : a.queries);
  }
  for (int i = 0; i < a.sequences; ++i) {
    at.segment = segmentAt(a, i);
    const int tiles = ((byKey ? at.segment.keys : at.segment.queries) + tileSize - 1) / tileSize;
    if (tile < tiles) {
      at.first = tile * tileSize;
      return true;
    }
    tile -= tiles;
  }
  return false;
}

// The same in shared memory, null where there is nothing to do: for kernels that it would make spill in registers, and
// only for them, since it takes longer.
__device__ inline const AttentionPlace* sharedPlaceOf(const AttentionArguments& a, bool byKey, int heads,
                                                      int tileSize) {
  __shared__ AttentionPlace at;
  __shared__ bool isThere;
  if (threadIdx.x == 0) isThere = placeOf(a, byKey, heads, tileSize, at);
  __syncthreads();
  return isThere ? &at : nullptr;
}

template <class C>
__device__ C maskValue(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  const long long at =
      s.batch * a.maskStrides[0] + head * a.maskStrides[1] + query * a.maskStrides[2] + key * a.maskStrides[3];
  if (static_cast<DType>(a.maskDType) == DType::kBool) {
    return static_cast<const unsigned char*>(a.mask)[at] ? C(0) : C(-INFINITY);
  }
  return load<C>(static_cast<const char*>(a.mask) + (at << itemShift(a.maskDType)), a.maskDType);
}

__device__ inline bool isVisible(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  if (query >= s.queries || key >= s.keys) return false;
  const long long distance = key - (query + s.shift);
  if (distance < -a.left || distance > a.right) return false;
  if (a.blockMask == nullptr) return true;
  return a.blockMask[s.batch * a.blockStrides[0] + head * a.blockStrides[1] +
                     query / a.blockQueries * a.blockStrides[2] + key / a.blockKeys * a.blockStrides[3]] != 0;
}

// What of a tile is visible.
enum class TileKind { kHidden, kMixed, kWhole };

// Every warp of a block asks for itself, with all its lanes.
__device__ inline TileKind tileKind(const AttentionArguments& a, const Segment& s, int head, int query, int queries,
                                    int key, int keys) {
  const long long least = key - (query + queries - 1 + s.shift), most = key + keys - 1 - (query + s.shift);
  if (most < -a.left || least > a.right) return TileKind::kHidden;
  bool whole = query + queries <= s.queries && key + keys <= s.keys && least >= -a.left && most <= a.right;
  if (a.blockMask) {
    const int row = query / a.blockQueries, col = key / a.blockKeys;
    const int rows = (min(query + queries, s.queries) - 1) / a.blockQueries - row + 1;
    const int cols = (min(key + keys, s.keys) - 1) / a.blockKeys - col + 1;
    const unsigned char* blocks = a.blockMask + s.batch * a.blockStrides[0] + head * a.blockStrides[1];
    bool any = false, all = true;
    for (int i = threadIdx.x % 32; i < rows * cols; i += 32) {
      const bool visible = blocks[(row + i / cols) * a.blockStrides[2] + (col + i % cols) * a.blockStrides[3]] != 0;
      any |= visible;
      all &= visible;
    }
    if (!__any_sync(~0u, any)) return TileKind::kHidden;
    whole &= __all_sync(~0u, all) != 0;
  }
  return whole ? TileKind::kWhole : TileKind::kMixed;
}

// The random numbers of the step that is under way, for a whole block: in registers they would make the largest kernels
// spill.
__device__ inline PhiloxCell& dropStream() {
  __shared__ PhiloxCell stream;
  return stream;
}

// Every kernel with dropout begins with it.
__device__ inline void beginDropout(const AttentionArguments& a) {
  if (!a.dropout) return;
  if (threadIdx.x == 0) {
    PhiloxCell stream{a.seed, a.offset};
    if (a.philox != nullptr) stream = {a.philox->key, a.offset + a.philox->moved};
    dropStream() = stream;
  }
  __syncthreads();
}

// The words of dropout at a counter of the call.
__device__ inline PhiloxBlock dropWords(unsigned long long counter) {
  const PhiloxCell& stream = dropStream();
  return philoxWords(stream.key, stream.moved + counter);
}

// The number of a probability's element in [B, H, L, S]; four share a counter of philox.
__device__ inline unsigned long long elementOf(const AttentionArguments& a, const Segment& s, int head, int query,
                                               int key) {
  const unsigned long long row =
      (static_cast<unsigned long long>(s.batch) * a.heads + head) * a.queries + s.firstQuery + query;
  return row * a.keys + key;
}
__device__ inline unsigned wordOf(const PhiloxBlock& words, unsigned lane) {
  return lane & 2 ? lane & 1 ? words.lane[3] : words.lane[2] : lane & 1 ? words.lane[1] : words.lane[0];
}

// What dropout multiplies a probability with.
template <class C>
__device__ C keepFactor(const AttentionArguments& a, const Segment& s, int head, int query, int key) {
  const unsigned long long element = elementOf(a, s, head, query, key);
  return wordOf(dropWords(element / 4), element % 4) >= a.threshold ? static_cast<C>(a.keep) : C(0);
}

// Keys that some query of [first, first + count) sees, from whole tiles of `tile` keys on.
struct KeyRange {
  int begin, end;
};
__device__ inline KeyRange keyRange(const AttentionArguments& a, const Segment& s, int first, int count, int tile) {
  const long long last = min(s.queries, first + count) - 1;
  const long long begin = min(max(first + s.shift - a.left, 0LL), static_cast<long long>(s.keys));
  const long long end = min(max(last + s.shift + a.right + 1, 0LL), static_cast<long long>(s.keys));
  return {static_cast<int>(begin / tile * tile), static_cast<int>(end)};
}

// Where a query's row of [B, H, L] lies.
__device__ inline long long rowOf(const AttentionArguments& a, const Segment& s, int head, int query) {
  return (static_cast<long long>(s.batch) * a.heads + head) * a.queries + s.firstQuery + query;
}

// What normalizes a row, as forward leaves it: logsumexp; or apart, beside an additive mask, its maximum and sum, since
// a mask of -1e9 over a whole row would round log(sum) away. The maximum of a row without visible keys is -inf.
template <class C>
__device__ void storeTerms(const AttentionArguments& a, long long row, C maximum, C sum) {
  const bool dead = sum == 0;
  static_cast<C*>(a.logsumexp)[row] = dead ? C(-INFINITY) : a.rowSums ? maximum : maximum + log(sum);
  if (a.rowSums) static_cast<C*>(a.rowSums)[row] = sum;
}

// A probability is exp(score - shift) * share; an infinite shift makes that of a dead row 0.
template <class C>
struct RowTerms {
  C shift, share;
};
template <class C>
__device__ RowTerms<C> loadTerms(const AttentionArguments& a, long long row) {
  const C shift = static_cast<const C*>(a.logsumexp)[row];
  if (shift == C(-INFINITY)) return {C(INFINITY), C(1)};
  return {shift, a.rowSums ? C(1) / static_cast<const C*>(a.rowSums)[row] : C(1)};
}

}  // namespace gradus::cuda
