#include "mark.h"

namespace gradus::cuda {

Mark::~Mark() {
  if (event_ == nullptr) return;
  try {
    const Visit visit(place_);
    driver().eventDestroy(event_);
  } catch (const Error&) {  // the context is lost, and its events with it
  }
}

void Mark::record(CudaStream stream) {
  if (!isTimed_) return;  // whoever tells it that it is reached has an event of its own
  check(driver().eventCreate(&event_, kTimedEvent), "cuEventCreate");
  check(driver().eventRecord(event_, stream), "cuEventRecord");
}

void Mark::reach(std::shared_ptr<const Failure> failure) {
  std::vector<Completion*> waiting;
  {
    std::lock_guard lock(mutex_);
    reached_ = true;
    failure_ = failure;
    waiting.swap(waiting_);
  }
  for (Completion* each : waiting) each->done(failure);
}

void Mark::wait(Completion* completion) {
  std::shared_ptr<const Failure> failure;
  {
    std::lock_guard lock(mutex_);
    if (!reached_) return waiting_.push_back(completion);
    failure = failure_;
  }
  completion->done(std::move(failure));
}

bool Mark::isReached(std::shared_ptr<const Failure>* failure) {
  std::lock_guard lock(mutex_);
  *failure = failure_;
  return reached_;
}

double Mark::until(const Mark& later) const {
  const Visit visit(place_);
  float milliseconds = 0;
  check(driver().eventElapsedTime(&milliseconds, event_, later.event_), "cuEventElapsedTime");
  return milliseconds;
}

}  // namespace gradus::cuda
