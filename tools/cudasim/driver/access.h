// Accesses of queued work to memory: the check of races between streams, and who may touch what.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// Notes that `op` touches the bytes. A conflict throws Status after it was reported.
void touch(Driver& driver, const Op& op, uint64_t address, size_t bytes, bool write);

// "16384 bytes of 'weights' from byte 512"
std::string describeBytes(Driver& driver, uint64_t address, size_t bytes);

// Throws SimError when bytes of a device were never written.
void requireInitialized(Driver& driver, const std::string& who, Memory& memory, uint64_t address, size_t bytes);

}  // namespace cudasim::driver
