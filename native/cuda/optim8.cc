// AdamW with 8-bit states, and conversions to and from 8 bits: launchers of kernels/optim8.cu.
#include "../core/blocks.h"
#include "kernels/optim.h"
#include "optim.h"

namespace gradus::cuda {
namespace {

void convert(const OpCall& call, Kernel& kernel, const TensorView& values, const TensorView& codes,
             const TensorView& magnitudes) {
  if (values.numel == 0) return;
  const QuantizedBlocks arguments{values.as<float>(), codes.as<unsigned char>(), magnitudes.as<float>(),
                                  static_cast<uint64_t>(values.numel), call.flag(0)};
  launch(currentDevice(), kernel, (static_cast<uint64_t>(quantizedBlocks(values.numel)) + 1) / 2 * 32, arguments);
}

}  // namespace

void run_adamw8bit(const OpCall& call) {
  static Kernel kernel("optim8", "gradus_optim8_adamw");
  launchStep(call, kernel, 4);
}

void run_quantizeBlocks(const OpCall& call) {
  static Kernel kernel("optim8", "gradus_optim8_quantize");
  convert(call, kernel, call.in[0], call.out[0], call.out[1]);
}

void run_dequantizeBlocks(const OpCall& call) {
  static Kernel kernel("optim8", "gradus_optim8_dequantize");
  convert(call, kernel, call.out[0], call.in[0], call.in[1]);
}

}  // namespace gradus::cuda
