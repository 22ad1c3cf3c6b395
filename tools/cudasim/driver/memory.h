// Blocks of device memory.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// What this thread's allocations are called from now on; empty: by their call. cudasimLabel sets it.
std::string& allocationLabel();

uint64_t allocate(Driver& driver, const std::shared_ptr<Context>& context, size_t bytes, const char* function,
                  std::shared_ptr<Pool> pool);
void release(Driver& driver, Block& block);
// Why an address is not the beginning of a block.
std::string notABlock(Driver& driver, uint64_t address);

}  // namespace cudasim::driver
