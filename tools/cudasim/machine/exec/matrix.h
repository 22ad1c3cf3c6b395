// The matrix products that the machine knows; d, a, b are 32-bit registers of a lane.
#pragma once

namespace cudasim {

struct MmaShape {
  const char *shape, *type, *accumulator;
  int k, d, a, b;
};

constexpr MmaShape kMmaShapes[] = {
    {"m16n8k8", "f16", "f32", 8, 4, 2, 1},  {"m16n8k16", "f16", "f32", 16, 4, 4, 2},
    {"m16n8k8", "f16", "f16", 8, 2, 2, 1},  {"m16n8k16", "f16", "f16", 16, 2, 4, 2},
    {"m16n8k8", "bf16", "f32", 8, 4, 2, 1}, {"m16n8k16", "bf16", "f32", 16, 4, 4, 2},
    {"m16n8k4", "tf32", "f32", 4, 4, 2, 1}, {"m16n8k8", "tf32", "f32", 8, 4, 4, 2},
};

}  // namespace cudasim
