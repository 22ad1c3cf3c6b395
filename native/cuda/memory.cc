#include "memory.h"

#include <cstdlib>
#include <cstring>

namespace gradus::cuda {

void makeCurrent(const Place& place) {
  static thread_local Context current = nullptr;
  callsConcern(place.index);
  if (current == place.context) return;
  check(driver().ctxSetCurrent(place.context), "cuCtxSetCurrent");
  current = place.context;
}

std::mutex& launchesTogether() {
  static auto* const mutex = new std::mutex;  // never freed: threads of devices outlive static objects
  return *mutex;
}

DeviceMemory::DeviceMemory(const Place& place, CudaStream stream, uint64_t limit)
    : place_(place), stream_(stream), limit_(limit) {
  const char* plain = std::getenv("GRADUS_NO_CUDA_MEMORY_CACHING");
  keeps_ = plain == nullptr || std::strcmp(plain, "0") == 0 || *plain == 0;
}

void* DeviceMemory::take(size_t bytes) {
  const Visit visit(place_);
  Address address = 0;
  const auto ask = [&] {
    const std::lock_guard lock(launchesTogether());
    return driver().memAlloc(&address, bytes);
  };
  Result result = ask();
  if (result == kOutOfMemory && reclaim && reclaim()) result = ask();
  if (result == kOutOfMemory) return nullptr;
  check(result, "cuMemAlloc");
  return reinterpret_cast<void*>(address);
}

std::pair<uint64_t, uint64_t> DeviceMemory::freeAndTotal() const {
  const Visit visit(place_);
  size_t free = 0, total = 0;
  check(driver().memGetInfo(&free, &total), "cuMemGetInfo");
  return {free, total};
}

bool DeviceMemory::holds() const {
  std::lock_guard lock(mutex_);
  return holds_;
}

void DeviceMemory::hold() noexcept {
  std::lock_guard lock(mutex_);
  holds_ = true;
}

void DeviceMemory::letGo() noexcept {
  std::vector<void*> held;
  {
    std::lock_guard lock(mutex_);
    holds_ = false;
    held.swap(held_);
  }
  for (void* base : held) give(base, 0);
}

void DeviceMemory::give(void* base, size_t) noexcept {
  {
    std::lock_guard lock(mutex_);
    if (holds_) return held_.push_back(base);
  }
  // A context that is lost has lost its memory, too: there is nobody to tell.
  try {
    const Visit visit(place_);
    driver().streamSynchronize(stream_);
    const std::lock_guard lock(launchesTogether());
    driver().memFree(reinterpret_cast<Address>(base));
  } catch (const Error&) {
  }
}

void* PinnedMemory::take(size_t bytes) {
  const Visit visit(place_);
  void* address = nullptr;
  const std::lock_guard lock(launchesTogether());
  const Result result = driver().memAllocHost(&address, bytes);
  if (result == kOutOfMemory) return nullptr;
  check(result, "cuMemAllocHost");
  return address;
}

void PinnedMemory::give(void* base, size_t) noexcept {
  try {
    const Visit visit(place_);
    const std::lock_guard lock(launchesTogether());
    driver().memFreeHost(base);
  } catch (const Error&) {
  }
}

}  // namespace gradus::cuda
