// Waits for events of one stream, so that the executor never has to: what follows a copy to the host, or a fence, runs
// on this thread, in stream order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "memory.h"

namespace gradus::cuda {

class Waiter {
 public:
  // Called with the result of waiting.
  using Action = std::function<void(Result)>;

  explicit Waiter(const Place& place);
  // On the executor: runs the action when everything that is on the stream now has run.
  void after(CudaStream stream, Action action);
  // On the executor: events without a time stamp, and their return when nobody will wait for them any more.
  Event takeEvent();
  void giveEvent(Event event) noexcept;

 private:
  struct Job {
    Event event;
    Action action;
  };
  void loop();

  const Place place_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Job> jobs_;
  std::vector<Event> spare_;
};

}  // namespace gradus::cuda
