// Passes over a row of logits. Include inside a kernel file that Highway compiles for every target.
#if defined(GRADUS_CPU_LOSS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_LOSS_INL_H_
#undef GRADUS_CPU_LOSS_INL_H_
#else
#define GRADUS_CPU_LOSS_INL_H_
#endif

#include "exp-inl.h"
#include "loss.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Running sum of exp(x - maximum), and of w x for smoothing. A row may come in pieces.
template <class T>
struct RowSums {
  T maximum = std::numeric_limits<T>::lowest();  // not -inf: see onlineSoftmax
  T exponentials = 0;
  double weighted = 0;

  T logsumexp() const { return maximum + std::log(exponentials); }
  double loss(const LossOptions& options, const ClassWeights<T>& weights, int64_t classes, int64_t y, T atTarget) const {
    const double lse = logsumexp();
    double loss = (1 - options.smoothing) * weights.of(y) * (lse - atTarget);
    if (options.smoothing > 0) loss += options.smoothing / classes * (weights.total * lse - weighted);
    return loss;
  }
};

constexpr int64_t kLossChunk = 2048;  // elements that stay in L1 between finding the maximum and using it

// Adds x [n] to the sums in one pass over memory. `weights` (of these classes) may be null.
template <class E, class T>
void addToRow(RowSums<T>& sums, const E* HWY_RESTRICT x, int64_t n, bool smoothing, const T* HWY_RESTRICT weights) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto lowest = hn::Set(d, std::numeric_limits<T>::lowest());
  const auto minusInfinity = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (int64_t begin = 0; begin < n; begin += kLossChunk) {
    const E* at = x + begin;
    const int64_t count = std::min(kLossChunk, n - begin), whole = count - count % lanes;
    // Two accumulators hide the latency of max and of the sums.
    auto top0 = lowest, top1 = lowest;
    int64_t i = 0;
    for (; i + 2 * lanes <= count; i += 2 * lanes) {
      top0 = hn::Max(top0, vec::load(d, at + i));
      top1 = hn::Max(top1, vec::load(d, at + i + lanes));
    }
    for (; i < whole; i += lanes) top0 = hn::Max(top0, vec::load(d, at + i));
    auto tail = minusInfinity;
    if (whole < count) {
      tail = hn::IfThenElse(hn::FirstN(d, count - whole), vec::loadTail(d, at + whole, count - whole), minusInfinity);
      top1 = hn::Max(top1, tail);
    }
    const T before = sums.maximum;
    sums.maximum = std::max(before, vec::maxLanes(d, hn::Max(top0, top1)));
    const auto top = hn::Set(d, sums.maximum);
    auto sum0 = expNonPositive(d, hn::Sub(tail, top)), sum1 = hn::Zero(d);
    for (i = 0; i + 2 * lanes <= count; i += 2 * lanes) {
      sum0 = hn::Add(sum0, expNonPositive(d, hn::Sub(vec::load(d, at + i), top)));
      sum1 = hn::Add(sum1, expNonPositive(d, hn::Sub(vec::load(d, at + i + lanes), top)));
    }
    for (; i < whole; i += lanes) sum0 = hn::Add(sum0, expNonPositive(d, hn::Sub(vec::load(d, at + i), top)));
    sums.exponentials = sums.exponentials * std::exp(before - sums.maximum) + vec::sumLanes(d, hn::Add(sum0, sum1));
    if (smoothing) {
      auto weighted = hn::Zero(d);
      for (i = 0; i < whole; i += lanes) {
        const auto value = vec::load(d, at + i);
        weighted = weights ? hn::MulAdd(hn::LoadU(d, weights + begin + i), value, weighted) : hn::Add(value, weighted);
      }
      sums.weighted += vec::sumLanes(d, weighted);
      for (; i < count; ++i) sums.weighted += widen(at[i]) * (weights ? weights[begin + i] : T(1));
    }
  }
}

// to = probability * exp(x - logsumexp) - smoothing * w; the caller subtracts the target's share.
template <class E, class O, class T>
void gradientOfRow(const E* x, int64_t n, T logsumexp, const RowGradient<T>& g, const T* weights, O* to) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto shift = hn::Set(d, logsumexp), factor = hn::Set(d, g.probability), smoothing = hn::Set(d, g.smoothing);
  const auto gradient = [&](hn::Vec<decltype(d)> value, hn::Vec<decltype(d)> weight) {
    return hn::MulSub(factor, expNonPositive(d, hn::Sub(value, shift)), hn::Mul(smoothing, weight));
  };
  const auto one = hn::Set(d, T(1));
  int64_t i = 0;
  if (weights) {
    for (; i + lanes <= n; i += lanes) {
      vec::store(d, gradient(vec::load(d, x + i), hn::LoadU(d, weights + i)), to + i);
    }
  } else {
    for (; i + lanes <= n; i += lanes) vec::store(d, gradient(vec::load(d, x + i), one), to + i);
  }
  if (i < n) {
    const auto weight = weights ? vec::loadTail(d, weights + i, n - i) : one;
    vec::storeTail(d, gradient(vec::loadTail(d, x + i, n - i), weight), to + i, n - i);
  }
}

// The gradient at the target, rounded once.
template <class O, class E, class T>
O gradientAtTarget(E x, T logsumexp, const RowGradient<T>& g, T weight) {
  const hn::CappedTag<T, 1> d;
  const T probability = hn::GetLane(expNonPositive(d, hn::Set(d, static_cast<T>(widen(x)) - logsumexp)));
  return Narrow<O>::from(g.probability * probability - g.smoothing * weight - g.target);
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
