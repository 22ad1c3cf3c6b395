// Stream capture: calls on a stream become nodes of a graph; calls that could not be replayed are errors.
#pragma once

#include <thread>

#include "driver.h"
#include "graph.h"

namespace cudasim::driver {

struct Capture {
  uint64_t id = 0;
  abi::CUstreamCaptureMode mode = abi::CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  std::weak_ptr<Stream> origin;
  std::vector<std::weak_ptr<Stream>> streams;  // that joined, the origin first
  std::shared_ptr<Graph> graph;
  bool isInvalid = false;
  std::string why;  // of the first error
};

// How this thread's calls are judged while any thread captures; cuThreadExchangeStreamCaptureMode sets it.
abi::CUstreamCaptureMode& threadCaptureMode();

void captureNode(Driver& driver, Stream& stream, Work work);
// The stream takes part in the event's capture from here on.
void joinCapture(Driver& driver, const std::shared_ptr<Stream>& stream, const Event& event);

// For a wait of a capturing stream for an event that was recorded outside.
[[noreturn]] void refuseIsolated(Driver& driver, Stream& stream);
// For calls that wait, or that allocate behind the stream's back.
void refuseUnsafeInCapture(Driver& driver, const char* function);
// For calls that wait for this very stream.
void refuseOnCapturing(Driver& driver, Stream& stream, const char* function);
// For calls that depend on the legacy stream while a blocking stream captures.
void refuseImplicitCapture(Driver& driver, Context& context);

}  // namespace cudasim::driver
