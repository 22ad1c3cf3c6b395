// Compares our declarations of the driver API with NVIDIA's header. Nothing that ships includes it:
//   npm run check:cuda
#include <cuda.h>

#include <type_traits>

#include "../driver.h"

namespace gradus::cuda {
namespace {

// Enumerations are ints to us, and what they are pointed to by.
template <class T>
struct PlainOf {
  using Type = std::conditional_t<std::is_enum_v<T>, int, T>;
};
template <class T>
struct PlainOf<T*> {
  using Type = typename PlainOf<T>::Type*;
};
template <class R, class... Parameters>
struct PlainOf<R(Parameters...)> {
  using Type = typename PlainOf<R>::Type(typename PlainOf<Parameters>::Type...);
};

template <class Theirs>
using Plain = typename PlainOf<Theirs>::Type;

#define GRADUS_COMPARE(name, symbol, older, parameters)                                                     \
  static_assert(std::is_same_v<Plain<decltype(::symbol)>*, decltype(Driver::name)>, #symbol " is declared " \
                                                                                            "differently");
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
static_assert(kMostDynamicSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kJitErrorLog == CU_JIT_ERROR_LOG_BUFFER && kJitErrorLogBytes == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);

}  // namespace
}  // namespace gradus::cuda
