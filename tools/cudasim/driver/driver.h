// The state of the process: cards, handles, queue, findings. One lock guards it all; kernels run under it, host
// functions do not.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <optional>

#include "history.h"
#include "objects.h"
#include "report.h"
#include "scheduler.h"
#include "settings.h"

namespace cudasim::driver {

struct KernelCount {
  uint64_t launches = 0;
  uint64_t threadsPerBlock = 0, dynamicSharedBytes = 0;  // the most of any launch
  Counters counters;
};

// What the program asked for, whatever it led to: a graph is one.
struct SubmittedCount {
  uint64_t kernels = 0, tasks = 0, copies = 0, sets = 0, graphs = 0;
  uint64_t hostBytes = 0;   // of the copies: from or to the host
  uint64_t peerCopies = 0;  // of the copies: those between devices
};

class Driver {
 public:
  static Driver& get();  // never destroyed: threads of the program may outlive static objects

  std::mutex mutex;
  Settings settings;
  Report report;
  Scheduler scheduler{mutex};
  History history;
  Clock host;  // what the program has waited for
  std::vector<std::unique_ptr<Gpu>> gpus;
  std::map<uint64_t, HostBlock> hostBlocks;    // pinned memory, by address
  std::map<std::string, KernelCount> kernels;  // by name
  SubmittedCount submitted;
  std::vector<std::shared_ptr<Capture>> captures;  // that have begun and not ended
  uint64_t nextId = 1;                             // of contexts, streams, captures, blocks
  bool isInitialized = false;
  pid_t process = 0;  // that called cuInit

  void initialize();
  void applySettings();  // after a change
  Gpu& gpu(abi::CUdevice ordinal);
  Gpu* owner(uint64_t address);                                         // of a device address; null for others
  std::map<uint64_t, HostBlock>::iterator hostBlock(uint64_t address);  // that holds the address, or end()
  Block* block(uint64_t address);                                       // that begins there; null

  // Handles are numbers in a range without memory, never given twice.
  uintptr_t publish(const std::shared_ptr<Object>& object);
  void withdraw(Object& object);
  void withdrawAll(const Context& context);  // everything that lives in it
  template <class T, class Handle>
  std::shared_ptr<T> object(Handle handle) {
    const auto found = handles_.find(reinterpret_cast<uintptr_t>(handle));
    std::shared_ptr<T> object = found == handles_.end() ? nullptr : std::dynamic_pointer_cast<T>(found->second);
    require(object != nullptr, abi::CUDA_ERROR_INVALID_HANDLE, "not a handle of this kind, or destroyed");
    return object;
  }
  template <class Handle>
  Handle handle(const std::shared_ptr<Object>& object) {
    return reinterpret_cast<Handle>(object->handle ? object->handle : publish(object));
  }

  // A mistake of the program that a card may let pass: reported, and the call fails.
  [[noreturn]] void misuse(const char* kind, const std::string& text, abi::CUresult code);

  // Waiting. Afterwards the program is ordered after what it waited for.
  void finish(const OpRef& op);
  void finish(Context& context);
  // Runs what a context has queued, without a wait of the program.
  std::vector<OpRef> drain(Context& context);
  void forgetWhenIdle();
  // The status of a query. What is not ready has come one operation nearer.
  abi::CUresult poll(const OpRef& op, Context& context);

 private:
  Driver();
  std::unordered_map<uintptr_t, std::shared_ptr<Object>> handles_;
  uintptr_t nextHandle_ = 0;
};

}  // namespace cudasim::driver
