// Stream capture and graphs.
#include <thread>

#include "driver_test.h"

namespace cudasim::test {

namespace {

struct Loop {  // one value that a captured stream doubles its way through
  CUstream stream;
  CUdeviceptr x, y;
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
};

// x = value; y = x + 1, captured.
Loop capture(Cuda& cu, uint32_t value) {
  Loop loop{cu.stream(), cu.device(256), cu.device(256)};
  EXPECT_OK(cu.cuStreamBeginCapture_v2(loop.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuMemsetD32Async(loop.x, value, 64, loop.stream));
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(loop.y, loop.x, 256, loop.stream));
  EXPECT_OK(cu.cuStreamEndCapture(loop.stream, &loop.graph));
  EXPECT_OK(cu.cuGraphInstantiateWithFlags(&loop.exec, loop.graph, 0));
  return loop;
}

uint32_t read(Cuda& cu, CUdeviceptr address) {
  uint32_t value = 0;
  EXPECT_OK(cu.cuMemcpyDtoH_v2(&value, address, 4));
  return value;
}

CUevent event(Cuda& cu) {
  CUevent made = nullptr;
  EXPECT_OK(cu.cuEventCreate(&made, CU_EVENT_DISABLE_TIMING));
  return made;
}

}  // namespace

DRIVER_TEST("capture: nothing runs until the graph is launched, then it can run often", "") {
  const Loop loop = capture(cu, 5);
  uint32_t value = 0;
  EXPECT_OK(cu.cuMemsetD32_v2(loop.y, 1, 64));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(read(cu, loop.y), 1u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_OK(cu.cuMemsetD32Async(loop.y, 1, 64, loop.stream));
    EXPECT_OK(cu.cuGraphLaunch(loop.exec, loop.stream));
    EXPECT_OK(cu.cuStreamSynchronize(loop.stream));
    EXPECT_EQ(read(cu, loop.y), 5u);
  }
  (void)value;
  EXPECT_CLEAN();
}

DRIVER_TEST("capture: kernels keep their parameters", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr x = cu.device(256), y = cu.device(256);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  CUfunction fill = cu.kernel("fill"), increment = cu.kernel("increment");
  CUdeviceptr a = x, b = y;
  uint32_t value = 41, count = 64;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.launch(fill, 1, 64, stream, {&a, &value, &count}));
  EXPECT_OK(cu.launch(increment, 1, 64, stream, {&a, &b, &count}));
  EXPECT_OK(cu.cuStreamEndCapture(stream, &graph));
  a = b = value = count = 0;
  EXPECT_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
  EXPECT_OK(cu.cuGraphDestroy(graph));
  EXPECT_OK(cu.cuGraphLaunch(exec, stream));
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(read(cu, y), 42u);
  EXPECT_OK(cu.cuGraphExecDestroy(exec));
  EXPECT_STATUS(cu.cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_HANDLE);
}

