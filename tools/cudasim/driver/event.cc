// Events: points in streams, and the time at which they were reached.
#include "capture.h"
#include "entry.h"
#include "queue.h"

namespace cudasim::abi {

using namespace driver;

namespace {

void record(Driver& driver, CUevent eventHandle, CUstream handle) {
  const std::shared_ptr<Event> event = driver.object<Event>(eventHandle);
  const std::shared_ptr<Stream> stream = streamOf(driver, handle);
  if (event->context != stream->context)
    driver.misuse(
        "wrong context",
        "cuEventRecord: an event of device " + std::to_string(event->context->gpu.ordinal) + " in " + stream->name(),
        CUDA_ERROR_INVALID_HANDLE);
  if (stream->isLegacy) refuseImplicitCapture(driver, *stream->context);
  event->isCaptured = stream->capture != nullptr;
  if (event->isCaptured) {
    event->op.reset();
    event->capture = stream->capture;
    event->captured.assign(stream->captured.begin(), stream->captured.end());
    return;
  }
  const OpRef op = makeOp(stream->context, EmptyWork{}, stream->name());
  op->run = [time = event->time = std::make_shared<uint64_t>(0)](Op& self) { *time = self.context->gpu.nanoseconds; };
  op->clock.join(driver.host);
  driver.scheduler.enqueue(stream->lane, op, implicitPredecessors(*stream));
  event->op = op;
}

std::shared_ptr<Event> uncaptured(Driver& driver, CUevent handle) {
  std::shared_ptr<Event> event = driver.object<Event>(handle);
  require(!event->isCaptured, CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture");
  return event;
}

}  // namespace

extern "C" CUresult cuEventCreate(CUevent* handle, unsigned flags) {
  return entry("cuEventCreate", Needs::kContext, [&](Driver& driver) {
    require(handle && flags <= (CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_VALUE,
            "events between processes are not simulated");
    auto event = std::make_shared<Event>();
    event->context = current();
    event->flags = flags;
    *handle = driver.handle<CUevent>(event);
  });
}

extern "C" CUresult cuEventDestroy_v2(CUevent handle) {
  return entry("cuEventDestroy", Needs::kContext,
               [&](Driver& driver) { driver.withdraw(*driver.object<Event>(handle)); });
}

extern "C" CUresult cuEventRecord(CUevent event, CUstream stream) {
  return entry("cuEventRecord", Needs::kContext, [&](Driver& driver) { record(driver, event, stream); });
}

extern "C" CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  return entry("cuEventRecordWithFlags", Needs::kContext, [&](Driver& driver) {
    require(flags == 0, CUDA_ERROR_NOT_SUPPORTED, "external event nodes are not simulated");
    record(driver, event, stream);
  });
}

extern "C" CUresult cuEventQuery(CUevent handle) {
  return entry("cuEventQuery", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Event> event = uncaptured(driver, handle);
    refuseUnsafeInCapture(driver, "cuEventQuery");
    return driver.poll(event->op, *event->context);
  });
}

extern "C" CUresult cuEventSynchronize(CUevent handle) {
  return entry("cuEventSynchronize", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Event> event = uncaptured(driver, handle);
    refuseUnsafeInCapture(driver, "cuEventSynchronize");
    driver.finish(event->op);
    return event->context->sticky;
  });
}

extern "C" CUresult cuEventElapsedTime(float* milliseconds, CUevent startHandle, CUevent endHandle) {
  return entry("cuEventElapsedTime", Needs::kContext, [&](Driver& driver) {
    require(milliseconds != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Event> start = uncaptured(driver, startHandle), end = uncaptured(driver, endHandle);
    require(start->context == end->context, CUDA_ERROR_INVALID_HANDLE, "events of different contexts");
    for (const Event* event : {start.get(), end.get()}) {
      require(!(event->flags & CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_HANDLE, "the event keeps no time");
      require(event->op != nullptr, CUDA_ERROR_INVALID_HANDLE, "the event was never recorded");
      require(event->op->isDone(), CUDA_ERROR_NOT_READY);
    }
    *milliseconds = static_cast<float>(static_cast<double>(static_cast<int64_t>(*end->time - *start->time)) * 1e-6);
  });
}

extern "C" CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime(milliseconds, start, end);
}

}  // namespace cudasim::abi
