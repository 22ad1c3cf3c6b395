#include "waiter.h"

#include <thread>

namespace gradus::cuda {

Waiter::Waiter(const Place& place) : place_(place) {
  std::thread([this] { loop(); }).detach();
}

Event Waiter::takeEvent() {
  {
    std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      Event event = spare_.back();
      spare_.pop_back();
      return event;
    }
  }
  Event event = nullptr;
  check(driver().eventCreate(&event, kBlockingEvent), "cuEventCreate");
  return event;
}

void Waiter::giveEvent(Event event) noexcept {
  std::lock_guard lock(mutex_);
  spare_.push_back(event);
}

void Waiter::after(CudaStream stream, Action action) {
  Event event = takeEvent();
  const Result recorded = driver().eventRecord(event, stream);
  std::lock_guard lock(mutex_);
  if (recorded != kSuccess) {
    spare_.push_back(event);
    failCall(recorded, "cuEventRecord");
  }
  jobs_.push_back({event, std::move(action)});
  ready_.notify_one();
}

void Waiter::loop() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return !jobs_.empty(); });
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    Result result;
    try {
      makeCurrent(place_);
      result = driver().eventSynchronize(job.event);
    } catch (const Error&) {  // the context is lost, and the action is to hear of it
      result = driver().eventSynchronize(job.event);
    }
    job.action(result);
    giveEvent(job.event);
  }
}

}  // namespace gradus::cuda
