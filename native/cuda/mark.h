// A point in the order of a CUDA device's stream: whether it was reached, who waits for it, and the time between two.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "../core/storage.h"
#include "../core/stream.h"
#include "memory.h"

namespace gradus::cuda {

class Mark {
 public:
  // `isTimed`: with a time stamp, which costs the device a little.
  Mark(const Place& place, bool isTimed) : place_(place), isTimed_(isTimed) {}
  ~Mark();
  Mark(const Mark&) = delete;

  // On the executor: behind what the stream has by now.
  void record(CudaStream stream);
  // Any thread, once: everything before it has run, or never will, because the device is lost.
  void reach(std::shared_ptr<const Failure> failure);
  // Any thread: completes when it is reached.
  void wait(Completion* completion);
  // `failure`: why it never will be, if so.
  bool isReached(std::shared_ptr<const Failure>* failure);
  bool isTimed() const { return isTimed_; }
  // Milliseconds from this one to a later one of the same device; both are timed and reached.
  double until(const Mark& later) const;

 private:
  const Place place_;
  const bool isTimed_;
  Event event_ = nullptr;
  std::mutex mutex_;
  bool reached_ = false;
  std::shared_ptr<const Failure> failure_;
  std::vector<Completion*> waiting_;
};

}  // namespace gradus::cuda
