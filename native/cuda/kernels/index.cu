// Reading and writing by index. Indices are checked first, all of them, by a kernel of their own: one that is out of
// range is reported, and what is written in place stays as it was. Where several elements go to one place they come
// sorted by place, equal ones in row-major order, and one thread handles them all: sums do not depend on the order in
// which threads run. 16-bit floats are summed in float32 and rounded once.
//
//   gradus_index_check(IndexCheck): blocks of 256 threads, one index a thread and round of a grid-stride loop
//   gradus_index_rows_<1|2|4|8|16>(IndexRows): units of so many bytes; blocks of 256 threads, `threads` of them a row
//   gradus_index_gather_<1|2|4|8>(IndexGather), gradus_index_places(IndexPlaces),
//   gradus_index_scatter_<1|2|4|8>(IndexScatter), gradus_index_scatter_add_<dtype summed in>_<dtype>(IndexScatter)
//     blocks of 256 threads, one element of the index a thread and round
//   gradus_index_add_<dtype summed in>_<dtype>(IndexAdd): blocks of 256 threads, one sorted position a block and round;
//     a thread has one column. The block of the first position of a row sums, the others have nothing to do.
#include <type_traits>

#include "index.h"
#include "packs.cuh"

namespace gradus::cuda {
namespace {

using Byte = unsigned char;
using Short = unsigned short;
using Long = unsigned long long;

__device__ void check(const IndexCheck& a) {
  const Long step = static_cast<Long>(gridDim.x) * blockDim.x;
  const int size = a.dtype == static_cast<int>(DType::kInt64) ? 8 : a.dtype == static_cast<int>(DType::kInt32) ? 4 : 1;
  for (Long i = static_cast<Long>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.count; i += step) {
    const Int64 index = load<Int64>(a.index + i * size, a.dtype);
    const bool inRange = index >= 0 && index < a.limit;
    if (!inRange) report(a.failure, kIndexOutOfRange, i, index);
    a.out[i] = inRange ? index : 0;
  }
}

template <class U>
__device__ void rows(const IndexRows& a) {
  const unsigned lane = threadIdx.x % a.threads, perBlock = blockDim.x / a.threads;
  const Long step = static_cast<Long>(gridDim.x) * perBlock;
  for (Long r = static_cast<Long>(blockIdx.x) * perBlock + threadIdx.x / a.threads; r < a.rows; r += step) {
    const Long table = a.rows == a.perTable ? 0 : r / a.perTable;
    const U* from = static_cast<const U*>(a.x) + (table * a.size + a.index[r - table * a.perTable]) * a.units;
    U* to = static_cast<U*>(a.out) + r * a.units;
    for (long long i = lane; i < a.units; i += a.threads) to[i] = from[i];
  }
}

// Places of element i in the chosen tensor and in the source.
__device__ void locate(const IndexWalk& a, unsigned i, Int64& place, Int64& source) {
  place = a.index[i] * a.along;
  source = 0;
#pragma unroll
  for (int d = kPointwiseRank - 1; d >= 0; --d) {  // unrolled, so that the arguments are read at fixed places
    if (d >= a.rank) continue;
    const unsigned quotient = (__umulhi(i, a.sizes[d].multiplier) + i) >> a.sizes[d].shift;
    const Int64 at = i - quotient * a.sizes[d].size;
    i = quotient;
    place += at * a.strides[d];
    source += at * a.sourceStrides[d];
  }
}

template <class Body>
__device__ void forElements(unsigned count, const Body& body) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) body(i);
}

template <class U>
__device__ void gather(const IndexGather& a) {
  forElements(a.walk.count, [&](unsigned i) {
    Int64 place, source;
    locate(a.walk, i, place, source);
    static_cast<U*>(a.out)[i] = static_cast<const U*>(a.x)[place];
  });
}

__device__ void places(const IndexPlaces& a) {
  forElements(a.walk.count, [&](unsigned i) {
    Int64 place, source;
    locate(a.walk, i, place, source);
    a.keys[i] = static_cast<unsigned>(place);
    a.values[i] = i;
  });
}

template <class U>
__device__ void scatter(const IndexScatter& a) {
  if (a.failure->serial != 0) return;
  forElements(a.walk.count, [&](unsigned i) {
    const unsigned key = a.keys[i];
    if (i + 1 < a.walk.count && a.keys[i + 1] == key) return;  // a later one is written
    Int64 place, source;
    locate(a.walk, a.order[i], place, source);
    static_cast<U*>(a.out)[key] = static_cast<const U*>(a.source)[source];
  });
}

