// Settings of the optimizer kernels, as their operators' attributes give them.
#pragma once

#include <cmath>

#include "../core/op.h"

namespace gradus::cpu {

struct AdamSettings {
  double lr, beta1, beta2, eps, weightDecay, correction1, rootCorrection2;
  bool decoupled, amsgrad, maximize;

  explicit AdamSettings(const OpCall& call)
      : lr(call.attr[1]),
        beta1(call.attr[2]),
        beta2(call.attr[3]),
        eps(call.attr[4]),
        weightDecay(call.attr[5]),
        correction1(1 - std::pow(beta1, call.attr[9])),
        rootCorrection2(std::sqrt(1 - std::pow(beta2, call.attr[9]))),
        decoupled(call.flag(6)),
        amsgrad(call.flag(7)),
        maximize(call.flag(8)) {}
};

struct SgdSettings {
  double lr, momentum, dampening, weightDecay;
  bool nesterov, maximize, first;

  explicit SgdSettings(const OpCall& call)
      : lr(call.attr[1]),
        momentum(call.attr[2]),
        dampening(call.attr[3]),
        weightDecay(call.attr[4]),
        nesterov(call.flag(5)),
        maximize(call.flag(6)),
        first(call.flag(7)) {}
};

struct RmspropSettings {
  double lr, alpha, eps, weightDecay, momentum;
  bool centered, maximize;

  explicit RmspropSettings(const OpCall& call)
      : lr(call.attr[1]),
        alpha(call.attr[2]),
        eps(call.attr[3]),
        weightDecay(call.attr[4]),
        momentum(call.attr[5]),
        centered(call.flag(6)),
        maximize(call.flag(7)) {}
};

struct AdagradSettings {
  double lr, eps, weightDecay;
  bool maximize;

  explicit AdagradSettings(const OpCall& call)
      : lr(call.attr[1] / (1 + (call.attr[6] - 1) * call.attr[2])),
        eps(call.attr[3]),
        weightDecay(call.attr[4]),
        maximize(call.flag(5)) {}
};

}  // namespace gradus::cpu
