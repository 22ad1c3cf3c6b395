// The update formulas of the optimizers: those of native/cpu/optim-inl.h in the same order, element by element. A rule
// is made from the attributes and the number of the update, in float64, and has update(p, g, states).
#pragma once

#include "optim.h"
#include "packs.cuh"

namespace gradus::cuda {

// The attributes of the step that is under way.
struct Settings {
  const OptimStep& step;
  __device__ double operator[](int i) const { return i == 0 && step.rate != nullptr ? *step.rate : step.settings[i]; }
};

// Loshchilov & Hutter 2019, arXiv:1711.05101; amsgrad: Reddi et al. 2018. PyTorch's order of operations: eps is added
// after the root and the bias correction.
template <class C, bool amsgrad>
struct AdamRule {
  static constexpr int kStates = amsgrad ? 3 : 2;
  C sign, decay, l2, take1, beta2, take2, step, rootCorrection, eps;

  __device__ AdamRule() {}
  __device__ AdamRule(const Settings& s, double number)
      : sign(s[7] != 0 ? -1 : 1),
        decay(static_cast<C>(s[5] != 0 ? 1 - s[0] * s[4] : 1)),
        l2(static_cast<C>(s[5] != 0 ? 0 : s[4])),
        take1(static_cast<C>(1 - s[1])),
        beta2(static_cast<C>(s[2])),
        take2(static_cast<C>(1 - s[2])),
        step(static_cast<C>(-s[0] / (1 - pow(s[1], number)))),
        rootCorrection(static_cast<C>(1 / sqrt(1 - pow(s[2], number)))),
        eps(static_cast<C>(s[3])) {}

  __device__ C update(C p, C g, C (&state)[3]) const {
    p *= decay;
    g = fma(p, l2, g * sign);
    const C m = fma(take1, g - state[0], state[0]);
    const C v = fma(beta2, state[1], take2 * g * g);
    state[0] = m;
    state[1] = v;
    C second = v;
    if constexpr (amsgrad) state[2] = second = v > state[2] ? v : state[2];
    return fma(step, m / fma(sqrt(second), rootCorrection, eps), p);
  }
};

template <class C, bool momentum>
struct SgdRule {
  static constexpr int kStates = momentum ? 1 : 0;
  C sign, l2, lr, keep, take, ahead;
  int nesterov;  // not bool: a rule is copied whole, and has no padding

  __device__ SgdRule() {}
  // `first` is the host's word for the first update; the first buffer is the raw gradient.
  __device__ SgdRule(const Settings& s, double number)
      : sign(s[5] != 0 ? -1 : 1),
        l2(static_cast<C>(s[3])),
        lr(static_cast<C>(-s[0])),
        keep(static_cast<C>(number == 1 ? 0 : s[1])),
        take(static_cast<C>(number == 1 ? 1 : 1 - s[2])),
        ahead(static_cast<C>(s[1])),
        nesterov(s[4] != 0) {}

  __device__ C update(C p, C g, C (&state)[3]) const {
    g = fma(p, l2, g * sign);
    if constexpr (momentum) {
      state[0] = fma(keep, state[0], take * g);
      g = nesterov ? fma(ahead, state[0], g) : state[0];
    }
    return fma(lr, g, p);
  }
};

// Hinton 2012, lecture 6e; centered: Graves 2013, arXiv:1308.0850.
template <class C, bool centered, bool momentum>
struct RmspropRule {
  static constexpr int kStates = 1 + centered + momentum;
  C sign, l2, lr, keep, take, eps, carry;

  __device__ RmspropRule() {}
  __device__ RmspropRule(const Settings& s, double)
      : sign(s[6] != 0 ? -1 : 1),
        l2(static_cast<C>(s[3])),
        lr(static_cast<C>(-s[0])),
        keep(static_cast<C>(s[1])),
        take(static_cast<C>(1 - s[1])),
        eps(static_cast<C>(s[2])),
        carry(static_cast<C>(s[4])) {}

  __device__ C update(C p, C g, C (&state)[3]) const {
    g = fma(p, l2, g * sign);
    state[0] = fma(keep, state[0], take * g * g);
    C spread = state[0];
    if constexpr (centered) {
      state[1] = fma(take, g - state[1], state[1]);
      spread = fma(-state[1], state[1], spread);
    }
    const C direction = g / (sqrt(spread) + eps);
    if constexpr (!momentum) return fma(lr, direction, p);
    C& buffer = state[kStates - 1];
    buffer = fma(carry, buffer, direction);
    return fma(lr, buffer, p);
  }
};

// Duchi et al. 2011.
template <class C>
struct AdagradRule {
  static constexpr int kStates = 1;
  C sign, l2, lr, eps;

  __device__ AdagradRule() {}
  __device__ AdagradRule(const Settings& s, double number)
      : sign(s[4] != 0 ? -1 : 1),
        l2(static_cast<C>(s[3])),
        lr(static_cast<C>(-(s[0] / (1 + (number - 1) * s[1])))),
        eps(static_cast<C>(s[2])) {}

  __device__ C update(C p, C g, C (&state)[3]) const {
    g = fma(p, l2, g * sign);
    state[0] = fma(g, g, state[0]);
    return fma(lr, g / (sqrt(state[0]) + eps), p);
  }
};

}  // namespace gradus::cuda
