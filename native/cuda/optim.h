// A step of an optimizer, for the files that have its kernels.
#pragma once

#include "launch.h"

namespace gradus::cuda {

// Launches the kernel over all parameters of the call, each with so many states; see native/ops.def.
void launchStep(const OpCall& call, Kernel& kernel, int states);

}  // namespace gradus::cuda
