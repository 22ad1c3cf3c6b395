// The elements of a tensor on their way to a device, contiguous in host memory of that device's choice.
//
// Who fills it is the source's executor in its order, or the JavaScript thread; the target's executor waits for it in
// its own. Sending is queued before receiving, so executors only wait for what was queued before: they cannot wait in a
// circle. What goes from one CUDA device to another needs none (cuda/peer.h).
#pragma once

#include <memory>
#include <utility>

#include "device.h"
#include "outcome.h"

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

  void fill(std::shared_ptr<const Failure> failure) { filling_.tell(std::move(failure)); }
  bool isFilled() const { return filling_.isTold(); }
  // Of filling it.
  const std::shared_ptr<const Failure>& wait() const { return filling_.wait(); }

 private:
  Device& to_;
  size_t bytes_;
  Allocation memory_;
  Outcome filling_;
};

// Both ends hold it, as with any outcome.
using SharedParcel = std::shared_ptr<Parcel>;

}  // namespace gradus
