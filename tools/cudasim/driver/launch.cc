#include "launch.h"

#include <cstring>

#include "entry.h"
#include "function.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

namespace {

std::vector<std::byte> copyParams(const Kernel& kernel, const LaunchArguments& arguments) {
  require(!(arguments.params && arguments.extra), CUDA_ERROR_INVALID_VALUE, "parameters were given twice");
  std::vector<std::byte> bytes(kernel.paramBytes);
  if (arguments.params) {
    for (size_t i = 0; i < kernel.params.size(); ++i) {
      require(arguments.params[i] != nullptr, CUDA_ERROR_INVALID_VALUE, "a parameter is null");
      std::memcpy(bytes.data() + kernel.params[i].offset, arguments.params[i], kernel.params[i].bytes);
    }
    return bytes;
  }
  if (!arguments.extra) {
    require(kernel.params.empty(), CUDA_ERROR_INVALID_VALUE, "the kernel has parameters, the launch has none");
    return bytes;
  }
  const void* buffer = nullptr;
  size_t size = 0;
  for (void** at = arguments.extra; reinterpret_cast<uintptr_t>(*at) != kLaunchParamEnd; at += 2) {
    const auto kind = reinterpret_cast<uintptr_t>(*at);
    require(kind == kLaunchParamBufferPointer || kind == kLaunchParamBufferSize, CUDA_ERROR_INVALID_VALUE);
    if (kind == kLaunchParamBufferPointer)
      buffer = at[1];
    else
      size = *static_cast<size_t*>(at[1]);
  }
  require(buffer && size >= kernel.paramBytes, CUDA_ERROR_INVALID_VALUE, "the buffer is smaller than the parameters");
  std::memcpy(bytes.data(), buffer, kernel.paramBytes);
  return bytes;
}

std::string text(Dim3 d) { return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z); }

void checkLimits(Driver& driver, const Function& function, const LaunchArguments& a) {
  const Kernel& kernel = *function.kernel;
  const DeviceLimits limits;
  const auto refuse = [&](Fault fault, const std::string& why) {
    driver.misuse(faultName(fault), "launch of " + kernel.name + ": " + why, statusOf(fault));
  };
  const auto within = [](Dim3 d, Dim3 most) {
    return d.count() > 0 && d.x <= most.x && d.y <= most.y && d.z <= most.z;
  };
  if (!within(a.grid, limits.maxGrid)) refuse(Fault::kGridLimit, "a grid of " + text(a.grid));
  if (!within(a.block, limits.maxBlock) || a.block.count() > limits.maxThreadsPerBlock)
    refuse(Fault::kLaunchBounds, "blocks of " + text(a.block));
  if (a.block.count() > kernel.maxThreads)
    refuse(Fault::kLaunchBounds, "blocks of " + std::to_string(a.block.count()) +
                                     " threads, the kernel was compiled for " + std::to_string(kernel.maxThreads));
  const Dim3 wanted = kernel.reqntid;
  if (wanted.count() > 0 && (wanted.x != a.block.x || wanted.y != a.block.y || wanted.z != a.block.z))
    refuse(Fault::kLaunchBounds, "blocks of " + text(a.block) + ", the kernel requires " + text(wanted));
  if (a.dynamicShared > static_cast<uint32_t>(function.maxDynamicShared))
    refuse(Fault::kSharedLimit,
           std::to_string(a.dynamicShared) + " bytes of dynamic shared memory, the function allows " +
               std::to_string(function.maxDynamicShared) + " (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)");
  if (a.dynamicShared + kernel.staticShared > limits.sharedPerBlockOptIn)
    refuse(Fault::kSharedLimit, std::to_string(a.dynamicShared + kernel.staticShared) + " bytes of shared memory");
  if (!a.cooperative) return;
  const uint64_t resident =
      uint64_t{limits.multiprocessors} * residentBlocks(function, static_cast<int>(a.block.count()), a.dynamicShared);
  require(a.grid.count() <= resident, CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}

CUresult launch(const char* name, const LaunchArguments& arguments, CUstream handle) {
  return entry(name, Needs::kContext, [&](Driver& driver) {
    KernelWork work = makeKernelWork(driver, arguments);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    if (stream->context != current())
      driver.misuse("wrong context",
                    "launch of " + work.function->kernel->name + " in " + stream->name() +
                        " while the context of device " + std::to_string(current()->gpu.ordinal) + " is current",
                    CUDA_ERROR_INVALID_HANDLE);
    submit(driver, stream, std::move(work));
  });
}

}  // namespace

KernelWork makeKernelWork(Driver& driver, const LaunchArguments& arguments) {
  KernelWork work;
  work.function = functionObject(driver, arguments.function);
  checkLimits(driver, *work.function, arguments);
  work.grid = arguments.grid;
  work.block = arguments.block;
  work.dynamicShared = arguments.dynamicShared;
  work.maxDynamicShared = work.function->maxDynamicShared;
  work.cooperative = arguments.cooperative;
  work.params = copyParams(*work.function->kernel, arguments);
  return work;
}

}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX,
                                   unsigned blockY, unsigned blockZ, unsigned dynamicShared, CUstream stream,
                                   void** params, void** extra) {
  return launch("cuLaunchKernel",
                {function, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, dynamicShared, params, extra, false},
                stream);
}

extern "C" CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ,
                                              unsigned blockX, unsigned blockY, unsigned blockZ, unsigned dynamicShared,
                                              CUstream stream, void** params) {
  return launch("cuLaunchCooperativeKernel",
                {function, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, dynamicShared, params, nullptr, true},
                stream);
}

extern "C" CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** params, void** extra) {
  if (!config || (config->numAttrs && !config->attrs)) return CUDA_ERROR_INVALID_VALUE;
  bool cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttribute& attribute = config->attrs[i];
    switch (attribute.id) {
      case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        cooperative = attribute.value.cooperative != 0;
        break;
      case CU_LAUNCH_ATTRIBUTE_IGNORE:
      case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
      case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
      case CU_LAUNCH_ATTRIBUTE_PRIORITY:
      case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        break;  // speed alone
      default:  // clusters and what belongs to them: later cards
        return CUDA_ERROR_NOT_SUPPORTED;
    }
  }
  return launch("cuLaunchKernelEx",
                {function,
                 {config->gridDimX, config->gridDimY, config->gridDimZ},
                 {config->blockDimX, config->blockDimY, config->blockDimZ},
                 config->sharedMemBytes,
                 params,
                 extra,
                 cooperative},
                config->hStream);
}

}  // namespace cudasim::abi
