// How something ended that one thread does and another waits for.
#pragma once

#include <atomic>
#include <memory>

#include "storage.h"

namespace gradus {

class Outcome {
 public:
  // Once; null: it went well.
  void tell(std::shared_ptr<const Failure> failure) {
    failure_ = std::move(failure);
    isTold_.store(true, std::memory_order_release);
    isTold_.notify_all();
  }
  bool isTold() const { return isTold_.load(std::memory_order_acquire); }
  const std::shared_ptr<const Failure>& wait() const {
    isTold_.wait(false, std::memory_order_acquire);
    return failure_;
  }

 private:
  std::atomic<bool> isTold_{false};
  std::shared_ptr<const Failure> failure_;
};

// Both ends hold it: notify_all may still touch it when who waits has what it wants.
using SharedOutcome = std::shared_ptr<Outcome>;

}  // namespace gradus
