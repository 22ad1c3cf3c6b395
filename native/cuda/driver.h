// Our own declarations of the CUDA driver API: what gradus uses of it, looked up at run time in the driver's library,
// so that one binary runs with and without a GPU. `npm run check:cuda` compares them with NVIDIA's header
// (check/abi.cc).
#pragma once

#include <cstddef>
#include <string>

#include "../core/error.h"

struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;

namespace gradus::cuda {

using Result = int;
using DeviceNumber = int;
using Address = unsigned long long;  // of device memory
using Context = ::CUctx_st*;
using Module = ::CUmod_st*;
using Function = ::CUfunc_st*;
using CudaStream = ::CUstream_st*;
using Event = ::CUevent_st*;
using DriverGraph = ::CUgraph_st*;
using GraphExec = ::CUgraphExec_st*;

constexpr Result kSuccess = 0;
constexpr Result kOutOfMemory = 2;
constexpr Result kNoDevice = 100;
constexpr unsigned kNonBlockingStream = 1;  // takes no part in the order of the null stream
constexpr unsigned kBlockingEvent = 1 | 2;  // who waits sleeps; without a time stamp
constexpr unsigned kTimedEvent = 1;         // who waits sleeps; with one
constexpr int kRelaxedCapture = 2;          // calls that allocate are none of the capture's business
constexpr int kMultiprocessors = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;  // attributes
constexpr int kWarpSize = 10, kL2CacheBytes = 38, kMostThreadsPerMultiprocessor = 39;
constexpr int kSharedBytesPerMultiprocessor = 81, kRegistersPerMultiprocessor = 82, kMostSharedBytesPerBlock = 97;
constexpr int kMostDynamicSharedBytes = 8;              // attribute of a function
constexpr int kJitErrorLog = 5, kJitErrorLogBytes = 6;  // JIT options

// X(name here, symbol, symbol of older drivers or null, parameters). The header hides versions behind macros: the names
// are those that the library really has.
#define GRADUS_CUDA_FUNCTIONS(X)                                                                                     \
  X(init, cuInit, nullptr, (unsigned flags))                                                                         \
  X(driverGetVersion, cuDriverGetVersion, nullptr, (int* version))                                                   \
  X(getErrorName, cuGetErrorName, nullptr, (Result error, const char** name))                                        \
  X(getErrorString, cuGetErrorString, nullptr, (Result error, const char** text))                                    \
  X(deviceGetCount, cuDeviceGetCount, nullptr, (int* count))                                                         \
  X(deviceGet, cuDeviceGet, nullptr, (DeviceNumber * device, int ordinal))                                           \
  X(deviceGetName, cuDeviceGetName, nullptr, (char* name, int length, DeviceNumber device))                          \
  X(deviceGetAttribute, cuDeviceGetAttribute, nullptr, (int* value, int attribute, DeviceNumber device))             \
  X(deviceTotalMem, cuDeviceTotalMem_v2, nullptr, (size_t * bytes, DeviceNumber device))                             \
  X(primaryCtxRetain, cuDevicePrimaryCtxRetain, nullptr, (Context * context, DeviceNumber device))                   \
  X(primaryCtxRelease, cuDevicePrimaryCtxRelease_v2, nullptr, (DeviceNumber device))                                 \
  X(ctxSetCurrent, cuCtxSetCurrent, nullptr, (Context context))                                                      \
  X(ctxPushCurrent, cuCtxPushCurrent_v2, nullptr, (Context context))                                                 \
  X(ctxPopCurrent, cuCtxPopCurrent_v2, nullptr, (Context * context))                                                 \
  X(deviceCanAccessPeer, cuDeviceCanAccessPeer, nullptr, (int* can, DeviceNumber device, DeviceNumber peer))         \
  X(ctxEnablePeerAccess, cuCtxEnablePeerAccess, nullptr, (Context peer, unsigned flags))                             \
  X(memGetInfo, cuMemGetInfo_v2, nullptr, (size_t * free, size_t * total))                                           \
  X(memAlloc, cuMemAlloc_v2, nullptr, (Address * address, size_t bytes))                                             \
  X(memFree, cuMemFree_v2, nullptr, (Address address))                                                               \
  X(memAllocHost, cuMemAllocHost_v2, nullptr, (void** address, size_t bytes))                                        \
  X(memFreeHost, cuMemFreeHost, nullptr, (void* address))                                                            \
  X(memcpyHtoDAsync, cuMemcpyHtoDAsync_v2, nullptr, (Address to, const void* from, size_t bytes, CudaStream stream)) \
  X(memcpyDtoHAsync, cuMemcpyDtoHAsync_v2, nullptr, (void* to, Address from, size_t bytes, CudaStream stream))       \
  X(memcpyDtoDAsync, cuMemcpyDtoDAsync_v2, nullptr, (Address to, Address from, size_t bytes, CudaStream stream))     \
  X(memcpyPeerAsync, cuMemcpyPeerAsync, nullptr,                                                                     \
    (Address to, Context toContext, Address from, Context fromContext, size_t bytes, CudaStream stream))             \
  X(memsetD8Async, cuMemsetD8Async, nullptr, (Address to, unsigned char value, size_t bytes, CudaStream stream))     \
  X(memsetD32Async, cuMemsetD32Async, nullptr, (Address to, unsigned value, size_t count, CudaStream stream))        \
  X(streamCreate, cuStreamCreate, nullptr, (CudaStream * stream, unsigned flags))                                    \
  X(streamDestroy, cuStreamDestroy_v2, nullptr, (CudaStream stream))                                                 \
  X(streamSynchronize, cuStreamSynchronize, nullptr, (CudaStream stream))                                            \
  X(streamWaitEvent, cuStreamWaitEvent, nullptr, (CudaStream stream, Event event, unsigned flags))                   \
  X(streamBeginCapture, cuStreamBeginCapture_v2, nullptr, (CudaStream stream, int mode))                             \
  X(streamEndCapture, cuStreamEndCapture, nullptr, (CudaStream stream, DriverGraph * graph))                         \
  X(graphInstantiate, cuGraphInstantiateWithFlags, nullptr,                                                          \
    (GraphExec * executable, DriverGraph graph, unsigned long long flags))                                           \
  X(graphLaunch, cuGraphLaunch, nullptr, (GraphExec executable, CudaStream stream))                                  \
  X(graphDestroy, cuGraphDestroy, nullptr, (DriverGraph graph))                                                      \
  X(graphExecDestroy, cuGraphExecDestroy, nullptr, (GraphExec executable))                                           \
  X(eventCreate, cuEventCreate, nullptr, (Event * event, unsigned flags))                                            \
  X(eventRecord, cuEventRecord, nullptr, (Event event, CudaStream stream))                                           \
  X(eventSynchronize, cuEventSynchronize, nullptr, (Event event))                                                    \
  X(eventDestroy, cuEventDestroy_v2, nullptr, (Event event))                                                         \
  X(eventElapsedTime, cuEventElapsedTime_v2, "cuEventElapsedTime", (float* milliseconds, Event start, Event end))    \
  X(moduleLoadDataEx, cuModuleLoadDataEx, nullptr,                                                                   \
    (Module * module, const void* image, unsigned count, int* options, void** values))                               \
  X(moduleGetFunction, cuModuleGetFunction, nullptr, (Function * function, Module module, const char* name))         \
  X(funcSetAttribute, cuFuncSetAttribute, nullptr, (Function function, int attribute, int value))                    \
  X(launchKernel, cuLaunchKernel, nullptr,                                                                           \
    (Function function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX, unsigned blockY,            \
     unsigned blockZ, unsigned sharedBytes, CudaStream stream, void** parameters, void** extra))

struct Driver {
#define GRADUS_CUDA_MEMBER(name, symbol, older, parameters) Result(*name) parameters = nullptr;
  GRADUS_CUDA_FUNCTIONS(GRADUS_CUDA_MEMBER)
#undef GRADUS_CUDA_MEMBER
  int version = 0;  // 1000 * major + 10 * minor
};

// Loads the driver, once a process, and initializes it. Throws Error(kDevice), each time with the reason and what to do
// about it, where there is none, none that is new enough, or no device.
const Driver& driver();

// Version of the driver API that this build's kernels need.
int leastVersion();
std::string versionText(int version);

// Throws unless the result is success. `call` is the name of the driver's function.
[[noreturn]] void failCall(Result result, const char* call);
inline void check(Result result, const char* call) {
  if (__builtin_expect(result != kSuccess, 0)) failCall(result, call);
}
// The device that calls of this thread concern, which errors name; -1: none. Returns the one before.
int callsConcern(int device);
// What the driver says about a result, with what to do where we know.
std::string describeResult(Result result, const char* call);

}  // namespace gradus::cuda
