#include "kernel_table.h"

namespace gradus::cuda {

#define GRADUS_OP(name, fewest, most, outputs, attributes) void run_##name(const OpCall&);
#include "../ops.def"
#undef GRADUS_OP

const OpFunction* kernelTable() {
  static const OpFunction kKernels[] = {
#define GRADUS_OP(name, fewest, most, outputs, attributes) run_##name,
#include "../ops.def"
#undef GRADUS_OP
  };
  return kKernels;
}

}  // namespace gradus::cuda
