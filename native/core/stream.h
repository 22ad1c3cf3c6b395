// The in-order stream of a CPU device: one executor thread that runs queued commands.
//
// Producers (one JavaScript thread an environment) write commands into a byte ring and return at once. Everything that
// allocates, frees or touches tensor memory happens on the executor, in queue order, so peak memory equals that of
// synchronous execution and no tensor needs counting while it is queued. The ring also bounds run-ahead: a producer
// that is a whole ring ahead waits for room.
//
// While the executor has nothing to do, a producer runs small pointwise operations itself: they take less time than the
// cache lines of a command on their way to another core and back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "backend.h"
#include "storage.h"

namespace gradus {

// What an environment (a JavaScript thread) and the executor share.
struct Account {
  std::atomic<bool> cancelled{false};         // set when the environment goes: its queued kernels are skipped
  std::shared_ptr<const Failure> unreported;  // guarded by mutex
  std::mutex mutex;
};

// Something a producer waits for. `done` runs on the executor; the object must stay alive until it has run.
class Completion {
 public:
  virtual void done(std::shared_ptr<const Failure> failure) noexcept = 0;

 protected:
  ~Completion() = default;
};

// What an output of an operation is.
enum class Output : uint8_t {
  kNew,
  kExisting,  // overwritten in place; as it was if the operation fails: a late error changes no weight
  kGradient,  // the same, but it fails with the operation: a sum that lacks a part must not be taken for a gradient
};

class Stream {
 public:
  static Stream& cpu();  // one a process, never destroyed

  // Operands are owned by their handle tables.
  void run(Account* account, int op, uint32_t context, Tensor* const* in, int nIn, Tensor* const* out,
           const Output* kinds, int nOut, const double* attr, int nAttr);
  void release(Tensor* const* tensors, size_t count);
  // Copies the tensor's elements in row-major order to `target`, then completes.
  void read(Account* account, Tensor* tensor, void* target, Completion* completion);
  // Writes to the allocator's log, when its time comes, what a tensor is (or, without one, what begins).
  void note(Tensor* tensor, uint32_t what);
  // Completes when everything queued before has run.
  void fence(Account* account, Completion* completion);

 private:
  enum class Kind : uint8_t { kPad, kRun, kRelease, kRead, kNote, kFence };
  struct Header {
    uint32_t bytes;
    Kind kind;
    uint16_t op;
    uint16_t nIn, nOut, nAttr;
    uint32_t context;
    Account* account;
  };

  Stream();
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
  static bool isRefilled(const Call& call, int i);
  static void perform(const Call& call, Views& views, bool onExecutor);
  void executeRead(const Header& header, const char* body);

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
