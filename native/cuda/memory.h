// Where a CUDA device's allocators get their segments: the device's own memory, and pinned memory of the host.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "../core/memory_source.h"
#include "driver.h"

namespace gradus::cuda {

// A device and its primary context.
struct Place {
  Context context = nullptr;
  int index = -1;
};

// Segments are given back when the stream has passed everything, because kernels that are queued may still use what
// their tensors' release has freed.
class DeviceMemory final : public MemorySource {
 public:
  DeviceMemory(const Place& place, CudaStream stream, uint64_t limit);
  void* take(size_t bytes) override;
  void give(void* base, size_t bytes) noexcept override;
  uint64_t limit() override { return limit_; }
  // Bytes that the driver could still give, to whoever asks, and all of the device.
  std::pair<uint64_t, uint64_t> freeAndTotal() const;
  bool holds() const override;
  bool addressable() const override { return false; }
  // GRADUS_NO_CUDA_MEMORY_CACHING=1: compute-sanitizer sees every allocation.
  bool keeps() const override { return keeps_; }
  // Until letGo() segments that come back are kept: a captured graph may use them, and while one is being captured
  // nobody may wait for the stream.
  void hold() noexcept;
  void letGo() noexcept;
  // Called when the driver has no more, before that is said: gives up what can be, and whether there was anything.
  std::function<bool()> reclaim;

 private:
  const Place place_;
  CudaStream stream_;
  uint64_t limit_;
  bool keeps_;
  mutable std::mutex mutex_;
  bool holds_ = false;
  std::vector<void*> held_;
};

class PinnedMemory final : public MemorySource {
 public:
  explicit PinnedMemory(const Place& place) : place_(place) {}
  void* take(size_t bytes) override;
  void give(void* base, size_t bytes) noexcept override;
  uint64_t limit() override { return hostMemory().limit(); }

 private:
  const Place place_;
};

// Held for launches of kernels on several devices that wait for each other, and for calls that take or give memory: one
// of those may wait for a device, and between two such launches what it waits for would never come.
std::mutex& launchesTogether();

// Where a thread of ours is from here on.
void makeCurrent(const Place& place);

// For calls that may come from somebody else's thread, such as JavaScript's: the context that was current there, of
// another library perhaps, is so again afterwards.
class Visit {
 public:
  explicit Visit(const Place& place) {
    check(driver().ctxPushCurrent(place.context), "cuCtxPushCurrent");
    before_ = callsConcern(place.index);
  }
  ~Visit() {
    Context visited = nullptr;
    driver().ctxPopCurrent(&visited);
    callsConcern(before_);
  }
  Visit(const Visit&) = delete;

 private:
  int before_ = -1;
};

}  // namespace gradus::cuda
