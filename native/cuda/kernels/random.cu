// Random tensors and dropout, from philox and nothing else: an element's value depends on its place in row-major order,
// the seed and the offset. Formulas are those of native/cpu/random.cc. Words are equal to the bit, and so is everything
// but normal, whose logarithm and cosine are the device's.
//
//   gradus_random_uniform_<dtype>(RandomFill), gradus_random_normal_<dtype>(RandomFill)
//   gradus_random_integers_<narrow|wide>(RandomIntegers): from words of 32 or 64 bits
//   gradus_random_bernoulli_<dtype>(RandomChoices)
//     blocks of 256 threads; four elements, a counter's, a thread and round of a grid-stride loop; uniform, normal and
//     bernoulli of 16-bit dtypes: eight
//   gradus_random_dropout_<dtype of x>_<dtype of the output>(Dropout)
//     blocks of 256 threads; eight elements a thread and round where one dtype has 16 bits, else four
#include "any_runs.cuh"
#include "philox.cuh"

namespace gradus::cuda {
namespace {

using Count = unsigned long long;

__device__ Count firstItem() { return static_cast<Count>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ Count itemStep() { return static_cast<Count>(gridDim.x) * blockDim.x; }

// Elements of a thread and round: four of a counter, or of two where they have 16 bits, so that they are 128 bits.
template <class T>
constexpr int kRun = sizeof(T) == 2 ? 8 : 4;

// body(counter, its elements' values) for each of the thread's counters.
template <class T, class Body>
__device__ void fill(const RandomFill& a, const Body& body) {
  using C = Compute<T>;
  constexpr int kWidth = kRun<T>;
  for (Count at = kWidth * firstItem(); at < a.count; at += kWidth * itemStep()) {
    C values[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; k += 4) body(at / 4 + k / 4, values + k);
    T* to = static_cast<T*>(a.out) + at;
    if (a.aligned && at + kWidth <= a.count)
      storeRun(to, values);
    else
      storeSome(to, static_cast<int>(min(a.count - at, Count(kWidth))), values);
  }
}

// The number of leading bits of a word that T holds exactly, so that rounding never gives 1.
template <class T>
constexpr int kUniformBits = 24;
template <>
constexpr int kUniformBits<__half> = 11;
template <>
constexpr int kUniformBits<__nv_bfloat16> = 8;

template <class T>
__device__ void uniform(const RandomFill& a) {
  using C = Compute<T>;
  const PhiloxStream stream = present(a.stream);
  const C start = static_cast<C>(a.start), width = static_cast<C>(a.width);
  fill<T>(a, [&](Count i, C* values) {
    if constexpr (sizeof(T) == 8) {
      Count words[4];
      philoxWide(stream, i, words);
#pragma unroll
      for (int k = 0; k < 4; ++k) values[k] = fma(static_cast<double>(words[k] >> 11) * 0x1p-53, width, start);
    } else {
      constexpr int kBits = kUniformBits<T>;
      const PhiloxBlock words = philoxBlock(stream, i);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        values[k] = fma(static_cast<float>(words.lane[k] >> (32 - kBits)) * (1.0f / (1 << kBits)), width, start);
      }
    }
  });
}

// Box & Muller 1958; u is in (0, 1], so that its logarithm is finite.
template <class C>
__device__ void normalPair(C u, C v, C mean, C deviation, C& first, C& second) {
  const C radius = sqrt(C(-2) * log(u)) * deviation;
  C sine, cosine;
  if constexpr (sizeof(C) == 8)
    sincospi(2 * v, &sine, &cosine);
  else
    sincospif(2 * v, &sine, &cosine);
  first = fma(radius, cosine, mean);
  second = fma(radius, sine, mean);
}

template <class T>
__device__ void normal(const RandomFill& a) {
  using C = Compute<T>;
  const PhiloxStream stream = present(a.stream);
  const C mean = static_cast<C>(a.start), deviation = static_cast<C>(a.width);
  fill<T>(a, [&](Count i, C* values) {
    if constexpr (sizeof(T) == 8) {
      Count words[4];
      philoxWide(stream, i, words);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const double u = static_cast<double>((words[k] >> 11) + 1) * 0x1p-53;
        const double v = static_cast<double>(words[k + 1] >> 11) * 0x1p-53;
        normalPair(u, v, mean, deviation, values[k], values[k + 1]);
      }
    } else {
      const PhiloxBlock words = philoxBlock(stream, i);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const float u = static_cast<float>((words.lane[k] >> 8) + 1) * 0x1p-24f;
        const float v = static_cast<float>(words.lane[k + 1] >> 8) * 0x1p-24f;
        normalPair(u, v, mean, deviation, values[k], values[k + 1]);
      }
    }
  });
}

// The high half of a product of two words.
__device__ Count share(Count word, Count range) { return __umul64hi(word, range); }
__device__ Count share(unsigned word, Count range) { return word * range >> 32; }

