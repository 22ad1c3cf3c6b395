// Checks of a launch, shared by calls and graph nodes.
#pragma once

#include "driver.h"

namespace cudasim::driver {

struct LaunchArguments {
  abi::CUfunction function = nullptr;
  Dim3 grid, block;
  uint32_t dynamicShared = 0;
  void** params = nullptr;
  void** extra = nullptr;
  bool cooperative = false;
};

// Copies the parameters and checks limits. Throws what the launch would return.
KernelWork makeKernelWork(Driver& driver, const LaunchArguments& arguments);

}  // namespace cudasim::driver
