// The entry points, declared from api.def.
#pragma once

#include "types.h"

namespace cudasim::abi {

extern "C" {
#define CUDASIM_API(symbol, base, version, parameters) \
  __attribute__((visibility("default"))) CUresult symbol parameters;
#include "api.def"
#undef CUDASIM_API
}

}  // namespace cudasim::abi
