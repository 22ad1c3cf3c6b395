// Blocks, pinned memory, copies and memsets.
#include <sys/mman.h>

#include "driver_test.h"

namespace cudasim::test {

DRIVER_TEST("memory: bytes come back", "") {
  const CUdeviceptr block = cu.device(1024);
  std::vector<uint8_t> in(1024), out(1024);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint8_t>(i * 7);
  EXPECT_OK(cu.cuMemcpyHtoD_v2(block, in.data(), in.size()));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(out.data(), block, out.size()));
  EXPECT(in == out);
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_CLEAN();
}

DRIVER_TEST("memory: a device address has no host memory", "") {
  const CUdeviceptr block = cu.device(4096);
  unsigned char resident = 0;
  const uintptr_t page = block / 4096 * 4096;
  const int status = mincore(reinterpret_cast<void*>(page), 4096, &resident);
  EXPECT(status != 0 || (resident & 1) == 0);
}

DRIVER_TEST("memory: unwritten bytes are found on their way to the host", "") {
  const CUdeviceptr block = cu.device(256);
  uint8_t host[256];
  EXPECT_OK(cu.cuMemsetD8_v2(block, 0, 255));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 255));
  EXPECT_CLEAN();
  EXPECT_STATUS(cu.cuMemcpyDtoH_v2(host, block, 256), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("of which nobody has written 1");
}

DRIVER_TEST("memory: copies past the end are refused", "") {
  const CUdeviceptr block = cu.device(100);
  uint8_t host[101] = {};
  EXPECT_OK(cu.cuMemcpyHtoD_v2(block, host, 100));
  EXPECT_OK(cu.cuMemcpyHtoD_v2(block + 99, host, 1));
  EXPECT_CLEAN();
  EXPECT_STATUS(cu.cuMemcpyHtoD_v2(block + 1, host, 100), CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuMemsetD8_v2(block, 1, 101), CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuMemcpyHtoD_v2(12345, host, 1), CUDA_ERROR_INVALID_VALUE);
}

DRIVER_TEST("memory: a device address for a host pointer is refused", "") {
  const CUdeviceptr a = cu.device(64), b = cu.device(64);
  EXPECT_OK(cu.cuMemsetD8_v2(a, 1, 64));
  EXPECT_STATUS(cu.cuMemcpyHtoD_v2(b, reinterpret_cast<void*>(a), 64), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("a device address was given for a host pointer");
}

DRIVER_TEST("memory: bad frees", "") {
  const CUdeviceptr block = cu.device(256);
  EXPECT_STATUS(cu.cuMemFree_v2(block + 16), CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_STATUS(cu.cuMemFree_v2(block), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("bad free");
  EXPECT_OK(cu.cuMemFree_v2(0));
}

DRIVER_TEST("memory: a freed block is not touched again", "") {
  const CUdeviceptr block = cu.device(256);
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_STATUS(cu.cuMemsetD8_v2(block, 0, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("use after free");
}

DRIVER_TEST("memory: free in use is found, after a wait it is not", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr a = cu.device(256), b = cu.device(256);
  EXPECT_OK(cu.cuMemsetD8Async(a, 1, 256, stream));
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_OK(cu.cuMemFree_v2(a));
  EXPECT_CLEAN();
  EXPECT_OK(cu.cuMemsetD8Async(b, 1, 256, stream));
  EXPECT_OK(cu.cuMemFree_v2(b));
  EXPECT_FOUND("free in use: cuMemFree of");
}

DRIVER_TEST("memory: a full card, and a failure on the n-th call", "CUDASIM_MEMORY=1M") {
  CUdeviceptr block = 0;
  EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 2 << 20), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.control("failAllocation=2"), 0);
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 64), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  void* host = nullptr;
  EXPECT_EQ(cu.control("failHostAllocation=1"), 0);
  EXPECT_STATUS(cu.cuMemAllocHost_v2(&host, 64), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_OK(cu.cuMemAllocHost_v2(&host, 64));
  EXPECT_EQ(cu.control("failAllocation=2 failAllocations=2"), 0);
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 64), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 64), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
}

DRIVER_TEST("memory: where an address belongs", "CUDASIM_DEVICES=2") {
  cu.use(1);
  const CUdeviceptr block = cu.device(1000);
  uint32_t* host = cu.pinned(10);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  EXPECT_OK(cu.cuMemGetAddressRange_v2(&base, &bytes, block + 999));
  EXPECT_EQ(base, block);
  EXPECT_EQ(bytes, 1000u);
  EXPECT_STATUS(cu.cuMemGetAddressRange_v2(&base, &bytes, block + 100000), CUDA_ERROR_NOT_FOUND);
  int ordinal = -1;
  unsigned type = 0;
  EXPECT_OK(cu.cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, block + 5));
  EXPECT_EQ(ordinal, 1);
  EXPECT_OK(cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(host)));
  EXPECT_EQ(type, static_cast<unsigned>(CU_MEMORYTYPE_HOST));
  int local = 0;
  EXPECT_STATUS(
      cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(&local)),
      CUDA_ERROR_INVALID_VALUE);
}

