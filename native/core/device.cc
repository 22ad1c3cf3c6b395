#include "device.h"

#include <atomic>
#include <mutex>

namespace gradus {
namespace {

std::atomic<Device*> open[kDeviceKinds][kMostDevices];
std::mutex opening;

std::string nameOf(DeviceKind kind, int index) {
  if (kind == DeviceKind::kCuda) return "cuda:" + std::to_string(index);
  return index == 0 ? "cpu" : "cpu:" + std::to_string(index);
}

}  // namespace

Device::Device(DeviceKind kind, int index, MemorySource& source, const OpFunction* kernels)
    : kind(kind), index(index), name(nameOf(kind, index)), kernels(kernels), memory(source), stream(*this) {
  if (kind != DeviceKind::kCpu) memory.setPlace(name);
}

void Device::trim() {
  std::lock_guard trimming(trimLock_);
  if (isCapturing) return;
  memory.trim();
  std::lock_guard lock(poolsLock_);
  for (Allocator* pool : pools_) pool->trim();
}

Device& deviceOf(int code) {
  const int kind = code / 256, index = code % 256;
  GRADUS_CHECK(code >= 0 && kind < kDeviceKinds && index < kMostDevices, ErrorCode::kDevice,
               "device: no such device: got code %d, expected an index below %d", code, kMostDevices);
  std::atomic<Device*>& slot = open[kind][index];
  if (Device* device = slot.load(std::memory_order_acquire)) return *device;
  std::lock_guard lock(opening);
  if (Device* device = slot.load(std::memory_order_relaxed)) return *device;
  Device* device = kind == static_cast<int>(DeviceKind::kCpu) ? cpu::openDevice(index) : cuda::openDevice(index);
  slot.store(device, std::memory_order_release);
  return *device;
}

void forEachDevice(const std::function<void(Device&)>& visit) {
  for (auto& kind : open) {
    for (auto& slot : kind) {
      if (Device* device = slot.load(std::memory_order_acquire)) visit(*device);
    }
  }
}

}  // namespace gradus
