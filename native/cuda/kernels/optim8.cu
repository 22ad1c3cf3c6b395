// AdamW with both averages in 8 bits, and conversions to and from 8 bits. Half a warp has a block of 256 values,
// sixteen neighbours a lane, whose codes are 128 bits: it widens the averages, updates them, finds the largest
// magnitudes and narrows them again in registers; the parameter is updated from the exact ones.
//
//   gradus_optim8_adamw(OptimStep): states are codes, codes, magnitudes, magnitudes; blocks of 256 threads, one chunk
//     of a tensor a block and round
//   gradus_optim8_quantize(QuantizedBlocks), gradus_optim8_dequantize(QuantizedBlocks): blocks of 256 threads, a warp
//     two blocks of values and round
#include "../../core/blocks.h"
#include "dynamic_map.cuh"
#include "optim_rules.cuh"
#include "optim_step.cuh"

namespace gradus::cuda {
namespace {

constexpr int kBlockLanes = 16, kLaneValues = kQuantizedBlock / kBlockLanes;
static_assert(kLaneValues == 16 && kListChunk % (2 * kQuantizedBlock) == 0);

// Of the two blocks of a warp, the lane's own, and its first value there.
__device__ int ownBlock() { return threadIdx.x / kBlockLanes % 2; }
__device__ int ownValue() { return threadIdx.x % kBlockLanes * kLaneValues; }

__device__ void fillTables(MapTables (&tables)[2]) {
  constexpr int kWords = sizeof(tables) / sizeof(float);
  if (threadIdx.x < kWords) {
    reinterpret_cast<float*>(tables)[threadIdx.x] = reinterpret_cast<const float*>(kMapTables)[threadIdx.x];
  }
  __syncthreads();
}

// The codes of a lane, which has the first `count` of its sixteen. A block begins on 16 bytes when its tensor does.
__device__ void loadCodes(const unsigned char* from, int count, bool whole, unsigned (&codes)[kLaneValues]) {
  if (whole) {
    const uint4 packed = *reinterpret_cast<const uint4*>(from);
    const unsigned words[] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int k = 0; k < kLaneValues; ++k) codes[k] = words[k / 4] >> (8 * (k % 4)) & 255;
  } else {
#pragma unroll
    for (int k = 0; k < kLaneValues; ++k) codes[k] = k < count ? from[k] : 0;
  }
}

__device__ void storeCodes(unsigned char* to, int count, bool whole, const unsigned (&codes)[kLaneValues]) {
  if (whole) {
    unsigned words[4] = {};
#pragma unroll
    for (int k = 0; k < kLaneValues; ++k) words[k / 4] |= codes[k] << (8 * (k % 4));
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
#pragma unroll
    for (int k = 0; k < kLaneValues; ++k) {
      if (k < count) to[k] = static_cast<unsigned char>(codes[k]);
    }
  }
}

template <bool isSigned>
__device__ void widenCodes(const MapTables* tables, const unsigned char* from, float magnitude, int count, bool whole,
                           float (&values)[kLaneValues]) {
  const DynamicMap<isSigned> map{tables[isSigned]};
  unsigned codes[kLaneValues];
  loadCodes(from, count, whole, codes);
#pragma unroll
  for (int k = 0; k < kLaneValues; ++k) values[k] = k < count ? map.value(codes[k], magnitude) : 0.0f;
}

// Writes the block of half a warp: the codes of each lane, and the largest magnitude; nothing where `count` is 0, as in
// all lanes of a block that is not there.
template <bool isSigned>
__device__ void narrowBlock(const MapTables* tables, const float (&values)[kLaneValues], int count, bool whole,
                            unsigned char* to, float* magnitude) {
  const DynamicMap<isSigned> map{tables[isSigned]};
  float most = 0;
#pragma unroll
  for (int k = 0; k < kLaneValues; ++k) {
    if (k < count && fabsf(values[k]) > most) most = fabsf(values[k]);
  }
  for (int offset = kBlockLanes / 2; offset > 0; offset /= 2)
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, offset));
  const float inverse = inverseOf(most);
  unsigned codes[kLaneValues];
#pragma unroll
  for (int k = 0; k < kLaneValues; ++k) codes[k] = map.code(values[k], inverse);
  if (count == 0) return;
  storeCodes(to, count, whole, codes);
  if (threadIdx.x % kBlockLanes == 0) *magnitude = most;
}

__device__ int restOf(unsigned long long count, unsigned long long at) {
  return at >= count ? 0 : count - at < kLaneValues ? static_cast<int>(count - at) : kLaneValues;
}

