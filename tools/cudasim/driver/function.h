// Functions: limits and occupancy.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// Resident blocks of a multiprocessor, from threads, registers and shared memory.
int residentBlocks(const Function& function, int threads, size_t dynamicShared);

std::shared_ptr<Function> functionObject(Driver& driver, abi::CUfunction handle);

}  // namespace cudasim::driver
