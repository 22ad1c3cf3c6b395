// Random choices that need more than one element's word: permutations and draws from weights, those of
// native/cpu/sample.cc.
//
// A permutation is Fisher & Yates's, from the end, whose swaps depend on each other only where they meet: a block takes
// the next 1024, those that come first at both of their places swap at once, and the others wait for them. The result
// is the sequential one (Shun et al. 2015, "Sequential random permutation, list contraction and tree contraction are
// highly parallel").
//
//   gradus_sample_positions(SampleShuffle): out[i] = i, blocks of 256 threads, grid stride
//   gradus_sample_shuffle(SampleShuffle): one block of 1024 threads
//   gradus_sample_draw(SampleRows), gradus_sample_keys(SampleRows): blocks of 256 threads, a row a block and round
#include "philox.cuh"
#include "rows.cuh"
#include "sample.h"

namespace gradus::cuda {
namespace {

__device__ void positions(const SampleShuffle& a) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += gridDim.x * blockDim.x) {
    a.out[i] = i;
    a.reserved[i] = 0;
  }
}

__device__ void shuffle(const SampleShuffle& a) {
  const PhiloxStream stream = present(a.stream);
  for (Int64 top = Int64(a.count) - 1; top > 0; top -= kShuffleThreads) {
    const Int64 own = top - threadIdx.x;
    bool waits = own > 0;
    const unsigned i = waits ? static_cast<unsigned>(own) : 0;
    const unsigned other = waits ? static_cast<unsigned>(__umul64hi(philoxWideWord(stream, i), own + 1)) : 0;
    do {
      if (waits) {  // later positions swap first
        atomicMax(&a.reserved[i], i);
        atomicMax(&a.reserved[other], i);
      }
      __syncthreads();
      const bool isFirst = waits && a.reserved[i] == i && a.reserved[other] == i;
      __syncthreads();  // all have seen who comes first
      if (isFirst) {
        const Int64 value = a.out[i];
        a.out[i] = a.out[other];
        a.out[other] = value;
        a.reserved[i] = 0;
        a.reserved[other] = 0;
        waits = false;
      }
    } while (__syncthreads_or(waits));
  }
}

// A weight, or 0 for one that nothing can be drawn with, which is reported.
__device__ double weightAt(const SampleRows& a, Int64 row, Int64 choice) {
  const double w = load<double>(a.weights + (row * a.choices + choice) * a.itemSize, a.dtype);
  if (w >= 0 && w < INFINITY) return w;
  report(a.failure, kUnusableWeight, row * (a.choices + 2) + choice, __double_as_longlong(w));
  return 0;
}

__device__ void refuseSum(const SampleRows& a, Int64 row, double sum) {
  report(a.failure, kUnusableSum, row * (a.choices + 2) + a.choices, __double_as_longlong(sum));
}

// Each thread sums neighbouring weights one by one, and their sums are added up in order: cumulative weights never
// fall, and stay the same over a weight of 0, which is therefore not drawn.
__device__ void draw(const SampleRows& a) {
  const PhiloxStream stream = present(a.stream);
  __shared__ double starts[257];
  const Int64 each = (a.choices + 255) / 256;
  for (Int64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
    double sum = 0;
    for (Int64 j = threadIdx.x * each; j < (threadIdx.x + 1) * each && j < a.choices; ++j) sum += weightAt(a, r, j);
    __syncthreads();  // the last row has been drawn
    starts[threadIdx.x + 1] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      starts[0] = 0;
      for (int t = 0; t < 256; ++t) starts[t + 1] += starts[t];
      if (!(starts[256] > 0 && starts[256] < INFINITY)) refuseSum(a, r, starts[256]);
    }
    __syncthreads();
    const double total = starts[256];
    for (Int64 s = threadIdx.x; s < a.samples; s += 256) {
      const double target = philoxUnit(stream, r * a.samples + s) * total;
      int low = 0, high = 255;  // the first part whose end exceeds the target, or the last one
      while (low < high) {
        const int middle = (low + high) / 2;
        if (starts[middle + 1] > target)
          high = middle;
        else
          low = middle + 1;
      }
      Int64 j = low * each, drawn = -1;
      double within = 0;
      for (; j < (low + 1) * each && j < a.choices && drawn < 0; ++j) {
        within += weightAt(a, r, j);
        if (starts[low] + within > target) drawn = j;
      }
      // u < 1, but the product may round up to the sum: then the last position of weight above 0
      for (j = a.choices - 1; drawn < 0 && j > 0 && weightAt(a, r, j) == 0;) --j;
      a.out[r * a.samples + s] = drawn < 0 ? j : drawn;
    }
  }
}

// -log(u) / weight: the smallest is drawn first, each with its share of the weight that is left (Efraimidis & Spirakis
// 2006, algorithm A).
__device__ void keys(const SampleRows& a) {
  const PhiloxStream stream = present(a.stream);
  const Group block(256);
  for (Int64 r = blockIdx.x; r < a.rows; r += gridDim.x) {
    double sum = 0;
    Int64 usable = 0;
    for (Int64 j = threadIdx.x; j < a.choices; j += 256) {
      const Int64 place = r * a.choices + j;
      const double w = weightAt(a, r, j);
      sum += w;
      usable += w > 0;
      a.keys[place] = w > 0 ? -log(1 - philoxUnit(stream, place)) / w : static_cast<double>(INFINITY);
    }
    sum = block.sum(sum);
    usable = block.sum(usable);
    if (threadIdx.x != 0) continue;
    if (!(sum > 0 && sum < INFINITY))
      refuseSum(a, r, sum);
    else if (usable < a.samples)
      report(a.failure, kTooFewWeights, r * (a.choices + 2) + a.choices + 1, usable);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(256) gradus_sample_positions(const SampleShuffle a) { positions(a); }
extern "C" __global__ void __launch_bounds__(1024) gradus_sample_shuffle(const SampleShuffle a) { shuffle(a); }
extern "C" __global__ void __launch_bounds__(256, 4) gradus_sample_draw(const SampleRows a) { draw(a); }
extern "C" __global__ void __launch_bounds__(256, 4) gradus_sample_keys(const SampleRows a) { keys(a); }

}  // namespace gradus::cuda
