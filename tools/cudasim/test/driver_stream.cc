// Streams, events, host functions, and what orders what.
#include <atomic>
#include <chrono>
#include <thread>

#include "driver_test.h"

namespace cudasim::test {

namespace {

using Clock = std::chrono::steady_clock;

CUevent event(Cuda& cu, unsigned flags = CU_EVENT_DISABLE_TIMING) {
  CUevent made = nullptr;
  EXPECT_OK(cu.cuEventCreate(&made, flags));
  return made;
}

std::vector<int>* orderOfCalls = nullptr;
void note(void* data) { orderOfCalls->push_back(static_cast<int>(reinterpret_cast<intptr_t>(data))); }

// Three streams of host functions; in which order did they run?
std::vector<int> orderBySeed(Cuda& cu, int seed) {
  EXPECT_EQ(cu.control(("progress=100000 seed=" + std::to_string(seed)).c_str()), 0);
  std::vector<int> order;
  orderOfCalls = &order;
  CUstream streams[3] = {cu.stream(), cu.stream(), cu.stream()};
  for (intptr_t i = 0; i < 12; ++i) EXPECT_OK(cu.cuLaunchHostFunc(streams[i % 3], note, reinterpret_cast<void*>(i)));
  EXPECT_OK(cu.cuCtxSynchronize());
  return order;
}

}  // namespace

DRIVER_TEST("streams: the order between streams comes from the seed, the order within them stays", "") {
  const std::vector<int> first = orderBySeed(cu, 1), again = orderBySeed(cu, 1), other = orderBySeed(cu, 2);
  EXPECT_EQ(first.size(), 12u);
  EXPECT(first == again);
  EXPECT(first != other);
  for (int s = 0; s < 3; ++s) {
    int last = -1;
    for (const int call : other)
      if (call % 3 == s) {
        EXPECT(call > last);
        last = call;
      }
  }
}

DRIVER_TEST("streams: nothing runs while the driver is paused, and all that was queued afterwards", "") {
  for (const char* seed : {"seed=0", "seed=5"}) {
    EXPECT_EQ(cu.control(seed), 0);
    EXPECT_EQ(cu.control("paused=1"), 0);
    CUstream stream = cu.stream();
    uint32_t* host = cu.pinned(1);
    const CUdeviceptr block = cu.device(4);
    EXPECT_OK(cu.cuMemsetD32Async(block, 7, 1, stream));
    EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, stream));
    std::atomic<bool> waited{false};
    std::thread waiter([&] {
      EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
      EXPECT_OK(cu.cuStreamSynchronize(stream));
      waited = true;
    });
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(cu.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT(!waited);
    EXPECT_EQ(host[0], 0u);
    EXPECT_EQ(cu.control("paused=0"), 0);
    waiter.join();
    EXPECT_EQ(host[0], 7u);
  }
}

DRIVER_TEST("streams: a wait runs nothing that it does not need", "") {
  CUstream a = cu.stream(), b = cu.stream();
  uint32_t* host = cu.pinned(2);
  const CUdeviceptr block = cu.device(8);
  EXPECT_OK(cu.cuMemsetD32Async(block, 1, 1, a));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, a));
  EXPECT_OK(cu.cuMemsetD32Async(block + 4, 2, 1, b));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host + 1, block + 4, 4, b));
  EXPECT_OK(cu.cuStreamSynchronize(a));
  EXPECT_EQ(host[0], 1u);
  EXPECT_EQ(host[1], 0u);
  EXPECT_OK(cu.cuStreamSynchronize(b));
  EXPECT_EQ(host[1], 2u);
  EXPECT_CLEAN();
}

DRIVER_TEST("streams: two that write the same bytes need an event", "") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr block = cu.device(64);
  CUevent done = event(cu);
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, a));
  EXPECT_OK(cu.cuEventRecord(done, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, done, 0));
  EXPECT_OK(cu.cuMemsetD8Async(block, 2, 64, b));
  EXPECT_OK(cu.cuStreamSynchronize(b));
  EXPECT_CLEAN();
  EXPECT_OK(cu.cuMemsetD8Async(block + 32, 3, 16, a));
  EXPECT_OK(cu.cuStreamSynchronize(a));
  EXPECT_CLEAN();  // the host waited for b before it queued this
  EXPECT_OK(cu.cuMemsetD8Async(block, 4, 16, a));
  EXPECT_OK(cu.cuMemsetD8Async(block + 16, 5, 16, b));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_CLEAN();  // neighbours
  EXPECT_OK(cu.cuMemsetD8Async(block, 6, 17, a));
  EXPECT_OK(cu.cuMemsetD8Async(block + 16, 7, 16, b));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams: memset of 16 bytes");
  EXPECT_FOUND("1 byte at byte 16");
}

