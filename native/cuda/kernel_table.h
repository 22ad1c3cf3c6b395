// The kernels of this backend by operator.
#pragma once

#include "../core/backend.h"

namespace gradus::cuda {

// kNumOps of them; null where no file of this folder defines run_<operator>.
const OpFunction* kernelTable();

}  // namespace gradus::cuda
