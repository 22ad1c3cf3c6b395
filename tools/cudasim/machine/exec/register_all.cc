#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

void registerAll(Registry& r) {
  registerInteger(r);
  registerBits(r);
  registerFloat(r);
  registerDouble(r);
  registerApprox(r);
  registerHalf(r);
  registerCompare(r);
  registerConvert(r);
  registerControl(r);
  registerMemory(r);
  registerLocal(r);
  registerAtomic(r);
  registerAsync(r);
  registerExchange(r);
  registerMatrix(r);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
