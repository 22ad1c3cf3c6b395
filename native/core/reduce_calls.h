// What each reduction folds. A backend includes this file in its own namespace's reduce.cc, after it has declared
//
//   void reduce(const OpCall&, const Recipe&);
//
// and folds.h. It defines the operators' functions.

namespace {

void reduceOnce(const OpCall& call, Fold fold, Finish finish = Finish::kNone, double scalar = 0, double attribute = 0) {
  reduce(call, {{{fold, finish}, {}}, 1, scalar, attribute});
}

}  // namespace

void run_sum(const OpCall& call) { reduceOnce(call, Fold::kSum); }
void run_mean(const OpCall& call) { reduceOnce(call, Fold::kSum, Finish::kDivided); }
void run_prod(const OpCall& call) { reduceOnce(call, Fold::kProduct); }
void run_amax(const OpCall& call) { reduceOnce(call, Fold::kMaximum); }
void run_amin(const OpCall& call) { reduceOnce(call, Fold::kMinimum); }
void run_any(const OpCall& call) { reduceOnce(call, Fold::kAny); }
void run_all(const OpCall& call) { reduceOnce(call, Fold::kAll); }

void run_variance(const OpCall& call) {
  reduce(call, {{{Fold::kSum, Finish::kDivided}, {Fold::kCenteredSquares, Finish::kVaried}}, 2, 0, call.attr[1]});
}

// Subtracting the maximum keeps e^x in range; an infinite one is left in the sum, which then is 0 or infinite.
void run_logsumexp(const OpCall& call) {
  reduce(call, {{{Fold::kMaximum, Finish::kFiniteMaximum}, {Fold::kExponential, Finish::kLogged}}, 2});
}

void run_vectorNorm(const OpCall& call) {
  const double p = call.attr[1];
  if (p == 2) return reduceOnce(call, Fold::kSquares, Finish::kRooted, 0, 2);
  if (p == 1) return reduceOnce(call, Fold::kAbsolute);
  if (p == 0) return reduceOnce(call, Fold::kNonzero);
  if (std::isinf(p)) return reduceOnce(call, p > 0 ? Fold::kAbsoluteMaximum : Fold::kAbsoluteMinimum);
  reduceOnce(call, Fold::kPower, Finish::kRooted, p, p);
}
