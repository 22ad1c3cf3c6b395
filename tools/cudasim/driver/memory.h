// Blocks of device memory.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// What this thread's allocations are called from now on; empty: by their call. cudasimLabel sets it.
std::string& allocationLabel();

uint64_t allocate(Driver& driver, const std::shared_ptr<Context>& context, size_t bytes, const char* function,
                  std::shared_ptr<Pool> pool);
void release(Driver& driver, Block& block);
// An allocation passes that counts down to an injected fault: throws when its turn has come.
void refuseByRequest(Settings& settings, uint64_t& countdown);
// Why an address is not the beginning of a block.
std::string notABlock(Driver& driver, uint64_t address);

}  // namespace cudasim::driver
