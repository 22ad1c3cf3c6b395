// Faults: found by the machine, and injected.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "driver_test.h"

namespace cudasim::test {

DRIVER_TEST("faults: an illegal address is sticky for its context alone", "CUDASIM_DEVICES=2") {
  const CUdeviceptr block = cu.device(64);
  EXPECT_OK(cu.fill(block, 1, 64, nullptr));  // 256 bytes into 64
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  CUdeviceptr other = 0;
  EXPECT_STATUS(cu.cuMemAlloc_v2(&other, 64), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_STATUS(cu.cuStreamSynchronize(nullptr), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_FOUND("out of bounds");
  EXPECT_FOUND("[kernel fill on the legacy stream of device 0]");
  cu.use(1);
  EXPECT_OK(cu.fill(cu.device(256), 1, 64, nullptr));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_OK(cu.cuDevicePrimaryCtxReset_v2(0));
  cu.use(0);
  EXPECT_OK(cu.cuMemAlloc_v2(&other, 64));
}

DRIVER_TEST("faults: misaligned, use after free, uninitialized", "CUDASIM_DEVICES=3") {
  CUdeviceptr block = cu.device(64);
  EXPECT_OK(cu.launch(cu.kernel("misaligned"), 1, 1, nullptr, {&block}));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_MISALIGNED_ADDRESS);
  cu.use(1);
  block = cu.device(256);
  EXPECT_OK(cu.cuMemFree_v2(block));
  EXPECT_OK(cu.fill(block, 1, 64, nullptr));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_FOUND("use after free");
  cu.use(2);
  const CUdeviceptr in = cu.device(256), out = cu.device(256);
  EXPECT_OK(cu.increment(in, out, 64, nullptr));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("uninitialized");
}

DRIVER_TEST("faults: the same programs with checks off", "CUDASIM_CHECKS=-initialized,-streams") {
  const CUdeviceptr in = cu.device(256), out = cu.device(256);
  EXPECT_OK(cu.increment(in, out, 64, nullptr));
  EXPECT_OK(cu.cuMemsetD8Async(out, 1, 256, cu.stream()));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_CLEAN();
}

DRIVER_TEST("faults: what comes after one in the stream does not run", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr small = cu.device(64), block = cu.device(4);
  uint32_t* host = cu.pinned(1);
  EXPECT_OK(cu.cuMemsetD32_v2(block, 3, 1));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_OK(cu.fill(small, 1, 64, stream));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, stream));
  EXPECT_STATUS(cu.cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(*host, 0u);
}

DRIVER_TEST("faults: the n-th launch fails", "CUDASIM_FAIL_LAUNCH=2") {
  const CUdeviceptr block = cu.device(256);
  EXPECT_OK(cu.fill(block, 1, 64, nullptr));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_OK(cu.fill(block, 1, 64, nullptr));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("injected fault: kernel fill");
}

DRIVER_TEST("faults: a device that is lost answers nothing more", "CUDASIM_DEVICES=2") {
  CUstream stream = cu.stream();
  const CUdeviceptr block = cu.device(256);
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 256, stream));
  EXPECT_EQ(cu.control("lostDevice=0"), 0);
  EXPECT_STATUS(cu.cuStreamSynchronize(stream), CUDA_ERROR_UNKNOWN);
  CUcontext context = nullptr;
  EXPECT_STATUS(cu.cuDevicePrimaryCtxRetain(&context, 0), CUDA_ERROR_DEVICE_UNAVAILABLE);
  cu.use(1);
  EXPECT_OK(cu.cuMemFree_v2(cu.device(64)));
}

DRIVER_TEST("record only: kernels are counted and not executed", "CUDASIM_RECORD_ONLY=1") {
  const CUdeviceptr small = cu.device(64);
  uint32_t host[16];
  for (int i = 0; i < 3; ++i) EXPECT_OK(cu.fill(small, 1, 1000, nullptr));
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, small, 64));
  EXPECT_CLEAN();
  EXPECT(cu.counts().find("\"fill\": {\"launches\": 3") != std::string::npos);
}

DRIVER_TEST("counters: what a kernel moved", "") {
  const CUdeviceptr x = cu.device(4096), y = cu.device(4096);
  EXPECT_OK(cu.fill(x, 1, 1024, nullptr));
  EXPECT_OK(cu.increment(x, y, 1024, nullptr));
  EXPECT_OK(cu.cuCtxSynchronize());
  const std::string json = cu.counts();
  const std::string kernel = json.substr(json.find("\"increment\""));
  EXPECT(kernel.find("\"threadsPerBlock\": 64, \"dynamicSharedBytes\": 0") != std::string::npos);
  EXPECT(kernel.find("\"globalBytesLoaded\": 4096") != std::string::npos);
  EXPECT(kernel.find("\"globalBytesStored\": 4096") != std::string::npos);
  EXPECT(kernel.find("\"globalLoadSectors\": 128") != std::string::npos);
}

DRIVER_TEST("report: it is a file when one is named, and nothing on stdout or stderr",
            "CUDASIM_REPORT=/tmp/cudasim-driver-test-report") {
  const char* const path = "/tmp/cudasim-driver-test-report";
  EXPECT_STATUS(cu.cuMemFree_v2(cu.device(64) + 1), CUDA_ERROR_INVALID_VALUE);
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  unlink(path);
  EXPECT(text.find("bad free") != std::string::npos);
  EXPECT_EQ(text, cu.findings());
}

BARE_TEST("counters: they are a file when one is named, complete when the process ends",
          "CUDASIM_COUNTERS=/tmp/cudasim-driver-test-%p.json") {
  const pid_t child = fork();
  if (child == 0) {
    cu.cuInit(0);
    cu.context = cu.use(0);
    const CUdeviceptr out = cu.device(256);
    for (int i = 0; i < 3; ++i) {
      cu.fill(out, 1, 64, nullptr);
      cu.cuCtxSynchronize();
    }
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  const std::string path = "/tmp/cudasim-driver-test-" + std::to_string(child) + ".json";
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  unlink(path.c_str());
  EXPECT(text.find("\"fill\": {\"launches\": 3") != std::string::npos);
}

DRIVER_TEST("settings: words that are not understood change nothing", "") {
  EXPECT_EQ(cu.control("failAllocation=1 nonsense=3"), -1);
  EXPECT_FOUND("cannot understand setting 'nonsense=3'");
  CUdeviceptr block = 0;
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  EXPECT_EQ(cu.control("failAllocation=5; checks=none"), 0);
  EXPECT_EQ(cu.control("reset"), 0);
  EXPECT_CLEAN();
}

}  // namespace cudasim::test
