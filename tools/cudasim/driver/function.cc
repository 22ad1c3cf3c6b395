#include "function.h"

#include <algorithm>

#include "entry.h"

namespace cudasim::driver {

using namespace abi;

namespace {

// Units in which compute capability 8.0 hands out its resources (CUDA C++ Programming Guide, technical specifications).
constexpr DeviceLimits kLimits;
constexpr int kRegistersPerMultiprocessor = 65536, kRegisterUnit = 256, kWarpUnit = 4, kWarp = 32;
constexpr size_t kSharedUnit = 128, kReservedShared = 1024;

template <class T>
T roundUp(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

size_t sharedOfBlock(const Function& function, size_t dynamicShared) {
  return roundUp(function.kernel->staticShared + dynamicShared + kReservedShared, kSharedUnit);
}

int maxThreads(const Function& function) {
  const int registers = std::max(1u, function.kernel->registers);
  const int warps = kRegistersPerMultiprocessor / roundUp(registers * kWarp, kRegisterUnit) / kWarpUnit * kWarpUnit;
  return std::min<int>(function.kernel->maxThreads, warps * kWarp);
}

}  // namespace

int residentBlocks(const Function& function, int threads, size_t dynamicShared) {
  const Kernel& kernel = *function.kernel;
  if (threads > static_cast<int>(kernel.maxThreads)) return 0;
  const int warps = roundUp(roundUp(threads, kWarp) / kWarp, kWarpUnit);
  const int registersOfWarp = roundUp(static_cast<int>(std::max(1u, kernel.registers)) * kWarp, kRegisterUnit);
  const int byWarps = static_cast<int>(kLimits.threadsPerMultiprocessor) / kWarp / (roundUp(threads, kWarp) / kWarp);
  const int byRegisters = kRegistersPerMultiprocessor / registersOfWarp / warps;
  const int byShared = static_cast<int>(kLimits.sharedPerMultiprocessor / sharedOfBlock(function, dynamicShared));
  return std::min({byWarps, byRegisters, byShared, static_cast<int>(kLimits.blocksPerMultiprocessor)});
}

std::shared_ptr<Function> functionObject(Driver& driver, CUfunction handle) {
  std::shared_ptr<Function> function = driver.object<Function>(handle);
  if (function->context != current())
    driver.misuse("wrong context",
                  "kernel " + function->kernel->name + " of device " + std::to_string(function->context->gpu.ordinal) +
                      " while the context of device " + std::to_string(current()->gpu.ordinal) + " is current",
                  CUDA_ERROR_INVALID_HANDLE);
  return function;
}

}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  return entry("cuFuncGetAttribute", Needs::kContext, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    const Function& function = *functionObject(driver, handle);
    switch (attribute) {
      case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = maxThreads(function);
        return;
      case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = static_cast<int>(function.kernel->staticShared);
        return;
      case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = static_cast<int>(function.kernel->localBytes);
        return;
      case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = static_cast<int>(function.kernel->registers);
        return;
      case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        *value = function.code->target();
        return;
      case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = 80;
        return;
      case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
      case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
        *value = 0;
        return;
      case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = function.maxDynamicShared;
        return;
      case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = function.carveout;
        return;
    }
    fail(CUDA_ERROR_INVALID_VALUE, "attribute " + std::to_string(attribute) + " is not simulated");
  });
}

extern "C" CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  return entry("cuFuncSetAttribute", Needs::kContext, [&](Driver& driver) {
    Function& function = *functionObject(driver, handle);
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
      const int most = static_cast<int>(kLimits.sharedPerBlockOptIn - function.kernel->staticShared);
      require(value >= 0 && value <= most, CUDA_ERROR_INVALID_VALUE, "more shared memory than a block may have");
      function.maxDynamicShared = value;
    } else if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) {
      require(value >= -1 && value <= 100, CUDA_ERROR_INVALID_VALUE);
      function.carveout = value;
    } else {
      fail(CUDA_ERROR_INVALID_VALUE, "the attribute cannot be set");
    }
  });
}

