// Start-up, devices, contexts and peers.
#include <sys/wait.h>
#include <unistd.h>

#include "driver_test.h"

namespace cudasim::test {

BARE_TEST("device: nothing works before cuInit", "") {
  int count = -1;
  EXPECT_STATUS(cu.cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_STATUS(cu.cuInit(1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuInit(0));
  EXPECT_OK(cu.cuDeviceGetCount(&count));
  EXPECT_EQ(count, 1);
}

BARE_TEST("device: a machine without one says so", "CUDASIM_DEVICES=0") {
  EXPECT_STATUS(cu.cuInit(0), CUDA_ERROR_NO_DEVICE);
}

DRIVER_TEST("device: an A100 of the size that was asked for", "CUDASIM_MEMORY=64M") {
  char name[64];
  EXPECT_OK(cu.cuDeviceGetName(name, sizeof name, 0));
  EXPECT_EQ(std::string(name), "cudasim A100-SXM4-80GB");
  size_t bytes = 0, available = 0, total = 0;
  EXPECT_OK(cu.cuDeviceTotalMem_v2(&bytes, 0));
  EXPECT_EQ(bytes, size_t{64} << 20);
  EXPECT_OK(cu.cuMemGetInfo_v2(&available, &total));
  EXPECT_EQ(total, bytes);
  const CUdeviceptr block = cu.device(8 << 20);
  size_t less = 0;
  EXPECT_OK(cu.cuMemGetInfo_v2(&less, &total));
  EXPECT(available - less >= size_t{8} << 20);
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_OK(cu.cuMemGetInfo_v2(&less, &total));
  EXPECT_EQ(less, available);
  int major = 0, minor = 0, optIn = 0, value = 0;
  EXPECT_OK(cu.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
  EXPECT_OK(cu.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0));
  EXPECT_OK(cu.cuDeviceGetAttribute(&optIn, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
  EXPECT_EQ(major * 10 + minor, 80);
  EXPECT_EQ(optIn, 163 << 10);
  EXPECT_STATUS(cu.cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(9999), 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuDeviceGetName(name, sizeof name, 1), CUDA_ERROR_INVALID_DEVICE);
}

DRIVER_TEST("device: names and texts of errors", "") {
  const char* text = nullptr;
  EXPECT_OK(cu.cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  EXPECT_EQ(std::string(text), "CUDA_ERROR_ILLEGAL_ADDRESS");
  EXPECT_OK(cu.cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
  EXPECT_EQ(std::string(text), "an illegal memory access was encountered");
  EXPECT_STATUS(cu.cuGetErrorName(static_cast<CUresult>(12345), &text), CUDA_ERROR_INVALID_VALUE);
}

BARE_TEST("device: an older driver lacks what is newer", "CUDASIM_DRIVER_VERSION=12020") {
  EXPECT(cu.cuEventElapsedTime_v2 == nullptr);
  EXPECT(cu.cuStreamGetCaptureInfo_v3 == nullptr);
  EXPECT(cu.cuEventElapsedTime != nullptr);
  int version = 0;
  EXPECT_OK(cu.cuDriverGetVersion(&version));
  EXPECT_EQ(version, 12020);
  void* address = nullptr;
  CUdriverProcAddressQueryResult status;
  EXPECT_OK(cu.cuGetProcAddress_v2("cuStreamGetCaptureInfo", &address, 13000, 0, &status));
  EXPECT_EQ(address, reinterpret_cast<void*>(cu.cuStreamGetCaptureInfo_v2));
  EXPECT_OK(cu.cuInit(0));
  cu.use(0);
  CUmodule module = nullptr;
  EXPECT_STATUS(cu.cuModuleLoadData(&module, ".version 9.0\n.target sm_80\n.address_size 64\n"),
                CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
}

BARE_TEST("device: symbols that are missing on purpose", "CUDASIM_MISSING=cuMemAllocAsync,cuGraphLaunch") {
  EXPECT(cu.cuMemAllocAsync == nullptr);
  EXPECT(cu.cuGraphLaunch == nullptr);
  EXPECT(cu.cuMemFreeAsync != nullptr);
  void* address = &address;
  CUdriverProcAddressQueryResult status;
  EXPECT_OK(cu.cuGetProcAddress_v2("cuMemAllocAsync", &address, 13000, 0, &status));
  EXPECT_EQ(address, nullptr);
  EXPECT(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}

BARE_TEST("device: cuGetProcAddress picks the version", "") {
  void* address = nullptr;
  CUdriverProcAddressQueryResult status;
  EXPECT_OK(cu.cuGetProcAddress_v2("cuMemAlloc", &address, 12000, 0, &status));
  EXPECT_EQ(address, reinterpret_cast<void*>(cu.cuMemAlloc_v2));
  EXPECT_OK(cu.cuGetProcAddress_v2("cuEventElapsedTime", &address, 12000, 0, &status));
  EXPECT_EQ(address, reinterpret_cast<void*>(cu.cuEventElapsedTime));
  EXPECT_OK(cu.cuGetProcAddress_v2("cuEventElapsedTime", &address, 13000, 0, &status));
  EXPECT_EQ(address, reinterpret_cast<void*>(cu.cuEventElapsedTime_v2));
  EXPECT_OK(cu.cuGetProcAddress_v2("cuMemAllocAsync", &address, 11000, 0, &status));
  EXPECT(status == CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
  EXPECT_STATUS(cu.cuGetProcAddress_v2("cuNoSuchCall", &address, 13000, 0, nullptr), CUDA_ERROR_NOT_FOUND);
}

BARE_TEST("context: calls need a current one", "") {
  EXPECT_OK(cu.cuInit(0));
  CUdeviceptr address = 0;
  EXPECT_STATUS(cu.cuMemAlloc_v2(&address, 64), CUDA_ERROR_INVALID_CONTEXT);
  CUcontext context = cu.use(0), popped = nullptr, other = nullptr;
  EXPECT_OK(cu.cuMemAlloc_v2(&address, 64));
  EXPECT_OK(cu.cuCtxPushCurrent_v2(context));
  EXPECT_OK(cu.cuCtxPopCurrent_v2(&popped));
  EXPECT_EQ(popped, context);
  EXPECT_OK(cu.cuCtxGetCurrent(&other));
  EXPECT_EQ(other, context);
  EXPECT_OK(cu.cuMemFree_v2(address));
}

DRIVER_TEST("context: the last release destroys it, and reports what was left", "") {
  CUcontext again = nullptr;
  EXPECT_OK(cu.cuDevicePrimaryCtxRetain(&again, 0));
  EXPECT_EQ(again, cu.context);
  cu.label("weights");
  cu.device(4096);
  cu.label("activations");
  EXPECT_OK(cu.cuMemFree_v2(cu.device(512)));
  EXPECT_OK(cu.cuDevicePrimaryCtxRelease_v2(0));
  EXPECT_CLEAN();
  EXPECT_OK(cu.cuDevicePrimaryCtxRelease_v2(0));
  EXPECT_FOUND("leak: 4096 bytes of 'weights");
  EXPECT(cu.findings().find("activations") == std::string::npos);
  CUdeviceptr address = 0;
  EXPECT_STATUS(cu.cuMemAlloc_v2(&address, 64), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  unsigned flags;
  int active = 1;
  EXPECT_OK(cu.cuDevicePrimaryCtxGetState(0, &flags, &active));
  EXPECT_EQ(active, 0);
}

DRIVER_TEST("context: a release with everything freed is clean", "") {
  EXPECT_OK(cu.cuMemFree_v2(cu.device(4096)));
  EXPECT_OK(cu.cuMemFreeHost(cu.pinned(16)));
  EXPECT_OK(cu.cuDevicePrimaryCtxRelease_v2(0));
  EXPECT_CLEAN();
  EXPECT_STATUS(cu.cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
}

DRIVER_TEST("context: a forked process needs a cuInit of its own", "") {
  int count = 0, status = 0;
  EXPECT_OK(cu.cuDeviceGetCount(&count));
  const pid_t child = fork();
  if (child == 0) _exit(cu.cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED ? 42 : 0);
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

DRIVER_TEST("devices: a launch with the wrong context is found", "CUDASIM_DEVICES=2") {
  const CUdeviceptr first = cu.device(256);
  CUfunction fill = cu.kernel("fill");
  CUstream stream = cu.stream();
  cu.use(1);
  CUdeviceptr out = first;
  uint32_t value = 1, count = 16;
  EXPECT_STATUS(cu.launch(fill, 1, 64, nullptr, {&out, &value, &count}), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_FOUND("wrong context: kernel fill of device 0");
  EXPECT_STATUS(cu.launch(cu.kernel("fill"), 1, 64, stream, {&out, &value, &count}), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_FOUND("while the context of device 1 is current");
  EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
  EXPECT_OK(cu.launch(fill, 1, 64, stream, {&out, &value, &count}));
  EXPECT_OK(cu.cuStreamSynchronize(stream));
}

DRIVER_TEST("devices: memory of another device is found in copies and kernels", "CUDASIM_DEVICES=2") {
  const CUcontext second = cu.use(1);
  CUdeviceptr far = cu.device(256);
  EXPECT_OK(cu.cuMemsetD32_v2(far, 5, 64));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
  const CUdeviceptr near = cu.device(256);
  EXPECT_STATUS(cu.cuMemcpyDtoD_v2(near, far, 256), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("wrong context: cuMemcpyDtoD: memory of device 1");
  // The clean ways: a copy made for peers, or access.
  EXPECT_OK(cu.cuMemcpyPeer(near, cu.context, far, second, 256));
  uint32_t host[64] = {};
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, near, 256));
  EXPECT_EQ(host[63], 5u);
  EXPECT_OK(cu.cuCtxEnablePeerAccess(second, 0));
  EXPECT_STATUS(cu.cuCtxEnablePeerAccess(second, 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  EXPECT_OK(cu.cuMemcpyDtoD_v2(near, far, 256));
  EXPECT_OK(cu.increment(far, near, 64, nullptr));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, near, 256));
  EXPECT_EQ(host[0], 6u);
  EXPECT_OK(cu.cuCtxDisablePeerAccess(second));
  EXPECT_OK(cu.increment(far, near, 64, nullptr));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

DRIVER_TEST("devices: a copy between peers names the contexts that own the memory", "CUDASIM_DEVICES=2") {
  const CUdeviceptr near = cu.device(64);
  const CUcontext second = cu.use(1);
  const CUdeviceptr far = cu.device(64);
  EXPECT_OK(cu.cuMemsetD8_v2(far, 1, 64));
  EXPECT_STATUS(cu.cuMemcpyPeer(near, second, far, second, 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("does not belong to the context");
}

namespace {

// Two devices with a stream and memory each.
struct Pair {
  explicit Pair(Cuda& cu) : cu(cu), first(cu.context), near(cu.device(64)), here(cu.stream()) {
    EXPECT_OK(cu.cuEventCreate(&made, CU_EVENT_DISABLE_TIMING));
    second = cu.use(1);
    far = cu.device(64);
    there = cu.stream();
    EXPECT_OK(cu.cuEventCreate(&used, CU_EVENT_DISABLE_TIMING));
  }
  // On the first device's stream, to the second.
  CUresult copy() { return cu.cuMemcpyPeerAsync(far, second, near, first, 64, here); }
  void order(CUevent event, CUstream earlier, CUstream later) {
    EXPECT_OK(cu.cuEventRecord(event, earlier));
    EXPECT_OK(cu.cuStreamWaitEvent(later, event, 0));
  }

  Cuda& cu;
  CUcontext first, second = nullptr;
  CUdeviceptr near, far = 0;
  CUstream here, there = nullptr;
  CUevent made = nullptr, used = nullptr;
};

}  // namespace

DRIVER_TEST("devices: a copy between them that waits for both streams is clean", "CUDASIM_DEVICES=2 CUDASIM_PEERS=0") {
  Pair pair(cu);
  EXPECT_OK(cu.cuMemsetD8Async(pair.far, 1, 64, pair.there));
  EXPECT_OK(cu.cuCtxSetCurrent(pair.first));
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 2, 64, pair.here));
  pair.order(pair.used, pair.there, pair.here);
  EXPECT_OK(pair.copy());
  pair.order(pair.made, pair.here, pair.there);
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 3, 64, pair.here));
  uint8_t* host = cu.pinned<uint8_t>(64);
  EXPECT_OK(cu.cuCtxSetCurrent(pair.second));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, pair.far, 64, pair.there));
  EXPECT_OK(cu.cuStreamSynchronize(pair.there));
  EXPECT_EQ(int{host[63]}, 2);
  EXPECT(cu.counts().find("\"hostBytes\": 64, \"peerCopies\": 1") != std::string::npos);
  EXPECT_CLEAN();
  int can = 1;
  EXPECT_OK(cu.cuDeviceCanAccessPeer(&can, 0, 1));
  EXPECT_EQ(can, 0);
  EXPECT_STATUS(cu.cuCtxEnablePeerAccess(pair.first, 0), CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
}

DRIVER_TEST("devices: a copy between them that does not wait for its elements is found", "CUDASIM_DEVICES=2") {
  Pair pair(cu);
  const CUstream other = cu.stream();
  EXPECT_OK(cu.cuCtxSetCurrent(pair.first));
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 2, 64, pair.here));
  EXPECT_OK(cu.cuMemcpyPeerAsync(pair.far, pair.second, pair.near, pair.first, 64, other));
  EXPECT_OK(cu.cuStreamSynchronize(pair.here));
  EXPECT_STATUS(cu.cuStreamSynchronize(other), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams: copy of 64 bytes from device 0 to device 1");
}

DRIVER_TEST("devices: a copy between them that does not wait for the target is found", "CUDASIM_DEVICES=2") {
  Pair pair(cu);
  EXPECT_OK(cu.cuMemsetD8Async(pair.far, 1, 64, pair.there));
  EXPECT_OK(cu.cuCtxSetCurrent(pair.first));
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 2, 64, pair.here));
  EXPECT_OK(pair.copy());
  EXPECT_OK(cu.cuCtxSetCurrent(pair.second));
  EXPECT_OK(cu.cuStreamSynchronize(pair.there));
  EXPECT_STATUS(cu.cuStreamSynchronize(pair.here), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams: copy of 64 bytes from device 0 to device 1");
}

DRIVER_TEST("devices: a target that does not wait for the copy is found", "CUDASIM_DEVICES=2") {
  Pair pair(cu);
  EXPECT_OK(cu.cuCtxSetCurrent(pair.first));
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 2, 64, pair.here));
  EXPECT_OK(pair.copy());
  EXPECT_OK(cu.cuCtxSetCurrent(pair.second));
  EXPECT_OK(cu.cuMemsetD8Async(pair.far, 1, 64, pair.there));
  EXPECT_OK(cu.cuStreamSynchronize(pair.here));
  EXPECT_STATUS(cu.cuStreamSynchronize(pair.there), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams: memset of 64 bytes");
}

DRIVER_TEST("devices: memory that is freed before a copy between them has run is found", "CUDASIM_DEVICES=2") {
  Pair pair(cu);
  EXPECT_OK(cu.cuCtxSetCurrent(pair.first));
  EXPECT_OK(cu.cuMemsetD8Async(pair.near, 2, 64, pair.here));
  EXPECT_OK(pair.copy());
  EXPECT_OK(cu.cuMemFree_v2(pair.near));
  EXPECT_FOUND("free in use: cuMemFree of 'cuMemAlloc");
  EXPECT_STATUS(pair.copy(), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("use after free: cuMemcpyPeerAsync");
}

}  // namespace cudasim::test