// An element as what it is summed in, or as int64.
template <class T>
__device__ auto termOf(T x) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<Int64>(x);
  else
    return widen(x);
}

// sum + factor x; integers wrap, as PyTorch's do.
__device__ float addTo(float sum, double factor, float x) { return sum + static_cast<float>(factor) * x; }
__device__ double addTo(double sum, double factor, double x) { return sum + factor * x; }
template <class S>
__device__ S addTo(S sum, double factor, Int64 x) {
  return static_cast<S>(static_cast<Long>(sum) + static_cast<Long>(toInteger(factor)) * static_cast<Long>(x));
}

template <class S, class T>
__device__ void scatterAdd(const IndexScatter& a) {
  if (a.failure->serial != 0) return;
  forElements(a.walk.count, [&](unsigned i) {
    const unsigned key = a.keys[i];
    if (i > 0 && a.keys[i - 1] == key) return;  // an earlier one sums
    S sum = static_cast<const S*>(a.out)[key];
    for (; i < a.walk.count && a.keys[i] == key; ++i) {
      Int64 place, source;
      locate(a.walk, a.order[i], place, source);
      sum = addTo(sum, 1, termOf(static_cast<const T*>(a.source)[source]));
    }
    static_cast<S*>(a.out)[key] = sum;
  });
}

template <class S, class T>
__device__ void addRows(const IndexAdd& a) {
  if (a.failure->serial != 0) return;
  for (unsigned first = blockIdx.x; first < a.count; first += gridDim.x) {
    const unsigned key = a.keys[first];
    if (first > 0 && a.keys[first - 1] == key) continue;
    for (Int64 o = 0; o < a.outer; ++o) {
      for (Int64 column = threadIdx.x; column < a.inner; column += blockDim.x) {
        S& to = static_cast<S*>(a.out)[(o * a.size + key) * a.inner + column];
        S sum = to;
        for (unsigned i = first; i < a.count && a.keys[i] == key; ++i) {
          const T x = static_cast<const T*>(a.source)[(o * a.count + a.order[i]) * a.inner + column];
          sum = addTo(sum, a.alpha, termOf(x));
        }
        to = sum;
      }
    }
  }
}

}  // namespace

#define GRADUS_INDEX(name, Arguments, ...) \
  extern "C" __global__ void __launch_bounds__(256) gradus_index_##name(const Arguments a) { __VA_ARGS__(a); }
#define GRADUS_INDEX_SUMS(S, s, T, t)                                 \
  GRADUS_INDEX(scatter_add_##s##_##t, IndexScatter, scatterAdd<S, T>) \
  GRADUS_INDEX(add_##s##_##t, IndexAdd, addRows<S, T>)

GRADUS_INDEX(check, IndexCheck, check)
GRADUS_INDEX(rows_1, IndexRows, rows<Byte>)
GRADUS_INDEX(rows_2, IndexRows, rows<Short>)
GRADUS_INDEX(rows_4, IndexRows, rows<unsigned>)
GRADUS_INDEX(rows_8, IndexRows, rows<Long>)
GRADUS_INDEX(rows_16, IndexRows, rows<uint4>)
GRADUS_INDEX(gather_1, IndexGather, gather<Byte>)
GRADUS_INDEX(gather_2, IndexGather, gather<Short>)
GRADUS_INDEX(gather_4, IndexGather, gather<unsigned>)
GRADUS_INDEX(gather_8, IndexGather, gather<Long>)
GRADUS_INDEX(places, IndexPlaces, places)
GRADUS_INDEX(scatter_1, IndexScatter, scatter<Byte>)
GRADUS_INDEX(scatter_2, IndexScatter, scatter<Short>)
GRADUS_INDEX(scatter_4, IndexScatter, scatter<unsigned>)
GRADUS_INDEX(scatter_8, IndexScatter, scatter<Long>)
GRADUS_INDEX_SUMS(float, float32, float, float32)
GRADUS_INDEX_SUMS(double, float64, double, float64)
GRADUS_INDEX_SUMS(float, float32, __half, float16)
GRADUS_INDEX_SUMS(float, float32, __nv_bfloat16, bfloat16)
GRADUS_INDEX_SUMS(Int64, int64, Int64, int64)
GRADUS_INDEX_SUMS(int, int32, int, int32)
GRADUS_INDEX_SUMS(Byte, uint8, Byte, uint8)

}  // namespace gradus::cuda