__device__ void updateBlock(const MapTables* tables, const OptimTensor& tensor, const AdamRule<float, false>& rule,
                            const Incoming<float>& incoming, unsigned long long block, bool wide) {
  const unsigned long long at = block * kQuantizedBlock + ownValue();
  const int count = restOf(tensor.numel, at);
  const bool whole = wide && count == kLaneValues;
  auto* const* codes = reinterpret_cast<unsigned char* const*>(tensor.states);
  auto* const* magnitudes = reinterpret_cast<float* const*>(tensor.states + 2);
  float p[kLaneValues], g[kLaneValues], m[kLaneValues], v[kLaneValues];
  read(tensor.param, tensor.paramDtype, at, count, whole, p);
  read(const_cast<void*>(tensor.grad), tensor.gradDtype, at, count, whole, g);
  const bool exists = block * kQuantizedBlock < tensor.numel;
  widenCodes<true>(tables, codes[0] + at, exists ? magnitudes[0][block] : 0, count, whole, m);
  widenCodes<false>(tables, codes[1] + at, exists ? magnitudes[1][block] : 0, count, whole, v);
#pragma unroll
  for (int k = 0; k < kLaneValues; ++k) {
    float states[3] = {m[k], v[k]};
    p[k] = rule.update(p[k], g[k] * incoming.unscale * incoming.clip, states);
    m[k] = states[0];
    v[k] = states[1];
  }
  write(tensor.param, tensor.paramDtype, at, count, whole, p);
  __syncwarp();  // every lane has read the old magnitudes
  narrowBlock<true>(tables, m, count, whole, codes[0] + at, magnitudes[0] + block);
  narrowBlock<false>(tables, v, count, whole, codes[1] + at, magnitudes[1] + block);
}

constexpr int kAdamStep = 8;  // the attribute that has the host's count

__device__ void adamw(const OptimStep& a) {
  __shared__ MapTables tables[2];
  __shared__ AdamRule<float, false> rule;
  if (isSkipped(a)) return;
  fillTables(tables);
  const Incoming<float> incoming(a);
  forChunks(a, [&](int, int i, unsigned long long from, int n) {
    const OptimTensor& tensor = a.tensors[i];
    __syncthreads();  // the last chunk's rule has been read
    if (threadIdx.x == 0) rule = AdamRule<float, false>(Settings{a}, numberOf(a, i, a.settings[kAdamStep]));
    __syncthreads();
    const bool wide = areWide(tensor.param, tensor.grad) && areWide(tensor.states[0], tensor.states[1]);
    const AdamRule<float, false> own = rule;
    for (int block = threadIdx.x / 32 * 2; block * kQuantizedBlock < n; block += blockDim.x / 32 * 2) {
      updateBlock(tables, tensor, own, incoming, from / kQuantizedBlock + block + ownBlock(), wide);
    }
  });
}

// body(block, its first value of the lane, how many there are) for the blocks of each warp, two at a time: the second
// may not be there.
template <class Body>
__device__ void overBlocks(const QuantizedBlocks& a, const Body& body) {
  const unsigned long long step = 2ull * gridDim.x * (blockDim.x / 32);
  for (auto b = 2ull * (blockIdx.x * (blockDim.x / 32ull) + threadIdx.x / 32); b * kQuantizedBlock < a.count;
       b += step) {
    const unsigned long long own = b + ownBlock(), at = own * kQuantizedBlock + ownValue();
    body(own, at, restOf(a.count, at));
  }
}

__device__ void quantize(const QuantizedBlocks& a) {
  __shared__ MapTables tables[2];
  fillTables(tables);
  const bool wide = areWide(a.values, a.codes);
  overBlocks(a, [&](unsigned long long b, unsigned long long at, int count) {
    const bool whole = wide && count == kLaneValues;
    float x[kLaneValues];
    if (whole)
      loadRun(a.values + at, x);
    else
      loadSome(a.values + at, count, x);
    if (a.isSigned)
      narrowBlock<true>(tables, x, count, whole, a.codes + at, a.magnitudes + b);
    else
      narrowBlock<false>(tables, x, count, whole, a.codes + at, a.magnitudes + b);
  });
}

__device__ void dequantize(const QuantizedBlocks& a) {
  __shared__ MapTables tables[2];
  fillTables(tables);
  const bool wide = areWide(a.values, a.codes);
  overBlocks(a, [&](unsigned long long b, unsigned long long at, int count) {
    const bool whole = wide && count == kLaneValues;
    float x[kLaneValues];
    const float magnitude = b * kQuantizedBlock < a.count ? a.magnitudes[b] : 0;
    if (a.isSigned)
      widenCodes<true>(tables, a.codes + at, magnitude, count, whole, x);
    else
      widenCodes<false>(tables, a.codes + at, magnitude, count, whole, x);
    if (whole)
      storeRun(a.values + at, x);
    else
      storeSome(a.values + at, count, x);
  });
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256, 2) gradus_optim8_adamw(const __grid_constant__ OptimStep a) {
  adamw(a);
}
extern "C" __global__ void __launch_bounds__(256) gradus_optim8_quantize(const QuantizedBlocks a) { quantize(a); }
extern "C" __global__ void __launch_bounds__(256) gradus_optim8_dequantize(const QuantizedBlocks a) { dequantize(a); }

}  // namespace gradus::cuda
