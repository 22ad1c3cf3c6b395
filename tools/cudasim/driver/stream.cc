// Streams: creation, waiting, and host functions in stream order.
#include <algorithm>

#include "capture.h"
#include "entry.h"
#include "pool.h"
#include "queue.h"

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int priority) {
  return entry("cuStreamCreate", Needs::kContext, [&](Driver& driver) {
    require(handle && flags <= CU_STREAM_NON_BLOCKING, CUDA_ERROR_INVALID_VALUE);
    const int clamped = std::clamp(priority, kGreatestPriority, 0);
    *handle = driver.handle<CUstream>(current()->addStream(flags, clamped));
  });
}

extern "C" CUresult cuStreamCreate(CUstream* handle, unsigned flags) {
  return cuStreamCreateWithPriority(handle, flags, 0);
}

// Queued work goes on; nothing waits here.
extern "C" CUresult cuStreamDestroy_v2(CUstream handle) {
  return entry("cuStreamDestroy", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = driver.object<Stream>(handle);
    refuseOnCapturing(driver, *stream, "cuStreamDestroy");
    if (stream->lane.last && !stream->lane.last->isDone()) stream->context->orphans.push_back(stream->lane.last);
    driver.scheduler.freeLane(stream->lane);
    driver.withdraw(*stream);
  });
}

extern "C" CUresult cuStreamGetPriority(CUstream handle, int* priority) {
  return entry("cuStreamGetPriority", Needs::kContext, [&](Driver& driver) {
    require(priority != nullptr, CUDA_ERROR_INVALID_VALUE);
    *priority = streamOf(driver, handle)->priority;
  });
}

extern "C" CUresult cuStreamGetFlags(CUstream handle, unsigned* flags) {
  return entry("cuStreamGetFlags", Needs::kContext, [&](Driver& driver) {
    require(flags != nullptr, CUDA_ERROR_INVALID_VALUE);
    *flags = streamOf(driver, handle)->flags;
  });
}

extern "C" CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
  return entry("cuStreamGetCtx", Needs::kContext, [&](Driver& driver) {
    require(context != nullptr, CUDA_ERROR_INVALID_VALUE);
    *context = driver.handle<CUcontext>(streamOf(driver, handle)->context);
  });
}

extern "C" CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
  return entry("cuStreamGetId", Needs::kContext, [&](Driver& driver) {
    require(id != nullptr, CUDA_ERROR_INVALID_VALUE);
    *id = streamOf(driver, handle)->id;
  });
}

extern "C" CUresult cuStreamQuery(CUstream handle) {
  return entry("cuStreamQuery", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    refuseOnCapturing(driver, *stream, "cuStreamQuery");
    refuseUnsafeInCapture(driver, "cuStreamQuery");
    return driver.poll(stream->lane.last, *stream->context);
  });
}

extern "C" CUresult cuStreamSynchronize(CUstream handle) {
  return entry("cuStreamSynchronize", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    refuseOnCapturing(driver, *stream, "cuStreamSynchronize");
    refuseUnsafeInCapture(driver, "cuStreamSynchronize");
    if (stream->isLegacy)
      for (const OpRef& op : implicitPredecessors(*stream)) driver.finish(op);
    driver.finish(stream->lane.last);
    trimToThreshold(*stream->context->gpu.currentPool);
    return stream->context->sticky;
  });
}

extern "C" CUresult cuStreamWaitEvent(CUstream handle, CUevent eventHandle, unsigned flags) {
  return entry("cuStreamWaitEvent", Needs::kContext, [&](Driver& driver) {
    require(flags == 0, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    const std::shared_ptr<Event> event = driver.object<Event>(eventHandle);
    if (event->isCaptured) return joinCapture(driver, stream, *event);
    if (!event->op) return;
    if (stream->capture) refuseIsolated(driver, *stream);
    const OpRef op = makeOp(stream->context, EmptyWork{}, stream->name());
    op->clock.join(driver.host);
    std::vector<OpRef> before = implicitPredecessors(*stream);
    before.push_back(event->op);
    driver.scheduler.enqueue(stream->lane, op, before);
  });
}

extern "C" CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* data) {
  return entry("cuLaunchHostFunc", Needs::kContext, [&](Driver& driver) {
    require(function != nullptr, CUDA_ERROR_INVALID_VALUE);
    submit(driver, streamOf(driver, handle), hostWork(function, data));
  });
}

extern "C" CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void* data, unsigned flags) {
  return entry("cuStreamAddCallback", Needs::kContext, [&](Driver& driver) {
    require(callback && flags == 0, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    refuseOnCapturing(driver, *stream, "cuStreamAddCallback");
    HostWork work;
    work.call = [=](CUresult status) { callback(handle, status, data); };
    work.runsOnError = true;
    submit(driver, stream, std::move(work));
  });
}

}  // namespace cudasim::abi