DRIVER_TEST("streams: two may read the same bytes, a writer must wait for both", "") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr from = cu.device(64), to = cu.device(128);
  EXPECT_OK(cu.cuMemsetD8_v2(from, 1, 64));
  EXPECT_OK(cu.cuCtxSynchronize());
  CUevent read = event(cu);
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(to, from, 64, a));
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(to + 64, from, 64, b));
  EXPECT_OK(cu.cuEventRecord(read, b));
  EXPECT_OK(cu.cuStreamWaitEvent(a, read, 0));
  EXPECT_OK(cu.cuMemsetD8Async(from, 2, 64, a));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_CLEAN();
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(to, from, 64, a));
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(to + 64, from, 64, b));
  EXPECT_OK(cu.cuMemsetD8Async(from, 2, 64, a));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

DRIVER_TEST("streams: kernels of two streams race like copies", "") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr x = cu.device(256), y = cu.device(256);
  CUevent done = event(cu);
  EXPECT_OK(cu.fill(x, 1, 64, a));
  EXPECT_OK(cu.cuEventRecord(done, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, done, 0));
  EXPECT_OK(cu.increment(x, y, 64, b));
  EXPECT_OK(cu.increment(x, x, 32, b));
  EXPECT_OK(cu.cuStreamSynchronize(b));
  EXPECT_CLEAN();
  EXPECT_OK(cu.fill(x, 1, 64, a));
  EXPECT_OK(cu.increment(x, y, 64, b));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams: kernel ");
}

DRIVER_TEST("streams: the legacy stream and blocking streams wait for each other", "CUDASIM_SEED=5") {
  CUstream blocking = cu.stream(CU_STREAM_DEFAULT);
  const CUdeviceptr block = cu.device(64);
  for (int i = 0; i < 8; ++i) {
    EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, blocking));
    EXPECT_OK(cu.cuMemsetD8Async(block, 2, 64, nullptr));
    EXPECT_OK(cu.cuMemsetD8Async(block, 3, 64, blocking));
  }
  uint8_t host[64];
  EXPECT_OK(cu.cuMemcpyDtoH_v2(host, block, 64));
  EXPECT_EQ(int{host[5]}, 3);
  EXPECT_CLEAN();
  CUstream other = cu.stream(CU_STREAM_NON_BLOCKING);
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, nullptr));
  EXPECT_OK(cu.cuMemsetD8Async(block, 2, 64, other));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

DRIVER_TEST("streams: queries get somewhere, and end", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr block = cu.device(64);
  EXPECT_OK(cu.cuStreamQuery(stream));
  CUevent done = event(cu);
  EXPECT_OK(cu.cuEventQuery(done));  // never recorded
  for (int i = 0; i < 5; ++i) EXPECT_OK(cu.cuMemsetD8Async(block, 1, 64, stream));
  EXPECT_OK(cu.cuEventRecord(done, stream));
  EXPECT_STATUS(cu.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  int polls = 0;
  while (cu.cuEventQuery(done) == CUDA_ERROR_NOT_READY && polls < 100) ++polls;
  EXPECT_EQ(polls, 5);
}

DRIVER_TEST("streams: work of a destroyed stream goes on", "") {
  CUstream stream = cu.stream();
  uint32_t* host = cu.pinned(1);
  const CUdeviceptr block = cu.device(4);
  EXPECT_OK(cu.cuMemsetD32Async(block, 7, 1, stream));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, stream));
  EXPECT_OK(cu.cuStreamDestroy_v2(stream));
  EXPECT_STATUS(cu.cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(*host, 7u);
}

DRIVER_TEST("streams: priorities, flags, identity", "") {
  int least = 1, greatest = 1, priority = 9;
  EXPECT_OK(cu.cuCtxGetStreamPriorityRange(&least, &greatest));
  EXPECT(greatest < least);
  CUstream stream = nullptr;
  EXPECT_OK(cu.cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, greatest - 10));
  EXPECT_OK(cu.cuStreamGetPriority(stream, &priority));
  EXPECT_EQ(priority, greatest);
  unsigned flags = 0;
  EXPECT_OK(cu.cuStreamGetFlags(stream, &flags));
  EXPECT_EQ(flags, 1u);
  CUcontext context = nullptr;
  EXPECT_OK(cu.cuStreamGetCtx(stream, &context));
  EXPECT_EQ(context, cu.context);
  EXPECT_STATUS(cu.cuStreamCreate(&stream, 8), CUDA_ERROR_INVALID_VALUE);
}