extern "C" CUresult cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache config) {
  return entry("cuFuncSetCacheConfig", Needs::kContext, [&](Driver& driver) {
    functionObject(driver, handle);
    require(config <= CU_FUNC_CACHE_PREFER_EQUAL, CUDA_ERROR_INVALID_VALUE);
  });
}

extern "C" CUresult cuFuncGetModule(CUmodule* module, CUfunction handle) {
  return entry("cuFuncGetModule", Needs::kContext, [&](Driver& driver) {
    require(module != nullptr, CUDA_ERROR_INVALID_VALUE);
    *module = driver.handle<CUmodule>(functionObject(driver, handle)->module.lock());
  });
}

extern "C" CUresult cuFuncGetName(const char** name, CUfunction handle) {
  return entry("cuFuncGetName", Needs::kContext, [&](Driver& driver) {
    require(name != nullptr, CUDA_ERROR_INVALID_VALUE);
    *name = functionObject(driver, handle)->kernel->name.c_str();
  });
}

extern "C" CUresult cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes) {
  return entry("cuFuncGetParamInfo", Needs::kContext, [&](Driver& driver) {
    const Kernel& kernel = *functionObject(driver, handle)->kernel;
    require(offset && index < kernel.params.size(), CUDA_ERROR_INVALID_VALUE);
    *offset = kernel.params[index].offset;
    if (bytes) *bytes = kernel.params[index].bytes;
  });
}

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction handle, int blockSize,
                                                                         size_t dynamicShared, unsigned flags) {
  return entry("cuOccupancyMaxActiveBlocksPerMultiprocessor", Needs::kContext, [&](Driver& driver) {
    require(blocks && blockSize > 0 && flags <= 1, CUDA_ERROR_INVALID_VALUE);
    *blocks = residentBlocks(*functionObject(driver, handle), blockSize, dynamicShared);
  });
}

extern "C" CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int blockSize,
                                                                size_t dynamicShared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, blockSize, dynamicShared, 0);
}

extern "C" CUresult cuOccupancyMaxPotentialBlockSize(int* gridSize, int* blockSize, CUfunction handle,
                                                     CUoccupancyB2DSize sharedOfBlock, size_t dynamicShared,
                                                     int limit) {
  return entry("cuOccupancyMaxPotentialBlockSize", Needs::kContext, [&](Driver& driver) {
    require(gridSize && blockSize && limit >= 0, CUDA_ERROR_INVALID_VALUE);
    const Function& function = *functionObject(driver, handle);
    const int most = std::min(maxThreads(function), limit ? limit : maxThreads(function));
    int bestThreads = 0;
    *gridSize = *blockSize = 0;
    for (int threads = roundUp(most, kWarp); threads > 0; threads -= kWarp) {
      const int size = std::min(threads, most);
      const int blocks = residentBlocks(function, size, sharedOfBlock ? sharedOfBlock(size) : dynamicShared);
      if (blocks * size <= bestThreads) continue;
      bestThreads = blocks * size;
      *blockSize = size;
      *gridSize = blocks * static_cast<int>(kLimits.multiprocessors);
    }
  });
}

extern "C" CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, CUfunction handle, int blocks,
                                                            int blockSize) {
  return entry("cuOccupancyAvailableDynamicSMemPerBlock", Needs::kContext, [&](Driver& driver) {
    require(bytes && blocks > 0 && blockSize > 0, CUDA_ERROR_INVALID_VALUE);
    const Function& function = *functionObject(driver, handle);
    require(residentBlocks(function, blockSize, 0) >= blocks, CUDA_ERROR_INVALID_VALUE, "not so many blocks at once");
    const size_t share = kLimits.sharedPerMultiprocessor / blocks / kSharedUnit * kSharedUnit;
    const size_t taken = kReservedShared + function.kernel->staticShared;
    *bytes = std::min<size_t>(share > taken ? share - taken : 0,
                              kLimits.sharedPerBlockOptIn - function.kernel->staticShared);
  });
}

}  // namespace cudasim::abi
