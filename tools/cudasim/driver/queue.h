// From a call to queued work: every asynchronous call ends in submit().
#pragma once

#include "driver.h"

namespace cudasim::driver {

// Queues the work on the stream, or adds a node to the graph that the stream captures. Null in the second case.
OpRef submit(Driver& driver, const std::shared_ptr<Stream>& stream, Work work);

// What the next operation on the stream must wait for, besides the stream itself: the legacy stream and the blocking
// streams of a context wait for each other.
std::vector<OpRef> implicitPredecessors(Stream& stream);

// An operation that is not queued yet.
OpRef makeOp(const std::shared_ptr<Context>& context, Work work, const std::string& where);

HostWork hostWork(abi::CUhostFn function, void* data);

// Carries out the work of an operation; execute.cc. A fault makes its context fail.
void execute(Driver& driver, Op& op, const Work& work);

void failContext(Context& context, abi::CUresult code);

}  // namespace cudasim::driver
