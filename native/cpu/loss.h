// What cross entropy and linear + cross entropy share: reading targets, weights and the reduction.
//
// With class weights w, smoothing e and W = sum_c w_c, the loss of a row with target y is
//   (1 - e) w_y (lse - x_y) + (e / C) (W lse - sum_c w_c x_c)
// and its gradient
//   softmax_c ((1 - e) w_y + e W / C) - (e / C) w_c - (1 - e) w_y [c = y].
// A mean divides by the sum of w_y over the rows that are not ignored (PyTorch's rule, for the smoothing term too).
#pragma once

#include <vector>

#include "../core/data_errors.h"
#include "../core/element.h"
#include "../core/op.h"

namespace gradus::cpu {

enum Reduction { kNone = 0, kMean = 1, kSum = 2 };

struct LossOptions {
  int64_t ignoreIndex;
  double smoothing;
  int reduction;
};

constexpr int64_t kIgnored = -1;

// Targets as int64, kIgnored where ignored. Throws kIndex before anything is written.
inline void readTargets(const char* op, const TensorView& target, int64_t classes, int64_t ignoreIndex, int64_t* to) {
  const auto read = [&](auto sample) {
    using E = decltype(sample);
    const E* from = target.as<E>();
    for (int64_t i = 0; i < target.numel; ++i) {
      const int64_t value = static_cast<int64_t>(from[i * target.strides[0]]);
      const bool ignored = value == ignoreIndex;
      if (!ignored && (value < 0 || value >= classes)) {
        throw targetOutOfRange(op, value, i, classes, ignoreIndex);
      }
      to[i] = ignored ? kIgnored : value;
    }
  };
  if (target.dtype == DType::kInt64)
    read(int64_t{});
  else if (target.dtype == DType::kInt32)
    read(int32_t{});
  else
    read(uint8_t{});
}

// Class weights in the compute type; empty without them.
template <class T>
struct ClassWeights {
  std::vector<T> values;
  double total;  // W

  ClassWeights(const TensorView* weight, int64_t classes) : total(static_cast<double>(classes)) {
    if (weight == nullptr) return;
    values.resize(classes);
    total = 0;
    visitFloating(weight->dtype, [&](auto sample) {
      using E = decltype(sample);
      for (int64_t c = 0; c < classes; ++c) {
        values[c] = static_cast<T>(widen(weight->as<E>()[c * weight->strides[0]]));
        total += values[c];
      }
    });
  }
  const T* data() const { return values.empty() ? nullptr : values.data(); }
  double of(int64_t target) const { return values.empty() ? 1 : values[target]; }
};

template <class T>
double meanDivisor(const ClassWeights<T>& weights, const int64_t* targets, int64_t rows) {
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (targets[i] != kIgnored) sum += weights.of(targets[i]);
  }
  return sum;
}

// The coefficients of a row's gradient, times the incoming gradient.
template <class T>
struct RowGradient {
  T probability, smoothing, target;

  RowGradient(const LossOptions& options, const ClassWeights<T>& weights, int64_t classes, int64_t y, double incoming) {
    const double hard = (1 - options.smoothing) * weights.of(y), soft = options.smoothing / classes;
    probability = static_cast<T>(incoming * (hard + soft * weights.total));
    smoothing = static_cast<T>(incoming * soft);
    target = static_cast<T>(incoming * hard);
  }
};

inline double writeScalar(const TensorView& out, double value) {
  visitFloating(out.dtype, [&](auto sample) {
    using E = decltype(sample);
    if constexpr (std::is_same_v<E, double>)
      *out.as<E>() = value;
    else
      *out.as<E>() = Narrow<E>::from(static_cast<float>(value));
  });
  return value;
}

}  // namespace gradus::cpu
