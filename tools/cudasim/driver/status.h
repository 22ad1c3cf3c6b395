// Statuses inside the driver are exceptions; the entry points turn them into CUresult.
#pragma once

#include <string>

#include "../machine/fault.h"
#include "types.h"

namespace cudasim::driver {

struct Status {
  abi::CUresult code;
  std::string why;  // for the log of calls that failed; empty when the code says it all
};

[[noreturn]] inline void fail(abi::CUresult code, std::string why = {}) { throw Status{code, std::move(why)}; }

inline void require(bool condition, abi::CUresult code, const char* why = "") {
  if (!condition) fail(code, why);
}

// The status that hardware would leave behind for what the machine found. What hardware does not notice (races, reads
// of uninitialized memory) becomes CUDA_ERROR_LAUNCH_FAILED, so that no caller can overlook it.
abi::CUresult statusOf(Fault fault);

const char* nameOf(abi::CUresult code);  // null for a value that this driver does not know
const char* textOf(abi::CUresult code);

}  // namespace cudasim::driver
