// CPU devices: executors of their own, on the cores that all of them share.
#include <cstring>
#include <mutex>

#include "parcel.h"

namespace gradus::cpu {
namespace {

// One kernel has all threads of the OpenMP pool at a time. Two at once would wait for each other's threads at every
// barrier.
std::mutex pool;

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int index) : Device(DeviceKind::kCpu, index, hostMemory(), cpuBackend().kernels) {}

  Ran run(int op, const OpCall& call) override {
    std::lock_guard lock(pool);
    cpuBackend().begin();
    kernels[op](call);
    return {};
  }

  void read(const void* from, void* to, size_t bytes, uint32_t, Then then) override {
    std::memcpy(to, from, bytes);
    then(nullptr);
  }

  // The parcel's memory came from this device.
  void unpack(const SharedParcel& parcel, Storage& storage) override { storage.memory = parcel->takeMemory(); }

  void passed(Then then) override { then(nullptr); }

  Allocation stage(size_t bytes, uint32_t context) override { return memory.allocate(bytes, context); }
  void unstage(const Allocation& staged) noexcept override { memory.release(staged); }
};

}  // namespace

Device* openDevice(int index) { return new CpuDevice(index); }

}  // namespace gradus::cpu
