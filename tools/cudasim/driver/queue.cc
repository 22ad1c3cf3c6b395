#include "queue.h"

#include "capture.h"

namespace cudasim::driver {

OpRef makeOp(const std::shared_ptr<Context>& context, Work work, const std::string& where) {
  auto op = std::make_shared<Op>();
  op->name = describe(work) + " on " + where;
  op->context = context;
  op->isHostFunction = std::holds_alternative<HostWork>(work);
  if (!std::holds_alternative<EmptyWork>(work))
    op->run = [work = std::move(work)](Op& self) { execute(Driver::get(), self, work); };
  return op;
}

std::vector<OpRef> implicitPredecessors(Stream& stream) {
  std::vector<OpRef> before;
  if (stream.isLegacy)
    stream.context->each([&](Stream& other) {
      if (other.isBlocking()) before.push_back(other.lane.last);
    });
  else if (stream.isBlocking())
    before.push_back(stream.context->legacy->lane.last);
  return before;
}

namespace {

void count(SubmittedCount& submitted, const Work& work) {
  submitted.kernels += std::holds_alternative<KernelWork>(work);
  submitted.tasks += std::holds_alternative<TaskWork>(work);
  submitted.sets += std::holds_alternative<SetWork>(work);
  const auto* copy = std::get_if<CopyWork>(&work);
  if (!copy) return;
  ++submitted.copies;
  const bool inDevices = copy->to.where == Side::Where::kDevice && copy->from.where == Side::Where::kDevice;
  if (!inDevices) submitted.hostBytes += copy->width * copy->height * copy->depth;
  submitted.peerCopies += inDevices && copy->to.device != copy->from.device;
}

}  // namespace

OpRef submit(Driver& driver, const std::shared_ptr<Stream>& stream, Work work) {
  if (stream->isLegacy) refuseImplicitCapture(driver, *stream->context);
  if (stream->capture) {
    captureNode(driver, *stream, std::move(work));
    return nullptr;
  }
  count(driver.submitted, work);
  const OpRef op = makeOp(stream->context, std::move(work), stream->name());
  op->clock.join(driver.host);
  driver.scheduler.enqueue(stream->lane, op, implicitPredecessors(*stream));
  return op;
}

HostWork hostWork(abi::CUhostFn function, void* data) {
  HostWork work;
  work.call = [=](abi::CUresult) { function(data); };
  return work;
}

void failContext(Context& context, abi::CUresult code) {
  if (context.sticky == abi::CUDA_SUCCESS) context.sticky = code;
}

}  // namespace cudasim::driver
