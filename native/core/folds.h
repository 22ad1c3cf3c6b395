// What reductions fold, and what is done with the result. Device code includes this file, too.
#pragma once

namespace gradus {

enum class Fold {
  kSum,
  kSquares,
  kCenteredSquares,  // (x - param)^2
  kExponential,      // e^(x - param)
  kAbsolute,
  kPower,    // |x|^param
  kNonzero,  // how many
  kProduct,
  kMaximum,  // NaN wins
  kMinimum,
  kAbsoluteMaximum,
  kAbsoluteMinimum,
  kAny,
  kAll,
  kCount
};

enum class Finish {
  kNone,
  kDivided,        // by the number of elements
  kRooted,         // to the power of 1 / attribute
  kVaried,         // divided by the number of elements less `attribute`
  kLogged,         // its logarithm, plus the first pass's result
  kFiniteMaximum,  // 0 where it is infinite
};

// A reduction is one pass, or two of which the second's elements are compared with the first one's result.
struct Pass {
  Fold fold;
  Finish finish;
};
struct Recipe {
  Pass passes[2];
  int count;
  double scalar = 0;  // what elements are compared with, where there is one pass
  double attribute = 0;
};

}  // namespace gradus
