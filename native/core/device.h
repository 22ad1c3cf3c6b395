// A device: memory of its own, the kernels that run on it, and the stream that keeps them in order.
//
// What a backend does in its own way is the few virtual functions below. They run on the device's executor, in stream
// order; a device that works asynchronously may be done with them later.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "allocator.h"
#include "backend.h"
#include "storage.h"
#include "stream.h"

namespace gradus {

enum class DeviceKind : uint8_t { kCpu = 0, kCuda = 1 };
constexpr int kDeviceKinds = 2;
constexpr int kMostDevices = 16;  // of a kind

// Called once, on any thread, with what went wrong on the device by then, if anything.
using Then = std::function<void(std::shared_ptr<const Failure>)>;

class Parcel;

// What is known of a kernel when it was launched.
struct Ran {
  uint32_t number = 0;        // where it may turn out later that it failed; numbers grow
  bool leavesTargets = true;  // existing ones, if it or anything before it did fail
};

class Device {
 public:
  Device(DeviceKind kind, int index, MemorySource& source, const OpFunction* kernels);

  const DeviceKind kind;
  const int index;
  const std::string name;           // what JavaScript calls it: cpu, cpu:1, cuda:0
  const OpFunction* const kernels;  // kNumOps of them
  Allocator memory;

  // Where what the executor makes gets its memory: `memory`, or the pool of a graph that is being captured.
  Allocator& arena() { return *arena_; }
  // Of `memory` and the pools of graphs.
  MemoryStats stats() { return memory.stats(); }
  void trim();

  // Runs a kernel.
  virtual Ran run(int op, const OpCall& call) = 0;
  // What is known to have failed late on the way to a tensor with this number, before the next kernel runs.
  virtual std::shared_ptr<const Failure> lateFailure(uint32_t number) { return nullptr; }
  // Whether a replay of a graph makes what has this number anew: then its failure is not for good.
  virtual bool isMadeAnew(uint32_t number) { return false; }
  // The number of what is computed now from a tensor with this one.
  virtual uint32_t carried(uint32_t number) { return number; }
  // Called before operands are looked at: what has failed late by now is settled.
  virtual void settle() {}
  // Copies `bytes` from this device's memory to the host's, of a tensor with this number.
  virtual void read(const void* from, void* to, size_t bytes, uint32_t number, Then then) = 0;
  // Gives a new storage the contents of a parcel that has come.
  virtual void unpack(const std::shared_ptr<Parcel>& parcel, Storage& storage) = 0;
  // Calls `then` when everything so far has run.
  virtual void passed(Then then) = 0;
  // What comes after waits for the copy that brings a storage's contents.
  virtual void await(Storage& storage) noexcept { storage.arrival = nullptr; }

  // While a graph is captured: sees every storage that an operation reads or writes, and refuses the operations of
  // other environments by throwing.
  struct Recorder {
    virtual void check(const Account* account) = 0;
    virtual void uses(Storage& storage) = 0;
    virtual void failed(const std::shared_ptr<const Failure>& failure) = 0;  // an operation, which is missing now

   protected:
    ~Recorder() = default;
  };
  Recorder* recorder = nullptr;  // the executor's
  // From when a thread of JavaScript asks for a capture until it has it: what would wait for the device is refused.
  std::atomic<bool> isCapturing{false};

  // Any thread: host memory from which this device reads at its full speed, and its return.
  virtual Allocation stage(size_t bytes, uint32_t context) = 0;
  virtual void unstage(const Allocation& memory) noexcept = 0;

 protected:
  ~Device() = default;          // devices stay until the process ends
  Allocator* arena_ = &memory;  // set by the executor
  std::mutex trimLock_;         // held while memory goes back, and while a capture begins
  std::mutex poolsLock_;
  std::vector<Allocator*> pools_;

 public:
  Stream stream;  // the last member: its thread uses the others
};

// The device of a code, 256 * kind + index, which is opened when it is first asked for. Throws Error(kDevice) where
// there is none.
Device& deviceOf(int code);
inline int codeOf(const Device& device) { return 256 * static_cast<int>(device.kind) + device.index; }
// Those that are open.
void forEachDevice(const std::function<void(Device&)>& visit);

namespace cpu {
Device* openDevice(int index);
}
namespace cuda {
Device* openDevice(int index);
}

}  // namespace gradus
