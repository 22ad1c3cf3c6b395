// Modules, functions, launches.
#include <algorithm>

#include "driver_test.h"

namespace cudasim::test {

DRIVER_TEST("modules: machine code is refused, so that PTX is taken", "") {
  CUmodule module = nullptr;
  EXPECT_STATUS(cu.cuModuleLoadData(&module,
                                    "\x7f"
                                    "ELF...."),
                CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_STATUS(cu.cuModuleLoadData(&module, "\x50\xed\x55\xba"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_STATUS(cu.cuModuleLoadData(&module, "\x01\x02\x03"), CUDA_ERROR_INVALID_IMAGE);
  EXPECT_OK(cu.cuModuleLoadData(&module, kKernels));
  EXPECT_STATUS(cu.cuModuleLoad(&module, "/no/such/file"), CUDA_ERROR_FILE_NOT_FOUND);
}

DRIVER_TEST("modules: the log says what is wrong with the text", "") {
  char log[512] = "x";
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUmodule module = nullptr;
  const char* const bad =
      ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n  frobnicate.u32 1;\n  ret;\n}\n";
  EXPECT_STATUS(cu.cuModuleLoadDataEx(&module, bad, 2, options, values), CUDA_ERROR_INVALID_PTX);
  EXPECT(std::strstr(log, "frobnicate") != nullptr);
  EXPECT_EQ(reinterpret_cast<size_t>(values[1]), std::strlen(log));
}

DRIVER_TEST("modules: functions and variables by name", "") {
  CUmodule module = nullptr, of = nullptr;
  CUfunction function = nullptr;
  EXPECT_OK(cu.cuModuleLoadData(&module, kKernels));
  EXPECT_STATUS(cu.cuModuleGetFunction(&function, module, "nothing"), CUDA_ERROR_NOT_FOUND);
  EXPECT_OK(cu.cuModuleGetFunction(&function, module, "fill"));
  EXPECT_OK(cu.cuFuncGetModule(&of, function));
  EXPECT_EQ(of, module);
  const char* name = nullptr;
  EXPECT_OK(cu.cuFuncGetName(&name, function));
  EXPECT_EQ(std::string(name), "fill");
  size_t offset = 0, bytes = 0;
  EXPECT_OK(cu.cuFuncGetParamInfo(function, 2, &offset, &bytes));
  EXPECT_EQ(offset, 12u);
  EXPECT_EQ(bytes, 4u);
  unsigned count = 0;
  EXPECT_OK(cu.cuModuleGetFunctionCount(&count, module));
  EXPECT_EQ(count, 5u);
  CUdeviceptr counter = 0;
  uint32_t value = 0;
  EXPECT_OK(cu.cuModuleGetGlobal_v2(&counter, &bytes, module, "counter"));
  EXPECT_EQ(bytes, 4u);
  EXPECT_OK(cu.cuMemcpyDtoH_v2(&value, counter, 4));
  EXPECT_EQ(value, 7u);
  EXPECT_OK(cu.cuModuleUnload(module));
  EXPECT_STATUS(cu.cuModuleGetFunction(&function, module, "fill"), CUDA_ERROR_INVALID_HANDLE);
}

DRIVER_TEST("launches: values, parameters by list and by buffer", "") {
  CUfunction fill = cu.kernel("fill");
  const CUdeviceptr block = cu.device(400);
  CUdeviceptr out = block;
  uint32_t value = 17, count = 100, host[100];
  EXPECT_OK(cu.launch(fill, 2, 64, nullptr, {&out, &value, &count}));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 400));
  EXPECT(std::all_of(host, host + 100, [](uint32_t v) { return v == 17; }));
  struct {
    CUdeviceptr out;
    uint32_t value, count;
  } packed{block, 18, 100};
  size_t bytes = sizeof packed;
  void* extra[] = {reinterpret_cast<void*>(kLaunchParamBufferPointer), &packed,
                   reinterpret_cast<void*>(kLaunchParamBufferSize), &bytes, nullptr};
  EXPECT_OK(cu.cuLaunchKernel(fill, 2, 1, 1, 64, 1, 1, 0, nullptr, nullptr, extra));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 400));
  EXPECT_EQ(host[99], 18u);
  bytes = 8;
  EXPECT_STATUS(cu.cuLaunchKernel(fill, 2, 1, 1, 64, 1, 1, 0, nullptr, nullptr, extra), CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuLaunchKernel(fill, 2, 1, 1, 64, 1, 1, 0, nullptr, nullptr, nullptr), CUDA_ERROR_INVALID_VALUE);
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
  attribute.value.cooperative = 1;
  CUlaunchConfig config{};
  config.gridDimX = 2;
  config.blockDimX = 64;
  config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  value = 19;
  void* params[] = {&out, &value, &count};
  EXPECT_OK(cu.cuLaunchKernelEx(&config, fill, params, nullptr));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 400));
  EXPECT_EQ(host[0], 19u);
  config.gridDimX = 1 << 20;
  EXPECT_STATUS(cu.cuLaunchKernelEx(&config, fill, params, nullptr), CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}

