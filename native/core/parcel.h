// The elements of a tensor on their way to a device, contiguous in host memory of that device's choice.
//
// Who fills it is the source's executor in its order, or the JavaScript thread; the target's executor waits for it in
// its own. Sending is queued before receiving, so executors only wait for what was queued before: they cannot wait in a
// circle.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "device.h"

namespace gradus {

class Parcel {
 public:
  // `context` tags the memory for out-of-memory reports.
  Parcel(Device& to, size_t bytes, uint32_t context) : to_(to), bytes_(bytes), memory_(to.stage(bytes, context)) {}
  ~Parcel() { to_.unstage(memory_); }
  Parcel(const Parcel&) = delete;

  // The device may bring it beside its stream: nothing waits for it but the operations that use it.
  bool isAside = false;

  void* data() const { return memory_.data; }
  size_t bytes() const { return bytes_; }
  Allocation takeMemory() { return std::exchange(memory_, {}); }

  void fill(std::shared_ptr<const Failure> failure) {
    failure_ = std::move(failure);
    filled_.store(true, std::memory_order_release);
    filled_.notify_all();
  }
  bool isFilled() const { return filled_.load(std::memory_order_acquire); }
  // Of filling it.
  const std::shared_ptr<const Failure>& wait() const {
    filled_.wait(false, std::memory_order_acquire);
    return failure_;
  }

 private:
  Device& to_;
  size_t bytes_;
  Allocation memory_;
  std::atomic<bool> filled_{false};
  std::shared_ptr<const Failure> failure_;
};

// Both ends hold it: notify_all may still touch it when the receiver has what it wants.
using SharedParcel = std::shared_ptr<Parcel>;

}  // namespace gradus
