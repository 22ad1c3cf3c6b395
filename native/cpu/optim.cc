// Optimizer steps over all parameters in one pass. A step moves 28 bytes a parameter (AdamW in float32) and computes
// next to nothing, so work is split by elements and not by tensors: every thread streams the same share of memory, and
// a gradient is unscaled and clipped as it is read instead of in passes of its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optim.cc"
#include <hwy/foreach_target.h>

#include "multi_tensor.h"
#include "optim-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

// Parameters and gradients in any floating dtype; states in the compute type.
template <template <class D> class Rule, class Settings>
void step(const OpCall& call, const StepFrame& frame) {
  const int count = frame.count;
  forElements(frame.params, count, [&](int i, int64_t from, int64_t to) {
    const Settings settings(call.attr + StepFrame::kAttributes, frame, i);
    visitFloating(frame.params[i].dtype, [&](auto pType) {
      using P = decltype(pType);
      using T = Compute<P>;
      using D = hn::ScalableTag<T>;
      const Rule<D> rule(settings);
      const Incoming<D> incoming(frame);
      T* states[4] = {};
      for (int s = 0; s < Rule<D>::kStates; ++s) states[s] = frame.states[s * count + i].template as<T>() + from;
      const auto run = [&](auto gType) {
        using G = decltype(gType);
        updateSpan(D(), rule, incoming, frame.params[i].as<P>() + from, frame.grads[i].as<G>() + from, states,
                   to - from);
      };
      if constexpr (sizeof(T) == 8)
        run(double{});
      else if (frame.grads[i].dtype == frame.params[i].dtype)
        run(P{});
      else
        run(float{});
    });
  });
  frame.countUp();
}

template <class D>
using Adam = AdamRule<D, false>;
template <class D>
using Amsgrad = AdamRule<D, true>;
template <class D>
using Sgd = SgdRule<D, false>;
template <class D>
using SgdMomentum = SgdRule<D, true>;
template <class D>
using Rmsprop = RmspropRule<D, false, false>;
template <class D>
using RmspropCentered = RmspropRule<D, true, false>;
template <class D>
using RmspropMomentum = RmspropRule<D, false, true>;
template <class D>
using RmspropCenteredMomentum = RmspropRule<D, true, true>;

void adamw(const OpCall& call) {
  const StepFrame frame(call);
  if (frame.skipped) return;
  const bool amsgrad = call.flag(StepFrame::kAttributes + 6);
  amsgrad ? step<Amsgrad, AdamSettings>(call, frame) : step<Adam, AdamSettings>(call, frame);
}

void sgd(const OpCall& call) {
  const StepFrame frame(call);
  if (frame.skipped) return;
  const bool momentum = call.attr[StepFrame::kAttributes + 1] != 0;
  momentum ? step<SgdMomentum, SgdSettings>(call, frame) : step<Sgd, SgdSettings>(call, frame);
}

void rmsprop(const OpCall& call) {
  const StepFrame frame(call);
  if (frame.skipped) return;
  const RmspropSettings settings(call.attr + StepFrame::kAttributes, frame, 0);
  if (settings.momentum > 0) {
    settings.centered ? step<RmspropCenteredMomentum, RmspropSettings>(call, frame)
                      : step<RmspropMomentum, RmspropSettings>(call, frame);
  } else {
    settings.centered ? step<RmspropCentered, RmspropSettings>(call, frame)
                      : step<Rmsprop, RmspropSettings>(call, frame);
  }
}

void adagrad(const OpCall& call) {
  const StepFrame frame(call);
  if (!frame.skipped) step<AdagradRule, AdagradSettings>(call, frame);
}

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(adamw);
HWY_EXPORT(sgd);
HWY_EXPORT(rmsprop);
HWY_EXPORT(adagrad);

void run_adamw(const OpCall& call) { HWY_DYNAMIC_DISPATCH(adamw)(call); }
void run_sgd(const OpCall& call) { HWY_DYNAMIC_DISPATCH(sgd)(call); }
void run_rmsprop(const OpCall& call) { HWY_DYNAMIC_DISPATCH(rmsprop)(call); }
void run_adagrad(const OpCall& call) { HWY_DYNAMIC_DISPATCH(adagrad)(call); }

}  // namespace gradus::cpu
#endif
