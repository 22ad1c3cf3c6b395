// The in-order stream of a device: one executor thread that runs queued commands.
//
// Producers (one JavaScript thread an environment) write commands into a byte ring and return at once. Everything that
// allocates, frees or touches tensor memory happens on the executor, in queue order, so peak memory equals that of
// synchronous execution and no tensor needs counting while it is queued. The ring also bounds run-ahead: a producer
// that is a whole ring ahead waits for room.
//
// While the executor of a CPU device has nothing to do, a producer runs small pointwise operations itself: they take
// less time than the cache lines of a command on their way to another core and back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.h"
#include "storage.h"

namespace gradus {

class Device;
class Meeting;
class Parcel;
struct Ran;

// What an environment (a JavaScript thread) and the executors share.
class Account {
 public:
  std::atomic<bool> cancelled{false};  // set when the environment goes: its queued kernels are skipped

  // A failure that nobody has read. Only the first on each device is kept.
  void note(const Device& device, std::shared_ptr<const Failure> failure);
  // For a wait for a device: what it reports.
  std::shared_ptr<const Failure> take(const Device& device);
  // For a read of a tensor there, which failed itself or did not: what it reports. That may have happened on another
  // device, on which the tensor does not depend: it would else be lost to a loop that reads nothing else.
  std::shared_ptr<const Failure> takeFor(const Device& device, std::shared_ptr<const Failure> failure);
  // How often somebody has heard of a failure.
  uint64_t reports() const { return reports_.load(std::memory_order_relaxed); }

 private:
  struct Noted {
    const Device* device;
    std::shared_ptr<const Failure> failure;
  };
  std::mutex mutex_;
  std::vector<Noted> unreported_;  // as they came
  std::atomic<uint64_t> reports_{0};
};

// Something a producer waits for. `done` runs on a thread of the device; the object must stay alive until it has run.
class Completion {
 public:
  virtual void done(std::shared_ptr<const Failure> failure) noexcept = 0;

 protected:
  ~Completion() = default;
};

// While an exception is handled: what it says.
std::shared_ptr<const Failure> describeCurrentException(uint32_t context);

// What an output of an operation is.
enum class Output : uint8_t {
  kNew,
  kExisting,  // overwritten in place; as it was if the operation fails: a late error changes no weight (where a kernel
              // cannot look for that error, the output fails with it)
  kGradient,  // the same, but it fails with the operation: a sum that lacks a part must not be taken for a gradient
};

class Stream {
 public:
  explicit Stream(Device& device);

  // Operands are owned by their handle tables.
  void run(Account* account, int op, uint32_t context, Tensor* const* in, int nIn, Tensor* const* out,
           const Output* kinds, int nOut, const double* attr, int nAttr);
  void release(Tensor* const* tensors, size_t count);
  // Copies the tensor's elements in row-major order to `target`, then completes.
  void read(Account* account, Tensor* tensor, void* target, Completion* completion);
  // The same for readers that nobody listens to: what failed elsewhere is left to the next wait.
  void peek(Account* account, Tensor* tensor, void* target, Completion* completion);
  // Copies the tensor's elements in row-major order into a parcel, which goes to another device.
  void send(Account* account, Tensor* tensor, std::shared_ptr<Parcel> parcel);
  // Makes a parcel the contents of a new, contiguous tensor.
  void receive(Account* account, Tensor* tensor, std::shared_ptr<Parcel> parcel);
  // One member of an operation of several devices.
  void meet(std::unique_ptr<std::shared_ptr<Meeting>> meeting, size_t member) noexcept;
  // Writes to the allocator's log, when its time comes, what a tensor is (or, without one, what begins).
  void note(Tensor* tensor, uint32_t what);
  // Completes when everything queued before has run, with the first failure on this device that nobody has read.
  void fence(Account* account, Completion* completion);
  // The same without: whatever failed is left to the next wait.
  void pass(Account* account, Completion* completion);
  // Runs a function, which must not throw, on the executor in its order.
  void call(std::function<void()> function);

 private:
  enum class Kind : uint8_t { kPad, kRun, kRelease, kRead, kSend, kReceive, kNote, kFence, kPass, kPeek, kCall, kMeet };
  struct Header {
    uint32_t bytes;
    Kind kind;
    uint16_t op;
    uint16_t nIn, nOut, nAttr;
    uint32_t context;
    Account* account;
  };

  // Everything queued has run; for a holder of producer_ it stays so. What the executor wrote is visible.
  bool isIdle() const {
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    return tail > 0 &&
           head_.load(std::memory_order_acquire) == tail;  // the executor loads the backend, not a guest's thread
  }
  char* reserve(size_t bytes);  // holds producer_; publish() lets go
  void publish(size_t bytes);
  void loop();
  void execute(const Header& header, const char* body);
  void executeRun(const Header& header, const char* body);
  struct Call {
    Account* account;
    int op;
    uint32_t context;
    Tensor *const *in, *const *out;
    const Output* kinds;
    const double* attr;
    int nIn, nOut, nAttr;
  };
  struct Views {
    std::vector<TensorView> in, out;
  };
  static bool isFill(const Call& call);
  static bool isWhole(const Tensor& tensor);
  static bool isOverwritten(const Call& call, int i);
  void prepare(Storage& storage);
  Ran invoke(int op, const OpCall& call, bool onExecutor);
  std::shared_ptr<const Failure> failureOf(Storage& storage, Account& account, bool onExecutor);
  void perform(const Call& call, Views& views, bool onExecutor);
  template <class... Parts>
  void queue(Kind kind, Account* account, uint32_t context, Parts... parts);
  void copyOut(Account* account, uint32_t context, Tensor* tensor, void* target,
               std::function<void(std::shared_ptr<const Failure>)> then);
  void executeSend(const Header& header, Tensor* tensor, const std::shared_ptr<Parcel>& parcel);
  void executeReceive(Account* account, Tensor* tensor, const std::shared_ptr<Parcel>& parcel);
  void executeMeet(Meeting& meeting, size_t member);
  void executePass(Account* account, Completion* completion);

  Device& device_;
  static constexpr size_t kRing = 1 << 20;
  std::unique_ptr<char[]> ring_;
  std::mutex producer_;
  alignas(64) std::atomic<uint64_t> head_{0};  // consumed up to here
  alignas(64) std::atomic<uint64_t> tail_{0};  // published up to here
  alignas(64) std::atomic<bool> sleeping_{false};
  std::atomic<bool> full_{false};
  std::mutex sleep_;
  std::condition_variable wake_, room_;
  Views views_;       // the executor's own, reused
  Views smallViews_;  // of whoever holds producer_, like the next
  // The last operation ran on a producer's thread: then what is released is likely to lie in its core's cache.
  bool performed_ = false;
};

}  // namespace gradus
