// Optimizer steps: launchers of kernels/optim.cu.
#include "optim.h"

#include "graph.h"
#include "kernels/optim.h"
#include "lists.h"

namespace gradus::cuda {
namespace {

constexpr int kFrame = 3;  // attributes of the frame, before the algorithm's own
constexpr int kMostStates = 4;

}  // namespace

void launchStep(const OpCall& call, Kernel& kernel, int states) {
  static Kernel countUp("optim", "gradus_optim_count");
  const int count = static_cast<int>(call.attr[0]);
  const bool counted = call.flag(1);
  const TensorView *params = call.out, *grads = call.in + count, *own = call.out + count,
                   *steps = call.out + call.nOut - count, *conditions = call.in + call.nIn - 3;
  const auto numberAt = [&](int i) { return conditions[i].present() ? conditions[i].as<float>() : nullptr; };
  OptimStep arguments{0,  0,       numberAt(0), numberAt(1), numberAt(2), currentDevice().failureWord(), call.attr[2],
                      {}, nullptr, {}};
  std::copy_n(call.attr + kFrame, std::min(call.nAttr - kFrame, kOptimSettings), arguments.settings);
  if (Graph* graph = currentDevice().capturing()) arguments.rate = graph->nextRate();
  const auto flush = [&] {
    if (arguments.chunks > 0) launchChunks(kernel, arguments.chunks, arguments);
    if (counted) currentDevice().launch(countUp, 1, 64, 0, &arguments);
    arguments.count = arguments.chunks = 0;
  };
  for (int i = 0; i < count; ++i) {
    if (arguments.count == kOptimTensors) flush();
    OptimTensor& tensor = arguments.tensors[arguments.count++];
    tensor = {params[i].data,
              grads[i].data,
              {},
              counted ? steps[i].as<float>() : nullptr,
              static_cast<uint64_t>(params[i].numel),
              arguments.chunks,
              static_cast<signed char>(params[i].dtype),
              static_cast<signed char>(grads[i].dtype)};
    for (int s = 0; s < states; ++s) tensor.states[s] = own[s * count + i].data;
    arguments.chunks += static_cast<int>(chunksOf(params[i]));
  }
  flush();
}

void run_adamw(const OpCall& call) {
  static Kernel plain("optim", "gradus_optim_adam"), amsgrad("optim", "gradus_optim_amsgrad");
  call.flag(kFrame + 6) ? launchStep(call, amsgrad, 3) : launchStep(call, plain, 2);
}

void run_sgd(const OpCall& call) {
  static Kernel plain("optim", "gradus_optim_sgd"), momentum("optim", "gradus_optim_sgd_momentum");
  call.attr[kFrame + 1] != 0 ? launchStep(call, momentum, 1) : launchStep(call, plain, 0);
}

void run_rmsprop(const OpCall& call) {
  static Kernel plain("optim", "gradus_optim_rmsprop"), centered("optim", "gradus_optim_rmsprop_centered"),
      momentum("optim", "gradus_optim_rmsprop_momentum"), both("optim", "gradus_optim_rmsprop_both");
  const bool isCentered = call.flag(kFrame + 5);
  if (call.attr[kFrame + 4] > 0) return isCentered ? launchStep(call, both, 3) : launchStep(call, momentum, 2);
  isCentered ? launchStep(call, centered, 2) : launchStep(call, plain, 1);
}

void run_adagrad(const OpCall& call) {
  static Kernel kernel("optim", "gradus_optim_adagrad");
  launchStep(call, kernel, 1);
}

static_assert(sizeof(OptimStep) <= 4096 && kMostStates == sizeof(OptimTensor::states) / sizeof(void*));

}  // namespace gradus::cuda
