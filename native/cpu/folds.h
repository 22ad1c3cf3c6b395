// Reductions fold leaves of at most kTile elements in the compute type, in a fixed tree of vector lanes, and combine
// the leaves in float64 (integers: int64): fast, as accurate as a pairwise sum, and the same for any thread count.
#pragma once

#include <limits>
#include <type_traits>

#include "../core/folds.h"
#include "spans.h"

namespace gradus::cpu {

template <class C>
struct FoldSet {
  C (*row)(const C* x, int64_t n, C param);                              // of one run; n > 0
  void (*columns)(const C* x, C* folded, int64_t n, const C* param);     // folded[i] = fold(folded[i], x[i])
};

template <class C>
using Accumulator = std::conditional_t<std::is_same_v<C, int64_t>, int64_t, double>;

template <class C>
FoldSet<C> foldsOf(Fold fold);  // int64: null members where there is no integer form

template <class A>
A identityOf(Fold fold) {
  switch (fold) {
    case Fold::kProduct:
    case Fold::kAll: return 1;
    case Fold::kMaximum:
      return std::is_integral_v<A> ? std::numeric_limits<A>::min() : -std::numeric_limits<A>::infinity();
    case Fold::kMinimum:
    case Fold::kAbsoluteMinimum:
      return std::is_integral_v<A> ? std::numeric_limits<A>::max() : std::numeric_limits<A>::infinity();
    default: return 0;
  }
}

template <class A>
A combine(Fold fold, A a, A b) {
  switch (fold) {
    case Fold::kProduct:
      if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
      return a * b;
    case Fold::kMaximum:
    case Fold::kAbsoluteMaximum:
    case Fold::kAny: return a != a || a > b ? a : b;
    case Fold::kMinimum:
    case Fold::kAbsoluteMinimum:
    case Fold::kAll: return a != a || a < b ? a : b;
    default:
      if constexpr (std::is_integral_v<A>) return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
      return a + b;
  }
}

}  // namespace gradus::cpu