DRIVER_TEST("events: times grow along a stream", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr block = cu.device(1 << 20);
  CUevent begin = event(cu, 0), middle = event(cu, 0), end = event(cu, 0), silent = event(cu);
  EXPECT_OK(cu.cuEventRecord(begin, stream));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 1, stream));
  EXPECT_OK(cu.cuEventRecord(middle, stream));
  EXPECT_OK(cu.cuMemsetD8Async(block, 1, 1 << 20, stream));
  EXPECT_OK(cu.cuEventRecord(end, stream));
  float small = 0, large = 0;
  EXPECT_STATUS(cu.cuEventElapsedTime(&small, begin, middle), CUDA_ERROR_NOT_READY);
  EXPECT_OK(cu.cuEventSynchronize(end));
  EXPECT_OK(cu.cuEventElapsedTime(&small, begin, middle));
  EXPECT_OK(cu.cuEventElapsedTime_v2(&large, begin, end));
  EXPECT(small > 0 && large > 2 * small);
  EXPECT_STATUS(cu.cuEventElapsedTime(&small, begin, silent), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_OK(cu.cuEventDestroy_v2(begin));
  EXPECT_STATUS(cu.cuEventRecord(begin, stream), CUDA_ERROR_INVALID_HANDLE);
}

DRIVER_TEST("events: one of another device cannot be recorded, but can be waited for", "CUDASIM_DEVICES=2") {
  CUstream here = cu.stream();
  CUevent ours = event(cu);
  cu.use(1);
  CUstream there = cu.stream();
  EXPECT_STATUS(cu.cuEventRecord(ours, there), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_FOUND("wrong context: cuEventRecord");
  EXPECT_OK(cu.cuEventRecord(ours, here));
  EXPECT_OK(cu.cuStreamWaitEvent(there, ours, 0));
  EXPECT_OK(cu.cuStreamSynchronize(there));
}

DRIVER_TEST("host functions: they run by themselves, after what is before them", "") {
  CUstream stream = cu.stream();
  static std::atomic<uint32_t> seen{0};
  static uint32_t* host = cu.pinned(1);
  const CUdeviceptr block = cu.device(4);
  EXPECT_OK(cu.cuMemsetD32Async(block, 11, 1, stream));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, stream));
  EXPECT_OK(cu.cuLaunchHostFunc(
      stream, [](void*) { seen = *host; }, nullptr));
  const auto limit = Clock::now() + std::chrono::seconds(20);
  while (seen == 0 && Clock::now() < limit) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(seen.load(), 11u);
}

DRIVER_TEST("host functions: a call of the driver from inside is refused and found", "") {
  CUstream stream = cu.stream();
  static Cuda* const api = &cu;
  static CUresult status = CUDA_SUCCESS;
  EXPECT_OK(cu.cuLaunchHostFunc(
      stream, [](void*) { status = api->cuStreamQuery(nullptr); }, nullptr));
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_STATUS(status, CUDA_ERROR_NOT_PERMITTED);
  EXPECT_FOUND("call from a host function");
}

DRIVER_TEST("host functions: after a fault they are skipped, callbacks are told", "") {
  CUstream stream = cu.stream();
  static int called = 0;
  static CUresult told = CUDA_SUCCESS;
  EXPECT_EQ(cu.control("failLaunch=1"), 0);
  const CUdeviceptr block = cu.device(64);
  EXPECT_OK(cu.fill(block, 1, 16, stream));
  EXPECT_OK(cu.cuLaunchHostFunc(
      stream, [](void*) { ++called; }, nullptr));
  EXPECT_OK(cu.cuStreamAddCallback(
      stream, [](CUstream, CUresult status, void*) { told = status; }, nullptr, 0));
  EXPECT_STATUS(cu.cuStreamSynchronize(stream), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(called, 0);
  EXPECT_STATUS(told, CUDA_ERROR_LAUNCH_FAILED);
}

DRIVER_TEST("threads: two of them use streams of their own", "CUDASIM_SEED=3") {
  std::thread threads[2];
  for (int t = 0; t < 2; ++t)
    threads[t] = std::thread([&cu, t] {
      EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
      CUstream stream = cu.stream();
      uint32_t* host = cu.pinned(1);
      const CUdeviceptr block = cu.device(4);
      for (uint32_t i = 0; i < 50; ++i) {
        EXPECT_OK(cu.cuMemsetD32Async(block, i * 2 + t, 1, stream));
        EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, block, 4, stream));
        EXPECT_OK(cu.cuStreamSynchronize(stream));
        EXPECT_EQ(*host, i * 2 + t);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_CLEAN();
}

}  // namespace cudasim::test
