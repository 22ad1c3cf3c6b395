// Sorting and top-k along one dim. Values become unsigned keys whose order is that of the values, each packed with its
// index: so equal values keep their order whatever the algorithm, and NaN is the largest.
#include <cmath>

#include "tiles.h"

namespace gradus::cpu {
namespace {

struct WideItem {  // 64-bit types
  uint64_t key, index;
  bool operator<(const WideItem& other) const { return key < other.key || (key == other.key && index < other.index); }
};

uint32_t keyOf(float x) {
  if (x != x) return 0xffffffff;
  const uint32_t bits = bitCast<uint32_t>(x + 0.0f);  // -0 is 0
  return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
uint64_t keyOf(double x) {
  if (x != x) return ~uint64_t{0};
  const uint64_t bits = bitCast<uint64_t>(x + 0.0);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
uint64_t keyOf(int64_t x) { return static_cast<uint64_t>(x) ^ uint64_t{1} << 63; }

template <class C>
using Item = std::conditional_t<sizeof(C) == 4, uint64_t, WideItem>;

template <class C>
Item<C> pack(C x, int64_t index, bool descending) {
  const auto key = descending ? ~keyOf(x) : keyOf(x);
  if constexpr (sizeof(C) == 4) {
    return static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(index);
  } else {
    return {key, static_cast<uint64_t>(index)};
  }
}
int64_t indexOf(uint64_t item) { return static_cast<int64_t>(item & 0xffffffff); }
int64_t indexOf(const WideItem& item) { return static_cast<int64_t>(item.index); }

// Least significant digit first over the four bytes of the key; the items come in the order of their indices.
void radixSort(uint64_t* items, uint64_t* spare, int64_t n) {
  uint32_t counts[4][256] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (int b = 0; b < 4; ++b) ++counts[b][items[i] >> (32 + 8 * b) & 255];
  }
  uint64_t *from = items, *to = spare;
  for (int b = 0; b < 4; ++b) {
    uint32_t* count = counts[b];
    if (count[from[0] >> (32 + 8 * b) & 255] == n) continue;  // all alike
    uint32_t start = 0;
    for (int digit = 0; digit < 256; ++digit) {
      const uint32_t here = count[digit];
      count[digit] = start;
      start += here;
    }
    for (int64_t i = 0; i < n; ++i) to[count[from[i] >> (32 + 8 * b) & 255]++] = from[i];
    std::swap(from, to);
  }
  if (from != items) std::copy_n(from, n, items);
}

void order(uint64_t* items, uint64_t* spare, int64_t n) {
  constexpr int64_t kRadixPays = 512;
  n < kRadixPays ? std::sort(items, items + n) : radixSort(items, spare, n);
}
void order(WideItem* items, WideItem*, int64_t n) { std::sort(items, items + n); }

// One line of the dim: its positions on both sides.
struct Lines {
  Loop rest;  // all other dims: values, input, indices
  int64_t size, kept, inStride, valueStride, indexStride;
};

Lines linesOf(const OpCall& call) {
  const TensorView &in = call.in[0], &values = call.out[0], &indices = call.out[1];
  const int dim = static_cast<int>(call.integer(0));
  const TensorView parts[] = {without(values, dim), without(in, dim), without(indices, dim)};
  const TensorView* views[] = {&parts[0], &parts[1], &parts[2]};
  if (in.rank == 0) return {makeLoop(views, 3), 1, 1, 0, 0, 0};
  return {makeLoop(views, 3), in.sizes[dim], values.sizes[dim],
          in.strides[dim], values.strides[dim], indices.strides[dim]};
}

template <class T>
void pick(const Lines& lines, const T* from, T* to, const int64_t* order, int64_t n, int64_t first) {
  for (int64_t i = 0; i < n; ++i) to[(first + i) * lines.valueStride] = from[order[i] * lines.inStride];
}

template <class C>
void run(const OpCall& call, bool descending, bool partial) {
  const TensorView &in = call.in[0], &values = call.out[0], &indices = call.out[1];
  if (values.numel == 0) return;
  const Lines lines = linesOf(call);
  Loop line;
  line.rank = 1;
  line.numel = line.sizes[0] = lines.size;
  line.strides[0][0] = line.strides[1][0] = lines.inStride;
  Access<C> input(in, line, 1);
  input.uniform = false;
  const int threads = std::max(1, numThreads());
  auto* scratch = static_cast<Item<C>*>(call.workspace->take(sizeof(Item<C>) * 2 * lines.size * threads));
  constexpr int64_t kGrain = 2048;
  parallelFor(lines.rest.numel, std::max<int64_t>(1, kGrain / lines.size), [&](int64_t begin, int64_t end) {
    Item<C>* items = scratch + 2 * lines.size * omp_get_thread_num();
    Access<C> row = input;
    alignas(64) C tile[kTile];
    alignas(64) uint64_t raw[kTile];
    int64_t places[kTile];
    for (int64_t i = begin; i < end; ++i) {
      int64_t offsets[3];
      lines.rest.seek(i, offsets, 3);
      row.data = input.address(offsets[1]);
      Chunk chunk{0, 0, false, {}};
      for (; chunk.at < lines.size; chunk.at += chunk.n) {
        chunk.n = std::min(kTile, lines.size - chunk.at);
        const C* x = row.read(line, 1, chunk, tile, raw);
        for (int64_t k = 0; k < chunk.n; ++k) items[chunk.at + k] = pack(x[k], chunk.at + k, descending);
      }
      if (partial && lines.kept < lines.size) {
        std::nth_element(items, items + lines.kept, items + lines.size);
        std::sort(items, items + lines.kept);
      } else {
        order(items, items + lines.size, lines.size);
      }
      for (int64_t first = 0; first < lines.kept; first += kTile) {
        const int64_t n = std::min(kTile, lines.kept - first);
        int64_t* index = indices.as<int64_t>() + offsets[2];
        for (int64_t k = 0; k < n; ++k) {
          places[k] = indexOf(items[first + k]);
          index[(first + k) * lines.indexStride] = places[k];
        }
        const void* from = row.data;
        void* to = values.as<char>() + offsets[0] * static_cast<int64_t>(itemSize(values.dtype));
        switch (itemSize(in.dtype)) {
          case 1: pick(lines, static_cast<const uint8_t*>(from), static_cast<uint8_t*>(to), places, n, first); break;
          case 2: pick(lines, static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to), places, n, first); break;
          case 4: pick(lines, static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to), places, n, first); break;
          default: pick(lines, static_cast<const uint64_t*>(from), static_cast<uint64_t*>(to), places, n, first);
        }
      }
    }
  });
}

void runAny(const OpCall& call, bool descending, bool partial) {
  const DType dtype = call.in[0].dtype;
  if (dtype == DType::kFloat64) return run<double>(call, descending, partial);
  if (isFloating(dtype)) return run<float>(call, descending, partial);
  run<int64_t>(call, descending, partial);
}

}  // namespace

void run_sort(const OpCall& call) { runAny(call, call.flag(1), false); }
void run_topk(const OpCall& call) { runAny(call, call.flag(1), true); }

}  // namespace gradus::cpu
