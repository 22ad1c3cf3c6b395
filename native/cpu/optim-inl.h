// The update formulas of the optimizers, one vector at a time.
#if defined(GRADUS_CPU_OPTIM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_OPTIM_INL_H_
#undef GRADUS_CPU_OPTIM_INL_H_
#else
#define GRADUS_CPU_OPTIM_INL_H_
#endif

#include "optim.h"
#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

template <class D>
struct Lanes {
  using T = hn::TFromD<D>;
  using V = hn::Vec<D>;
  static HWY_INLINE V set(double x) { return hn::Set(D(), static_cast<T>(x)); }
};

// A rule has `kStates` and update(p, g, states): new parameter; states are changed in place.

// Loshchilov & Hutter 2019, arXiv:1711.05101; amsgrad: Reddi et al. 2018. PyTorch's order of operations:
// eps is added after the root and the bias correction.
template <class D, bool amsgrad>
struct AdamRule : Lanes<D> {
  using V = hn::Vec<D>;
  static constexpr int kStates = amsgrad ? 3 : 2;
  const V sign, decay, l2, take1, beta2, take2, step, rootCorrection, eps;

  explicit AdamRule(const AdamSettings& s)
      : sign(this->set(s.maximize ? -1 : 1)),
        decay(this->set(s.decoupled ? 1 - s.lr * s.weightDecay : 1)),
        l2(this->set(s.decoupled ? 0 : s.weightDecay)),
        take1(this->set(1 - s.beta1)),
        beta2(this->set(s.beta2)),
        take2(this->set(1 - s.beta2)),
        step(this->set(-s.lr / s.correction1)),
        rootCorrection(this->set(1 / s.rootCorrection2)),
        eps(this->set(s.eps)) {}

  HWY_INLINE V update(V p, V g, V* state) const {
    p = hn::Mul(p, decay);
    g = hn::MulAdd(p, l2, hn::Mul(g, sign));
    const V m = hn::MulAdd(take1, hn::Sub(g, state[0]), state[0]);
    const V v = hn::MulAdd(beta2, state[1], hn::Mul(hn::Mul(take2, g), g));
    state[0] = m;
    state[1] = v;
    V second = v;
    if constexpr (amsgrad) state[2] = second = hn::Max(v, state[2]);
    return hn::MulAdd(step, hn::Div(m, hn::MulAdd(hn::Sqrt(second), rootCorrection, eps)), p);
  }
};

template <class D, bool momentum>
struct SgdRule : Lanes<D> {
  using V = hn::Vec<D>;
  static constexpr int kStates = momentum ? 1 : 0;
  const V sign, l2, lr, keep, take, ahead;
  const bool nesterov;

  explicit SgdRule(const SgdSettings& s)
      : sign(this->set(s.maximize ? -1 : 1)),
        l2(this->set(s.weightDecay)),
        lr(this->set(-s.lr)),
        keep(this->set(s.first ? 0 : s.momentum)),
        take(this->set(s.first ? 1 : 1 - s.dampening)),  // the first buffer is the raw gradient
        ahead(this->set(s.momentum)),
        nesterov(s.nesterov) {}

  HWY_INLINE V update(V p, V g, V* state) const {
    g = hn::MulAdd(p, l2, hn::Mul(g, sign));
    if constexpr (momentum) {
      state[0] = hn::MulAdd(keep, state[0], hn::Mul(take, g));
      g = nesterov ? hn::MulAdd(ahead, state[0], g) : state[0];
    }
    return hn::MulAdd(lr, g, p);
  }
};

// Hinton 2012, lecture 6e; centered: Graves 2013, arXiv:1308.0850.
template <class D, bool centered, bool momentum>
struct RmspropRule : Lanes<D> {
  using V = hn::Vec<D>;
  static constexpr int kStates = 1 + centered + momentum;
  const V sign, l2, lr, keep, take, eps, carry;

  explicit RmspropRule(const RmspropSettings& s)
      : sign(this->set(s.maximize ? -1 : 1)),
        l2(this->set(s.weightDecay)),
        lr(this->set(-s.lr)),
        keep(this->set(s.alpha)),
        take(this->set(1 - s.alpha)),
        eps(this->set(s.eps)),
        carry(this->set(s.momentum)) {}

  HWY_INLINE V update(V p, V g, V* state) const {
    g = hn::MulAdd(p, l2, hn::Mul(g, sign));
    state[0] = hn::MulAdd(keep, state[0], hn::Mul(hn::Mul(take, g), g));
    V spread = state[0];
    if constexpr (centered) {
      state[1] = hn::MulAdd(take, hn::Sub(g, state[1]), state[1]);
      spread = hn::NegMulAdd(state[1], state[1], spread);
    }
    const V direction = hn::Div(g, hn::Add(hn::Sqrt(spread), eps));
    if constexpr (!momentum) return hn::MulAdd(lr, direction, p);
    V& buffer = state[kStates - 1];
    buffer = hn::MulAdd(carry, buffer, direction);
    return hn::MulAdd(lr, buffer, p);
  }
};

// Duchi et al. 2011.
template <class D>
struct AdagradRule : Lanes<D> {
  using V = hn::Vec<D>;
  static constexpr int kStates = 1;
  const V sign, l2, lr, eps;

  explicit AdagradRule(const AdagradSettings& s)
      : sign(this->set(s.maximize ? -1 : 1)),
        l2(this->set(s.weightDecay)),
        lr(this->set(-s.lr)),
        eps(this->set(s.eps)) {}

  HWY_INLINE V update(V p, V g, V* state) const {
    g = hn::MulAdd(p, l2, hn::Mul(g, sign));
    state[0] = hn::MulAdd(g, g, state[0]);
    return hn::MulAdd(lr, hn::Div(g, hn::Add(hn::Sqrt(state[0]), eps)), p);
  }
};

// --- spans -----------------------------------------------------------------------------------------------------------

// What becomes of a gradient as it is read: two products and not one with the product of the factors, so that the bits
// are those of unscaling and clipping it in memory.
template <class D>
struct Incoming : Lanes<D> {
  const hn::Vec<D> unscale, clip;
  explicit Incoming(const StepFrame& frame) : unscale(this->set(frame.unscale)), clip(this->set(frame.clip)) {}
  HWY_INLINE hn::Vec<D> of(hn::Vec<D> g) const { return hn::Mul(hn::Mul(g, unscale), clip); }
};

// Applies a rule to n neighbouring elements.
template <class Rule, class D, class P, class G>
HWY_INLINE void updateSpan(D d, const Rule& rule, const Incoming<D>& incoming, P* p, const G* g,
                           hn::TFromD<D>* const* states, int64_t n) {
  constexpr int count = Rule::kStates;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<D> state[count > 0 ? count : 1];
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (int s = 0; s < count; ++s) state[s] = hn::LoadU(d, states[s] + i);
    vec::store(d, rule.update(vec::load(d, p + i), incoming.of(vec::load(d, g + i)), state), p + i);
    for (int s = 0; s < count; ++s) hn::StoreU(state[s], d, states[s] + i);
  }
  const int64_t rest = n - i;
  if (rest == 0) return;
  for (int s = 0; s < count; ++s) state[s] = vec::loadTail(d, states[s] + i, rest);
  const auto gradient = incoming.of(vec::loadTail(d, g + i, rest));
  vec::storeTail(d, rule.update(vec::loadTail(d, p + i, rest), gradient, state), p + i, rest);
  for (int s = 0; s < count; ++s) vec::storeTail(d, state[s], states[s] + i, rest);
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
