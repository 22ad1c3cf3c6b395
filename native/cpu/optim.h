// What the optimizer kernels read from their operators: the frame of a step, and each algorithm's settings.
#pragma once

#include <cmath>

#include "../core/op.h"

namespace gradus::cpu {

// The operands of a step, whatever its algorithm; see native/ops.def.
struct StepFrame {
  int count;
  const TensorView *params, *grads, *states;
  const TensorView* steps = nullptr;  // [count] where the device counts
  double unscale = 1, clip = 1;
  bool skipped = false;
  static constexpr int kAttributes = 3;  // of the frame, before the algorithm's own

  explicit StepFrame(const OpCall& call)
      : count(static_cast<int>(call.attr[0])), params(call.out), grads(call.in + count), states(call.out + count) {
    if (call.flag(1)) steps = call.out + call.nOut - count;
    const TensorView *scale = call.in + call.nIn - 3, *foundInf = scale + 1, *norm = scale + 2;
    skipped = foundInf->present() && *foundInf->as<float>() != 0;
    // both factors are float32, as PyTorch computes them
    if (scale->present()) unscale = static_cast<float>(1.0 / *scale->as<float>());
    if (norm->present()) {
      const float factor = static_cast<float>(call.attr[2]) / (*norm->as<float>() + 1e-6f);
      if (!(factor >= 1)) clip = factor;  // a NaN norm makes all of the update NaN
    }
  }

  // Number of the update that parameter i is about to have; `step` where the host counts.
  double number(int i, double step) const { return steps ? *steps[i].as<float>() + 1.0 : step; }
  void countUp() const {
    for (int i = 0; steps && i < count; ++i) *steps[i].as<float>() += 1;
  }
};

struct AdamSettings {
  double lr, beta1, beta2, eps, weightDecay, correction1, rootCorrection2;
  bool decoupled, amsgrad, maximize;

  AdamSettings(const double* attr, const StepFrame& frame, int i)
      : lr(attr[0]),
        beta1(attr[1]),
        beta2(attr[2]),
        eps(attr[3]),
        weightDecay(attr[4]),
        correction1(1 - std::pow(beta1, frame.number(i, attr[8]))),
        rootCorrection2(std::sqrt(1 - std::pow(beta2, frame.number(i, attr[8])))),
        decoupled(attr[5] != 0),
        amsgrad(attr[6] != 0),
        maximize(attr[7] != 0) {}
};

struct SgdSettings {
  double lr, momentum, dampening, weightDecay;
  bool nesterov, maximize, first;

  SgdSettings(const double* attr, const StepFrame& frame, int i)
      : lr(attr[0]),
        momentum(attr[1]),
        dampening(attr[2]),
        weightDecay(attr[3]),
        nesterov(attr[4] != 0),
        maximize(attr[5] != 0),
        first(frame.number(i, attr[6]) == 1) {}
};

struct RmspropSettings {
  double lr, alpha, eps, weightDecay, momentum;
  bool centered, maximize;

  RmspropSettings(const double* attr, const StepFrame&, int)
      : lr(attr[0]),
        alpha(attr[1]),
        eps(attr[2]),
        weightDecay(attr[3]),
        momentum(attr[4]),
        centered(attr[5] != 0),
        maximize(attr[6] != 0) {}
};

struct AdagradSettings {
  double lr, eps, weightDecay;
  bool maximize;

  AdagradSettings(const double* attr, const StepFrame& frame, int i)
      : lr(attr[0] / (1 + (frame.number(i, attr[5]) - 1) * attr[1])),
        eps(attr[2]),
        weightDecay(attr[3]),
        maximize(attr[4] != 0) {}
};

}  // namespace gradus::cpu
