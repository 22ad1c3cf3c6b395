// The libraries over the driver, loaded from beside it.
#pragma once

#include <dlfcn.h>

#include "driver_test.h"

namespace cudasim::test {

inline void* loadBeside(const Cuda& cu, const char* name) {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(cu.cuInit), &info);
  const std::string driver = info.dli_fname;
  void* library = dlopen((driver.substr(0, driver.rfind('/') + 1) + name).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) failure("dlopen", 0, dlerror());
  return library;
}

template <class T>
CUdeviceptr upload(Cuda& cu, const std::vector<T>& values) {
  const CUdeviceptr address = cu.device(values.size() * sizeof(T));
  EXPECT_OK(cu.cuMemcpyHtoD_v2(address, values.data(), values.size() * sizeof(T)));
  return address;
}

template <class T>
std::vector<T> download(Cuda& cu, CUdeviceptr address, size_t count) {
  std::vector<T> values(count);
  EXPECT_OK(cu.cuMemcpyDtoH_v2(values.data(), address, count * sizeof(T)));
  return values;
}

inline void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

}  // namespace cudasim::test
