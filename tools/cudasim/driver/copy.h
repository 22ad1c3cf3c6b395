// From the arguments of a copy or a memset to work, with the checks that the driver makes at the call.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// Looks the addresses up, and checks rows and slices against the blocks. `context` is the one whose stream will run it.
void resolve(Driver& driver, Context& context, CopyWork& work, const char* function);
CopyWork fromMemcpy3D(const abi::CUDA_MEMCPY3D& copy);
void checkSet(Driver& driver, Context& context, const SetWork& work, const char* function);
// Queues a copy, with the waiting that its kinds of memory call for.
void copy(Driver& driver, const std::shared_ptr<Stream>& stream, CopyWork work, bool isSynchronous,
          const char* function);

}  // namespace cudasim::driver