DRIVER_TEST("memory: registered memory is pinned while it is registered", "") {
  std::vector<uint32_t> host(1024, 3);
  EXPECT_OK(cu.cuMemHostRegister_v2(host.data(), 4096, 0));
  EXPECT_STATUS(cu.cuMemHostRegister_v2(host.data() + 16, 64, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  CUdeviceptr address = 0;
  EXPECT_OK(cu.cuMemHostGetDevicePointer_v2(&address, host.data() + 1, 0));
  EXPECT_EQ(address, reinterpret_cast<CUdeviceptr>(host.data() + 1));
  EXPECT_STATUS(cu.cuMemFreeHost(host.data()), CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuMemHostUnregister(host.data()));
  EXPECT_STATUS(cu.cuMemHostUnregister(host.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

DRIVER_TEST("copies: pinned memory is read when the copy runs, pageable memory at the call", "") {
  CUstream stream = cu.stream();
  uint32_t* pinned = cu.pinned(1);
  uint32_t pageable = 1, out = 0;
  const CUdeviceptr a = cu.device(4), b = cu.device(4);
  *pinned = 1;
  EXPECT_OK(cu.cuMemcpyHtoDAsync_v2(a, pinned, 4, stream));
  EXPECT_OK(cu.cuMemcpyHtoDAsync_v2(b, &pageable, 4, stream));
  *pinned = pageable = 2;  // the staging buffer is used again too early
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(&out, a, 4));
  EXPECT_EQ(out, 2u);
  EXPECT_OK(cu.cuMemcpyDtoH_v2(&out, b, 4));
  EXPECT_EQ(out, 1u);
}

DRIVER_TEST("copies: the host sees results after a wait, not before", "") {
  CUstream stream = cu.stream();
  uint32_t* pinned = cu.pinned(1);
  uint32_t pageable = 0;
  const CUdeviceptr block = cu.device(4);
  EXPECT_OK(cu.cuMemsetD32Async(block, 9, 1, stream));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(pinned, block, 4, stream));
  EXPECT_EQ(*pinned, 0u);
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(*pinned, 9u);
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(&pageable, block, 4, stream));  // complete at once, as the driver does it
  EXPECT_EQ(pageable, 9u);
}

DRIVER_TEST("copies: rows with a pitch, and slices", "") {
  CUdeviceptr block = 0;
  size_t pitch = 0;
  EXPECT_OK(cu.cuMemAllocPitch_v2(&block, &pitch, 12, 4, 4));
  EXPECT_EQ(pitch, 512u);
  std::vector<uint32_t> in(12), out(12);
  for (uint32_t i = 0; i < 12; ++i) in[i] = i;
  CUDA_MEMCPY2D to{};
  to.srcMemoryType = CU_MEMORYTYPE_HOST;
  to.srcHost = in.data();
  to.srcPitch = 12;
  to.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  to.dstDevice = block;
  to.dstPitch = pitch;
  to.WidthInBytes = 12;
  to.Height = 4;
  EXPECT_OK(cu.cuMemcpy2D_v2(&to));
  CUDA_MEMCPY3D from{};  // rows 1 and 2, without their first element
  from.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  from.srcDevice = block;
  from.srcPitch = pitch;
  from.srcXInBytes = 4;
  from.srcY = 1;
  from.dstMemoryType = CU_MEMORYTYPE_HOST;
  from.dstHost = out.data();
  from.dstPitch = 8;
  from.WidthInBytes = 8;
  from.Height = 2;
  from.Depth = 1;
  EXPECT_OK(cu.cuMemcpy3D_v2(&from));
  EXPECT_EQ(out[0], 4u);
  EXPECT_EQ(out[1], 5u);
  EXPECT_EQ(out[2], 7u);
  EXPECT_EQ(out[3], 8u);
  from.WidthInBytes = 600;
  EXPECT_STATUS(cu.cuMemcpy3D_v2(&from), CUDA_ERROR_INVALID_VALUE);
}

DRIVER_TEST("memset: widths, rows, and pinned memory", "") {
  const CUdeviceptr block = cu.device(64);
  uint16_t host[32] = {};
  EXPECT_OK(cu.cuMemsetD8_v2(block, 0, 64));
  EXPECT_OK(cu.cuMemsetD16_v2(block, 0xabcd, 4));
  EXPECT_OK(cu.cuMemsetD2D16_v2(block + 16, 16, 7, 2, 3));
  EXPECT_STATUS(cu.cuMemsetD32_v2(block + 2, 1, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 64));
  EXPECT_EQ(host[3], 0xabcd);
  EXPECT_EQ(host[4], 0);
  EXPECT_EQ(host[8], 7);
  EXPECT_EQ(host[9], 7);
  EXPECT_EQ(host[10], 0);
  EXPECT_EQ(host[24], 7);
  uint32_t* pinned = cu.pinned(2);
  EXPECT_OK(cu.cuMemsetD32_v2(reinterpret_cast<CUdeviceptr>(pinned), 5, 2));
  EXPECT_EQ(pinned[1], 5u);
}

DRIVER_TEST("pools: figures, trimming and the order of the stream", "") {
  CUstream stream = cu.stream();
  CUmemoryPool pool = nullptr;
  EXPECT_OK(cu.cuDeviceGetDefaultMemPool(&pool, 0));
  cuuint64_t keep = 1 << 20, value = 0;
  EXPECT_OK(cu.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
  CUdeviceptr block = 0;
  EXPECT_OK(cu.cuMemAllocAsync(&block, 4096, stream));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 4096, stream));
  EXPECT_OK(cu.cuMemFreeAsync(block, stream));
  EXPECT_STATUS(cu.cuMemFreeAsync(block, stream), CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value));
  EXPECT_EQ(value, 4096u);
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_OK(cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value));
  EXPECT_EQ(value, 0u);
  EXPECT_OK(cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value));
  EXPECT_EQ(value, 4096u);
  EXPECT_OK(cu.cuMemPoolTrimTo(pool, 0));
  EXPECT_OK(cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value));
  EXPECT_EQ(value, 0u);
  EXPECT_OK(cu.cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value));
  EXPECT_EQ(value, 4096u);
}