DRIVER_TEST("launches: limits of grid, block and launch bounds", "") {
  CUfunction bounded = cu.kernel("bounded");
  EXPECT_OK(cu.launch(bounded, 1, 64, nullptr, {}));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_CLEAN();
  EXPECT_STATUS(cu.launch(bounded, 1, 65, nullptr, {}), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("compiled for 64");
  EXPECT_STATUS(cu.launch(bounded, 0, 64, nullptr, {}), CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuLaunchKernel(bounded, 1, 70000, 1, 64, 1, 1, 0, nullptr, nullptr, nullptr),
                CUDA_ERROR_INVALID_VALUE);
  EXPECT_STATUS(cu.cuLaunchKernel(cu.kernel("fill"), 1, 1, 1, 1, 1, 65, 0, nullptr, nullptr, nullptr),
                CUDA_ERROR_INVALID_VALUE);
}

DRIVER_TEST("launches: much shared memory only after the function allowed it", "") {
  CUfunction function = cu.kernel("sharedOut");
  const CUdeviceptr block = cu.device(4);
  CUdeviceptr out = block;
  uint32_t bytes = 100 << 10, host = 0;
  EXPECT_STATUS(cu.launch(function, 1, 1, nullptr, {&out, &bytes}, bytes), CUDA_ERROR_INVALID_VALUE);
  EXPECT_FOUND("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES");
  EXPECT_STATUS(cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 164 << 10),
                CUDA_ERROR_INVALID_VALUE);
  EXPECT_OK(cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100 << 10));
  int value = 0;
  EXPECT_OK(cu.cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, function));
  EXPECT_EQ(value, 100 << 10);
  EXPECT_OK(cu.launch(function, 1, 1, nullptr, {&out, &bytes}, bytes));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(&host, block, 4));
  EXPECT_EQ(host, bytes);
}

// By hand, for compute capability 8.0 and few registers: 2048 threads, 32 blocks, 164 KiB of shared memory of which a
// block takes what it asks for and 1 KiB.
DRIVER_TEST("occupancy: threads, blocks or shared memory decide", "") {
  CUfunction fill = cu.kernel("fill"), shared = cu.kernel("sharedOut"), bounded = cu.kernel("bounded");
  int blocks = 0;
  EXPECT_OK(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 256, 0));
  EXPECT_EQ(blocks, 8);
  EXPECT_OK(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 32, 0));
  EXPECT_EQ(blocks, 32);
  EXPECT_OK(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, shared, 128, 40 << 10));
  EXPECT_EQ(blocks, 4);
  EXPECT_OK(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, bounded, 128, 0));
  EXPECT_EQ(blocks, 0);
  size_t bytes = 0;
  EXPECT_OK(cu.cuOccupancyAvailableDynamicSMemPerBlock(&bytes, fill, 2, 1024));
  EXPECT_EQ(bytes, size_t{81} << 10);
  int grid = 0, block = 0;
  EXPECT_OK(cu.cuOccupancyMaxPotentialBlockSize(&grid, &block, fill, nullptr, 0, 0));
  EXPECT_EQ(block, 1024);
  EXPECT_EQ(grid, 216);
  EXPECT_OK(cu.cuFuncGetAttribute(&block, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, bounded));
  EXPECT_EQ(block, 64);
}

}  // namespace cudasim::test
