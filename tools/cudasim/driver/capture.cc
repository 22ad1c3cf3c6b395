#include "capture.h"

#include <algorithm>

#include "entry.h"

namespace cudasim::driver {

using namespace abi;

CUstreamCaptureMode& threadCaptureMode() {
  thread_local CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  return mode;
}

namespace {

[[noreturn]] void invalidate(Driver& driver, Capture& capture, const std::string& why, CUresult code) {
  if (!capture.isInvalid) capture.why = why;
  capture.isInvalid = true;
  driver.misuse("capture", why, code);
}

void requireValid(const Capture& capture) {
  if (capture.isInvalid) fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture failed before: " + capture.why);
}

void endCapture(Driver& driver, const std::shared_ptr<Capture>& capture) {
  for (const auto& weak : capture->streams)
    if (const auto stream = weak.lock()) {
      stream->capture.reset();
      stream->captured.clear();
    }
  std::erase(driver.captures, capture);
}

std::vector<NodeRef> nodesOf(const Event& event) {
  std::vector<NodeRef> nodes;
  for (const auto& weak : event.captured)
    if (NodeRef node = weak.lock()) nodes.push_back(std::move(node));
  return nodes;
}

}  // namespace

void captureNode(Driver& driver, Stream& stream, Work work) {
  Capture& capture = *stream.capture;
  requireValid(capture);
  if (std::holds_alternative<FreeWork>(work))
    invalidate(driver, capture, "cuMemFreeAsync: memory nodes are not simulated",
               CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (const auto* copy = std::get_if<CopyWork>(&work);
      copy && (copy->to.where == Side::Where::kPageable || copy->from.where == Side::Where::kPageable))
    invalidate(driver, capture,
               "a copy from or to pageable host memory cannot be captured: its bytes would be read at replay",
               CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  stream.captured = {addNode(capture.graph, stream.context, std::move(work), stream.captured)};
}

void joinCapture(Driver& driver, const std::shared_ptr<Stream>& stream, const Event& event) {
  const std::shared_ptr<Capture> capture = event.capture.lock();
  require(capture && capture->graph, CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture that has ended");
  requireValid(*capture);
  if (stream->isLegacy) refuseImplicitCapture(driver, *stream->context);
  if (stream->capture && stream->capture != capture)
    invalidate(driver, *stream->capture, "cuStreamWaitEvent: the event belongs to another capture",
               CUDA_ERROR_STREAM_CAPTURE_MERGE);
  if (!stream->capture) {
    stream->capture = capture;
    capture->streams.push_back(stream);
  }
  for (NodeRef& node : nodesOf(event))
    if (std::find(stream->captured.begin(), stream->captured.end(), node) == stream->captured.end())
      stream->captured.push_back(std::move(node));
}

void refuseIsolated(Driver& driver, Stream& stream) {
  invalidate(driver, *stream.capture,
             "cuStreamWaitEvent: " + stream.name() + " is capturing, and the event was recorded outside of the capture",
             CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
}

void refuseUnsafeInCapture(Driver& driver, const char* function) {
  const CUstreamCaptureMode judged = threadCaptureMode();
  if (judged == CU_STREAM_CAPTURE_MODE_RELAXED) return;
  for (const auto& capture : driver.captures) {
    const bool isMine = capture->thread == std::this_thread::get_id();
    const bool forbids =
        isMine ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED
               : judged == CU_STREAM_CAPTURE_MODE_GLOBAL && capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (forbids)
      invalidate(driver, *capture, std::string(function) + " is not permitted while a stream is capturing",
                 CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
}

void refuseOnCapturing(Driver& driver, Stream& stream, const char* function) {
  if (!stream.capture) return;
  requireValid(*stream.capture);
  invalidate(driver, *stream.capture, std::string(function) + " on " + stream.name() + ", which is capturing",
             CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

void refuseImplicitCapture(Driver& driver, Context& context) {
  context.each([&](Stream& stream) {
    if (stream.isBlocking() && stream.capture)
      invalidate(driver, *stream.capture,
                 "the legacy stream would depend on " + stream.name() +
                     ", which is capturing; create it with "
                     "CU_STREAM_NON_BLOCKING",
                 CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  });
}

}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  return entry("cuStreamBeginCapture", Needs::kContext, [&](Driver& driver) {
    require(mode <= CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    require(!stream->isLegacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot capture");
    require(!stream->capture, CUDA_ERROR_ILLEGAL_STATE, "the stream is capturing already");
    auto capture = std::make_shared<Capture>();
    capture->id = driver.nextId++;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = stream;
    capture->streams = {stream};
    capture->graph = std::make_shared<Graph>();
    stream->capture = capture;
    driver.captures.push_back(std::move(capture));
  });
}

extern "C" CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  return entry("cuStreamEndCapture", Needs::kContext, [&](Driver& driver) {
    require(graph != nullptr, CUDA_ERROR_INVALID_VALUE);
    *graph = nullptr;
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    const std::shared_ptr<Capture> capture = stream->capture;
    require(capture != nullptr, CUDA_ERROR_ILLEGAL_STATE, "the stream is not capturing");
    if (capture->origin.lock() != stream)
      invalidate(driver, *capture, "cuStreamEndCapture on " + stream->name() + ", where the capture did not begin",
                 CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
      invalidate(driver, *capture, "cuStreamEndCapture on another thread than cuStreamBeginCapture",
                 CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    std::string unjoined;
    for (const auto& weak : capture->streams)
      if (const auto other = weak.lock(); other && other != stream)
        for (const NodeRef& node : other->captured)
          if (!reaches(stream->captured, *node)) unjoined = other->name();
    endCapture(driver, capture);
    requireValid(*capture);
    if (!unjoined.empty())
      driver.misuse("capture",
                    "cuStreamEndCapture: nothing in " + stream->name() + " waits for the work of " + unjoined,
                    CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    *graph = driver.handle<CUgraph>(capture->graph);
  });
}

extern "C" CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return entry("cuStreamIsCapturing", Needs::kContext, [&](Driver& driver) {
    require(status != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    if (stream->isLegacy) refuseImplicitCapture(driver, *stream->context);
    *status = !stream->capture             ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->isInvalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                           : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  });
}

extern "C" CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id,
                                              CUgraph* graph, const CUgraphNode** dependencies,
                                              const CUgraphEdgeData** edges, size_t* count) {
  return entry("cuStreamGetCaptureInfo", Needs::kContext, [&](Driver& driver) {
    require(status != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (edges) *edges = nullptr;  // every edge is an ordinary one
    if (!stream->capture) return;
    *status = stream->capture->isInvalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (id) *id = stream->capture->id;
    if (stream->capture->isInvalid) return;
    if (graph) *graph = driver.handle<CUgraph>(stream->capture->graph);
    thread_local std::vector<CUgraphNode> nodes;  // valid until this thread's next call
    nodes.clear();
    for (const NodeRef& node : stream->captured) nodes.push_back(driver.handle<CUgraphNode>(node));
    if (dependencies) *dependencies = nodes.data();
    if (count) *count = nodes.size();
  });
}

extern "C" CUresult cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id,
                                              CUgraph* graph, const CUgraphNode** dependencies, size_t* count) {
  return cuStreamGetCaptureInfo_v3(handle, status, id, graph, dependencies, nullptr, count);
}

extern "C" CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return entry("cuThreadExchangeStreamCaptureMode", Needs::kInit, [&](Driver&) {
    require(mode && *mode <= CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_ERROR_INVALID_VALUE);
    std::swap(*mode, threadCaptureMode());
  });
}

}  // namespace cudasim::abi