DRIVER_TEST("pools: use after an asynchronous free is found", "") {
  CUstream stream = cu.stream();
  CUdeviceptr block = 0;
  EXPECT_OK(cu.cuMemAllocAsync(&block, 64, stream));
  EXPECT_OK(cu.cuMemFreeAsync(block, stream));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, stream));
  EXPECT_STATUS(cu.cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_FOUND("use after free");
}

DRIVER_TEST("pools: another stream must wait for the allocation and for the free", "") {
  CUstream a = cu.stream(), b = cu.stream();
  CUevent event = nullptr;
  EXPECT_OK(cu.cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
  CUdeviceptr block = 0;
  EXPECT_OK(cu.cuMemAllocAsync(&block, 64, a));
  EXPECT_OK(cu.cuEventRecord(event, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, event, 0));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, b));
  EXPECT_OK(cu.cuEventRecord(event, b));
  EXPECT_OK(cu.cuStreamWaitEvent(a, event, 0));
  EXPECT_OK(cu.cuMemFreeAsync(block, a));
  EXPECT_OK(cu.cuStreamSynchronize(a));
  EXPECT_CLEAN();
  EXPECT_OK(cu.cuMemAllocAsync(&block, 64, a));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, b));
  EXPECT_STATUS(cu.cuStreamSynchronize(b), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

}  // namespace cudasim::test