template <bool kWide>
__device__ void integers(const RandomIntegers& a) {
  const PhiloxStream stream = present(a.stream);
  for (Count i = firstItem(); 4 * i < a.count; i += itemStep()) {
    Count steps[4];
    if constexpr (kWide) {
      philoxWide(stream, i, steps);
#pragma unroll
      for (int k = 0; k < 4; ++k) steps[k] = share(steps[k], a.range);
    } else {
      const PhiloxBlock words = philoxBlock(stream, i);
#pragma unroll
      for (int k = 0; k < 4; ++k) steps[k] = share(words.lane[k], a.range);
    }
    Int64 numbers[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) numbers[k] = a.low + static_cast<Int64>(steps[k]);
    char* to = a.out + 4 * i * a.itemSize;
    if (a.aligned && 4 * i + 4 <= a.count) {
      storeAny(to, a.dtype, numbers);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (4 * i + k < a.count) store(to + k * a.itemSize, a.dtype, numbers[k]);
      }
    }
  }
}

template <class T>
__device__ void bernoulli(const RandomChoices& a) {
  using C = Compute<T>;
  const PhiloxStream stream = present(a.stream);
  constexpr int kWidth = kRun<T>;
  for (Count at = kWidth * firstItem(); at < a.count; at += kWidth * itemStep()) {
    const int count = static_cast<int>(min(a.count - at, Count(kWidth)));
    const bool whole = a.aligned && count == kWidth;
    const T* from = static_cast<const T*>(a.p) + at;
    C p[kWidth];
    if (whole)
      loadRun(from, p);
    else
      loadSome(from, count, p);
#pragma unroll
    for (int k = 0; k < kWidth; k += 4) {
      const PhiloxBlock words = philoxBlock(stream, (at + k) / 4);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        p[k + j] = static_cast<C>(words.lane[j] >> 8) * C(0x1p-24) < p[k + j] ? C(1) : C(0);
      }
    }
    T* to = static_cast<T*>(a.out) + at;
    if (whole)
      storeRun(to, p);
    else
      storeSome(to, count, p);
  }
}

// --- dropout -------------------------------------------------------------------------------------------------------

// No contraction with what follows: the sum with a residual has the bits of two operators.
__device__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ double times(double a, double b) { return __dmul_rn(a, b); }

template <class T, class S>
__device__ void dropout(const Dropout& a) {
  using C = Compute<T>;
  const PhiloxStream stream = present(a.stream);
  constexpr int kWidth = sizeof(T) == 2 || sizeof(S) == 2 ? 8 : 4;
  const C scale = static_cast<C>(a.scale);
  for (Count i = firstItem(); kWidth * i < a.count; i += itemStep()) {
    const Count at = kWidth * i;
    const int count = static_cast<int>(min(a.count - at, Count(kWidth)));
    const bool whole = a.aligned && count == kWidth;
    const T* x = static_cast<const T*>(a.x) + at;
    const S* residual = static_cast<const S*>(a.residual) + at;
    S* out = static_cast<S*>(a.out) + at;
    C v[kWidth];
    if (whole)
      loadRun(x, v);
    else
      loadSome(x, count, v);
    if (a.threshold > 0) {
#pragma unroll
      for (int k = 0; k < kWidth; k += 4) {
        const PhiloxBlock words = philoxBlock(stream, (at + k) / 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[k + j] = words.lane[j] < a.threshold ? C(0) : times(v[k + j], scale);
      }
    }
    if (a.residual != nullptr) {
      C base[kWidth];
      if (whole)
        loadRun(residual, base);
      else
        loadSome(residual, count, base);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] += base[k];
    }
    if (whole)
      storeRun(out, v);
    else
      storeSome(out, count, v);
  }
}

}  // namespace

#define GRADUS_RANDOM(what, Arguments, dtype, T) \
  extern "C" __global__ void __launch_bounds__(256) gradus_random_##what##_##dtype(const Arguments a) { what<T>(a); }
#define GRADUS_RANDOM_DTYPES(what, Arguments)     \
  GRADUS_RANDOM(what, Arguments, float32, float)  \
  GRADUS_RANDOM(what, Arguments, float64, double) \
  GRADUS_RANDOM(what, Arguments, float16, __half) \
  GRADUS_RANDOM(what, Arguments, bfloat16, __nv_bfloat16)

GRADUS_RANDOM_DTYPES(uniform, RandomFill)
GRADUS_RANDOM_DTYPES(normal, RandomFill)
GRADUS_RANDOM_DTYPES(bernoulli, RandomChoices)
GRADUS_RANDOM(integers, RandomIntegers, narrow, false)
GRADUS_RANDOM(integers, RandomIntegers, wide, true)

#define GRADUS_DROPOUT(from, T, to, S)                                                                     \
  extern "C" __global__ void __launch_bounds__(256) gradus_random_dropout_##from##_##to(const Dropout a) { \
    dropout<T, S>(a);                                                                                      \
  }
#define GRADUS_DROPOUT_FROM(from, T)       \
  GRADUS_DROPOUT(from, T, float32, float)  \
  GRADUS_DROPOUT(from, T, float16, __half) \
  GRADUS_DROPOUT(from, T, bfloat16, __nv_bfloat16)

GRADUS_DROPOUT_FROM(float32, float)
GRADUS_DROPOUT_FROM(float16, __half)
GRADUS_DROPOUT_FROM(bfloat16, __nv_bfloat16)
GRADUS_DROPOUT(float64, double, float64, double)

}  // namespace gradus::cuda
