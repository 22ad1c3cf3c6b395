// The order of elements along a dim, by stable radix sorts of pairs of a word of their keys and their places: words of
// the key first, the line last. NaN is the largest, and equal elements keep their order in either direction.
//
//   gradus_order_keys(OrderKeys), gradus_order_pick(OrderPick): blocks of 256 threads, one element a thread and round
//   of a
//     grid-stride loop
#include "element.cuh"
#include "rows.cuh"
#include "sort.h"

namespace gradus::cuda {
namespace {

// Signed numbers have their sign bit flipped, negative floats all of their bits.
template <class Bits>
__device__ Bits keyOfFloat(Bits bits, Bits sign, Bits infinity) {
  if ((bits & ~sign) > infinity) return ~Bits(0);  // NaN
  if (bits == sign) return sign;                   // -0 is 0
  return bits & sign ? ~bits : bits | sign;
}

__device__ unsigned long long keyAt(const char* at, int dtype) {
  using Long = unsigned long long;
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat64:
      return keyOfFloat<Long>(*reinterpret_cast<const Long*>(at), 1ull << 63, 0x7ffull << 52);
    case DType::kFloat16:
      return keyOfFloat<unsigned short>(*reinterpret_cast<const unsigned short*>(at), 0x8000, 0x7c00);
    case DType::kBFloat16:
      return keyOfFloat<unsigned short>(*reinterpret_cast<const unsigned short*>(at), 0x8000, 0x7f80);
    case DType::kInt64:
      return *reinterpret_cast<const Long*>(at) ^ 1ull << 63;
    case DType::kInt32:
      return *reinterpret_cast<const unsigned*>(at) ^ 1u << 31;
    case DType::kUint8:
      return *reinterpret_cast<const unsigned char*>(at);
    case DType::kBool:
      return *reinterpret_cast<const unsigned char*>(at) != 0;
    default:
      return keyOfFloat<unsigned>(*reinterpret_cast<const unsigned*>(at), 1u << 31, 0xffu << 23);
  }
}

__device__ void keys(const OrderKeys& a) {
  const OrderLines& lines = a.lines;
  const unsigned bits = lines.itemSize * 8 - 1;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < lines.count; i += gridDim.x * blockDim.x) {
    const unsigned p = a.fresh ? i : a.values[i], line = p / lines.size;
    if (a.fresh) a.values[i] = i;
    if (a.word == kLineWord) {
      a.keys[i] = line;
      continue;
    }
    unsigned long long key =
        keyAt(lines.in + offsetOf(lines.rest, line) + (p - line * lines.size) * lines.stride, lines.dtype);
    if (lines.descending) key = ~key & (2ull << bits) - 1;
    a.keys[i] = static_cast<unsigned>(a.word == kHighWord ? key >> 32 : key);
  }
}

__device__ void pick(const OrderPick& a) {
  const OrderLines& lines = a.lines;
  const unsigned count = lines.count / lines.size * a.kept;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const unsigned line = i / a.kept, k = i - line * a.kept;
    const unsigned index = a.order[line * lines.size + k] - line * lines.size;
    const long long to = offsetOf(a.rest, line) + k * a.stride;
    a.indices[to] = index;
    if (a.values == nullptr) continue;
    const char* from = lines.in + offsetOf(lines.rest, line) + index * lines.stride;
    char* value = a.values + to * lines.itemSize;
    switch (lines.itemSize) {
      case 1:
        *value = *from;
        break;
      case 2:
        *reinterpret_cast<short*>(value) = *reinterpret_cast<const short*>(from);
        break;
      case 4:
        *reinterpret_cast<int*>(value) = *reinterpret_cast<const int*>(from);
        break;
      default:
        *reinterpret_cast<Int64*>(value) = *reinterpret_cast<const Int64*>(from);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_order_keys(const __grid_constant__ OrderKeys a) { keys(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_order_pick(const __grid_constant__ OrderPick a) { pick(a); }

}  // namespace gradus::cuda
