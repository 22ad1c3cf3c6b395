// Compares our declarations of the driver API with NVIDIA's header. Nothing that ships includes it:
//   npm run check:cuda
#include <cuda.h>

#include "../driver.h"
#include "plain.h"

namespace gradus::cuda {
namespace {

#define GRADUS_COMPARE(name, symbol, older, parameters) \
  static_assert(std::is_same_v<Plain<decltype(::symbol)>*, decltype(Driver::name)>, #symbol " differs");
GRADUS_CUDA_FUNCTIONS(GRADUS_COMPARE)

static_assert(std::is_same_v<Address, CUdeviceptr> && std::is_same_v<DeviceNumber, CUdevice>);
static_assert(kSuccess == CUDA_SUCCESS && kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY &&
              kNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(kTimedEvent == CU_EVENT_BLOCKING_SYNC && kRelaxedCapture == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(kNonBlockingStream == CU_STREAM_NON_BLOCKING);
static_assert(kBlockingEvent == (CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING));
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kWarpSize == CU_DEVICE_ATTRIBUTE_WARP_SIZE && kL2CacheBytes == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(kMostThreadsPerMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
static_assert(kSharedBytesPerMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
static_assert(kRegistersPerMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR);
static_assert(kMostSharedBytesPerBlock == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kMostDynamicSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kJitErrorLog == CU_JIT_ERROR_LOG_BUFFER && kJitErrorLogBytes == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);

}  // namespace
}  // namespace gradus::cuda