DRIVER_TEST("capture: status and dependencies can be asked for", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr x = cu.device(64);
  CUstreamCaptureStatus status;
  EXPECT_OK(cu.cuStreamIsCapturing(stream, &status));
  EXPECT(status == CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_OK(cu.cuMemsetD8Async(x, 1, 64, stream));
  cuuint64_t id = 0;
  CUgraph during = nullptr, graph = nullptr;
  const CUgraphNode* dependencies = nullptr;
  size_t count = 0;
  EXPECT_OK(cu.cuStreamGetCaptureInfo_v2(stream, &status, &id, &during, &dependencies, &count));
  EXPECT(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT(id != 0);
  EXPECT_EQ(count, 1u);
  CUgraphNodeType type;
  EXPECT_OK(cu.cuGraphNodeGetType(dependencies[0], &type));
  EXPECT(type == CU_GRAPH_NODE_TYPE_MEMSET);
  EXPECT_OK(cu.cuStreamEndCapture(stream, &graph));
  EXPECT_EQ(graph, during);
}

DRIVER_TEST("capture: a fork that joins is part of the graph", "CUDASIM_SEED=9") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr x = cu.device(256), y = cu.device(256);
  CUevent fork = event(cu), join = event(cu);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuMemsetD32Async(x, 3, 64, a));
  EXPECT_OK(cu.cuEventRecord(fork, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, fork, 0));
  EXPECT_OK(cu.cuMemcpyDtoDAsync_v2(y, x, 256, b));
  EXPECT_OK(cu.cuEventRecord(join, b));
  EXPECT_OK(cu.cuStreamWaitEvent(a, join, 0));
  EXPECT_OK(cu.cuMemsetD32Async(x, 4, 64, a));
  EXPECT_OK(cu.cuStreamEndCapture(a, &graph));
  size_t nodes = 0, edges = 0;
  EXPECT_OK(cu.cuGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_OK(cu.cuGraphGetEdges_v2(graph, nullptr, nullptr, nullptr, &edges));
  EXPECT_EQ(nodes, 3u);
  EXPECT_EQ(edges, 3u);
  EXPECT_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
  for (int i = 0; i < 4; ++i) EXPECT_OK(cu.cuGraphLaunch(exec, i % 2 ? a : b));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(read(cu, y), 3u);
  EXPECT_EQ(read(cu, x), 4u);
  EXPECT_CLEAN();
}

DRIVER_TEST("capture: branches of a graph that touch the same bytes race", "") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr x = cu.device(256);
  CUevent fork = event(cu), join = event(cu);
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuEventRecord(fork, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, fork, 0));
  EXPECT_OK(cu.cuMemsetD32Async(x, 1, 64, a));
  EXPECT_OK(cu.cuMemsetD32Async(x, 2, 64, b));
  EXPECT_OK(cu.cuEventRecord(join, b));
  EXPECT_OK(cu.cuStreamWaitEvent(a, join, 0));
  EXPECT_OK(cu.cuStreamEndCapture(a, &graph));
  EXPECT_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
  EXPECT_OK(cu.cuGraphLaunch(exec, a));
  EXPECT_STATUS(cu.cuStreamSynchronize(a), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

DRIVER_TEST("capture: a fork that does not join is an error", "") {
  CUstream a = cu.stream(), b = cu.stream();
  const CUdeviceptr x = cu.device(256);
  CUevent fork = event(cu);
  CUgraph graph = nullptr;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuMemsetD32Async(x, 1, 32, a));
  EXPECT_OK(cu.cuEventRecord(fork, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, fork, 0));
  EXPECT_OK(cu.cuMemsetD32Async(x, 2, 32, b));
  EXPECT_STATUS(cu.cuStreamEndCapture(b, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  EXPECT_STATUS(cu.cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_OK(cu.cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuEventRecord(fork, a));
  EXPECT_OK(cu.cuStreamWaitEvent(b, fork, 0));
  EXPECT_OK(cu.cuMemsetD32Async(x, 2, 32, b));
  EXPECT_STATUS(cu.cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  EXPECT_OK(cu.cuMemsetD32Async(x, 2, 32, b));  // both streams are ordinary again
  EXPECT_OK(cu.cuStreamSynchronize(b));
}

DRIVER_TEST("capture: waiting is forbidden, and spoils the capture", "") {
  CUstream stream = cu.stream();
  const CUdeviceptr x = cu.device(256);
  CUgraph graph = nullptr;
  const auto spoil = [&](CUresult status, CUresult expected, int line) {
    equal(static_cast<int>(status), static_cast<int>(expected), "forbidden call", __FILE__, line);
    EXPECT_STATUS(cu.cuMemsetD32Async(x, 1, 64, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CUstreamCaptureStatus now;
    EXPECT_OK(cu.cuStreamIsCapturing(stream, &now));
    EXPECT(now == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    EXPECT_STATUS(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(graph, nullptr);
    EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  };
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  constexpr CUresult kUnsupported = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  uint32_t host = 0;
  CUdeviceptr block = 0;
  spoil(cu.cuStreamSynchronize(stream), kUnsupported, __LINE__);
  spoil(cu.cuStreamQuery(stream), kUnsupported, __LINE__);
  spoil(cu.cuCtxSynchronize(), kUnsupported, __LINE__);
  spoil(cu.cuMemAlloc_v2(&block, 64), kUnsupported, __LINE__);
  spoil(cu.cuMemFree_v2(x), kUnsupported, __LINE__);
  spoil(cu.cuMemcpyDtoH_v2(&host, x, 4), kUnsupported, __LINE__);
  spoil(cu.cuMemcpyHtoDAsync_v2(x, &host, 4, stream), kUnsupported, __LINE__);  // pageable
  EXPECT_FOUND("capture: cuMemAlloc is not permitted while a stream is capturing");
}

DRIVER_TEST("capture: modes say which calls of which thread are forbidden", "") {
  CUstream stream = cu.stream();
  CUgraph graph = nullptr;
  CUdeviceptr block = 0;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  EXPECT_OK(cu.cuStreamEndCapture(stream, &graph));
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  std::thread([&] {
    EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
    EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
  }).join();
  EXPECT_OK(cu.cuStreamEndCapture(stream, &graph));
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  std::thread([&] {
    EXPECT_OK(cu.cuCtxSetCurrent(cu.context));
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    EXPECT_OK(cu.cuThreadExchangeStreamCaptureMode(&mode));
    EXPECT(mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT_OK(cu.cuMemAlloc_v2(&block, 64));
    EXPECT_OK(cu.cuThreadExchangeStreamCaptureMode(&mode));
    EXPECT_STATUS(cu.cuMemAlloc_v2(&block, 64), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }).join();
  EXPECT_STATUS(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

DRIVER_TEST("capture: the legacy stream must not meet a blocking stream that captures", "") {
  CUstream blocking = cu.stream(CU_STREAM_DEFAULT), other = cu.stream(CU_STREAM_NON_BLOCKING);
  const CUdeviceptr x = cu.device(64);
  CUgraph graph = nullptr;
  EXPECT_STATUS(cu.cuStreamBeginCapture_v2(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED),
                CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_OK(cu.cuStreamBeginCapture_v2(other, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_OK(cu.cuMemsetD8Async(x, 1, 64, nullptr));
  EXPECT_OK(cu.cuStreamEndCapture(other, &graph));
  EXPECT_OK(cu.cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_STATUS(cu.cuMemsetD8Async(x, 1, 64, nullptr), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_STATUS(cu.cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

DRIVER_TEST("capture: events of a capture, and events from outside", "") {
  CUstream stream = cu.stream(), other = cu.stream();
  const CUdeviceptr x = cu.device(64);
  CUevent inside = event(cu), outside = event(cu);
  CUgraph graph = nullptr;
  EXPECT_OK(cu.cuMemsetD8Async(x, 1, 64, other));
  EXPECT_OK(cu.cuEventRecord(outside, other));
  EXPECT_OK(cu.cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_OK(cu.cuEventRecord(inside, stream));
  EXPECT_STATUS(cu.cuEventSynchronize(inside), CUDA_ERROR_CAPTURED_EVENT);
  EXPECT_STATUS(cu.cuStreamWaitEvent(stream, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  EXPECT_STATUS(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

DRIVER_TEST("graphs: update in place takes new parameters, not a new shape", "") {
  const Loop loop = capture(cu, 5), next = capture(cu, 6);
  CUgraphExecUpdateResultInfo info;
  EXPECT_OK(cu.cuGraphExecUpdate_v2(loop.exec, next.graph, &info));
  EXPECT_OK(cu.cuGraphLaunch(loop.exec, loop.stream));
  EXPECT_OK(cu.cuStreamSynchronize(loop.stream));
  EXPECT_EQ(read(cu, next.y), 6u);
  CUgraph longer = nullptr;
  EXPECT_OK(cu.cuStreamBeginCapture_v2(loop.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_OK(cu.cuMemsetD32Async(loop.x, 1, 64, loop.stream));
  EXPECT_OK(cu.cuStreamEndCapture(loop.stream, &longer));
  EXPECT_STATUS(cu.cuGraphExecUpdate_v2(loop.exec, longer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
}

DRIVER_TEST("graphs: nodes can be added by hand", "") {
  const CUdeviceptr x = cu.device(256), y = cu.device(256);
  CUfunction fill = cu.kernel("fill");
  CUdeviceptr out = x;
  uint32_t value = 8, count = 64;
  void* params[] = {&out, &value, &count};
  CUDA_KERNEL_NODE_PARAMS kernel{};
  kernel.func = fill;
  kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = kernel.blockDimY = kernel.blockDimZ = 1;
  kernel.blockDimX = 64;
  kernel.kernelParams = params;
  CUDA_MEMCPY3D copy{};
  copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = x;
  copy.dstDevice = y;
  copy.WidthInBytes = 256;
  copy.Height = copy.Depth = 1;
  CUgraph graph = nullptr;
  CUgraphNode first = nullptr, second = nullptr, host = nullptr;
  CUgraphExec exec = nullptr;
  static int called = 0;
  CUDA_HOST_NODE_PARAMS hostParams{[](void*) { ++called; }, nullptr};
  EXPECT_OK(cu.cuGraphCreate(&graph, 0));
  EXPECT_OK(cu.cuGraphAddKernelNode_v2(&first, graph, nullptr, 0, &kernel));
  EXPECT_OK(cu.cuGraphAddMemcpyNode(&second, graph, &first, 1, &copy, cu.context));
  EXPECT_OK(cu.cuGraphAddHostNode(&host, graph, &second, 1, &hostParams));
  EXPECT_OK(cu.cuGraphInstantiateWithFlags(&exec, graph, 0));
  value = 9;
  EXPECT_OK(cu.cuGraphExecKernelNodeSetParams_v2(exec, first, &kernel));
  EXPECT_OK(cu.cuGraphLaunch(exec, nullptr));
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_EQ(read(cu, y), 9u);
  EXPECT_EQ(called, 1);
}

}  // namespace cudasim::test
