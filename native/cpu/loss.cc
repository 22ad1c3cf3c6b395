// Cross entropy with class targets: each direction reads the logits once, and forward keeps one number a row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "loss.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "loss-inl.h"
#include "parallel.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

constexpr int64_t kGrain = 65536;  // elements worth a thread

inline int64_t rowGrain(int64_t classes) { return std::max<int64_t>(1, kGrain / classes); }

inline LossOptions readOptions(const OpCall& call) {
  return {call.integer(0), call.attr[1], static_cast<int>(call.attr[2])};
}

// A row with neighbouring elements: itself, or gathered into `buffer`.
template <class E>
const E* denseRow(const TensorView& x, int64_t row, E* buffer) {
  const E* from = x.as<E>() + row * x.strides[0];
  const int64_t stride = x.strides[1];
  if (stride == 1 || x.sizes[1] == 1) return from;
  for (int64_t c = 0; c < x.sizes[1]; ++c) buffer[c] = from[c * stride];
  return buffer;
}

template <class E>
void crossEntropyOf(const OpCall& call) {
  using T = Compute<E>;
  const TensorView& x = call.in[0];
  const int64_t rows = x.size(0), classes = x.size(1);
  const LossOptions options = readOptions(call);
  int64_t* targets = call.scratch<int64_t>(rows);
  readTargets(call.name, call.in[1], classes, options.ignoreIndex, targets);
  const ClassWeights<T> weights(call.nIn > 2 && call.in[2].present() ? &call.in[2] : nullptr, classes);
  double* losses = call.scratch<double>(rows);
  T* logsumexp = call.out[1].as<T>();
  const int64_t wide = x.strides[1] == 1 || classes == 1 ? 0 : classes;
  E* buffers = wide ? call.scratch<E>(wide * numThreads()) : nullptr;
  parallelFor(rows, rowGrain(classes), [&](int64_t begin, int64_t end) {
    E* buffer = buffers + wide * omp_get_thread_num();
    for (int64_t row = begin; row < end; ++row) {
      losses[row] = 0;
      logsumexp[row] = 0;
      if (targets[row] == kIgnored) continue;
      const E* from = denseRow(x, row, buffer);
      RowSums<T> sums;
      addToRow(sums, from, classes, options.smoothing > 0, weights.data());
      logsumexp[row] = sums.logsumexp();
      losses[row] = sums.loss(options, weights, classes, targets[row], widen(from[targets[row]]));
    }
  });
  if (options.reduction == kNone) {
    visitFloating(call.out[0].dtype, [&](auto sample) {
      using L = decltype(sample);
      L* to = call.out[0].as<L>();
      for (int64_t row = 0; row < rows; ++row) {
        to[row * call.out[0].strides[0]] = Narrow<L>::from(static_cast<Compute<L>>(losses[row]));
      }
    });
    writeScalar(call.out[2], 1);
    return;
  }
  const double divisor = options.reduction == kMean ? meanDivisor(weights, targets, rows) : 1;
  double total = 0;
  for (int64_t row = 0; row < rows; ++row) total += losses[row];
  writeScalar(call.out[2], divisor);
  writeScalar(call.out[0], total / divisor);
}

double incomingAt(const TensorView& g, int64_t row) {
  const int64_t at = g.rank == 0 ? 0 : row * g.strides[0];
  return visitFloating(g.dtype, [&](auto sample) { return double{widen(g.as<decltype(sample)>()[at])}; });
}

template <class E>
void crossEntropyBackwardOf(const OpCall& call) {
  using T = Compute<E>;
  const TensorView &g = call.in[0], &x = call.in[1], &out = call.out[0];
  const int64_t rows = x.size(0), classes = x.size(1);
  const LossOptions options = readOptions(call);
  int64_t* targets = call.scratch<int64_t>(rows);
  readTargets(call.name, call.in[2], classes, options.ignoreIndex, targets);
  const T* logsumexp = call.in[3].as<T>();
  const double divisor = *call.in[4].as<T>();
  const ClassWeights<T> weights(call.nIn > 5 && call.in[5].present() ? &call.in[5] : nullptr, classes);
  const int64_t wide = x.strides[1] == 1 || classes == 1 ? 0 : classes;
  E* buffers = wide ? call.scratch<E>(wide * numThreads()) : nullptr;
  parallelFor(rows, rowGrain(classes), [&](int64_t begin, int64_t end) {
    E* buffer = buffers + wide * omp_get_thread_num();
    for (int64_t row = begin; row < end; ++row) {
      E* to = out.as<E>() + row * classes;
      if (targets[row] == kIgnored) {
        std::memset(static_cast<void*>(to), 0, classes * sizeof(E));
        continue;
      }
      const int64_t y = targets[row];
      const E* from = denseRow(x, row, buffer);
      const double incoming = incomingAt(g, row) / divisor;
      const RowGradient<T> gradient(options, weights, classes, y, incoming);
      const E atTarget = from[y];  // `to` may be the logits themselves
      gradientOfRow(from, classes, logsumexp[row], gradient, weights.data(), to);
      to[y] = gradientAtTarget<E>(atTarget, logsumexp[row], gradient, static_cast<T>(weights.of(y)));
    }
  });
}

// Losses whose gradients are made in the forward pass end here. backward() starts with 1 nearly always, and then a pass
// over the whole weight gradient is saved.
void scaleByScalar(const OpCall& call) {
  const double factor = call.in[0].dtype == DType::kFloat64 ? *call.in[0].as<double>() : *call.in[0].as<float>();
  if (factor == 1) return;
  for (int o = 0; o < call.nOut; ++o) {
    visitFloating(call.out[o].dtype, [&](auto sample) {
      using E = decltype(sample);
      using T = Compute<E>;
      E* x = call.out[o].as<E>();
      parallelFor(call.out[o].numel, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) x[i] = Narrow<E>::from(static_cast<T>(factor) * widen(x[i]));
      });
    });
  }
}

void crossEntropy(const OpCall& call) {
  visitFloating(call.in[0].dtype, [&](auto sample) { crossEntropyOf<decltype(sample)>(call); });
}
void crossEntropyBackward(const OpCall& call) {
  visitFloating(call.in[1].dtype, [&](auto sample) { crossEntropyBackwardOf<decltype(sample)>(call); });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(crossEntropy);
HWY_EXPORT(crossEntropyBackward);
HWY_EXPORT(scaleByScalar);

void run_crossEntropy(const OpCall& call) { HWY_DYNAMIC_DISPATCH(crossEntropy)(call); }
void run_crossEntropyBackward(const OpCall& call) { HWY_DYNAMIC_DISPATCH(crossEntropyBackward)(call); }
void run_scaleByScalar(const OpCall& call) { HWY_DYNAMIC_DISPATCH(scaleByScalar)(call); }

}  // namespace gradus::cpu
#endif  // HWY_ONCE
