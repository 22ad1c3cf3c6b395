// Failures that kernels find in their data: which operation they belong to, and what depends on it.
//
// Operations that may fail late are numbered. A tensor carries the highest number on the way to it
// (Storage::lateFailure). Between a failure and its discovery the device leaves the targets of updates in place alone,
// and whatever was computed from numbers in that span may be wrong: it counts as failed with it.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <vector>

#include "../core/storage.h"
#include "kernels/failure_word.h"

namespace gradus::cuda {

// Numbers of the operations of a graph: it reports them again at every replay.
struct FailureRange {
  unsigned first = 1, last = 0;
};

class FailureLog {
 public:
  // The number of an operation that may fail late; `limits` are what its error tells.
  unsigned begin(const char* name, int64_t a, int64_t b, int64_t c);
  // The number of the last one.
  unsigned last() const { return last_; }
  // What a wait is told that read the word, and a tensor with `number` on the way to it (0: none): the first wait that
  // sees a failure hears of it, and all that concern tensors behind it. `asOf`: the last number when it was queued.
  std::shared_ptr<const Failure> read(const FailureWord& word, unsigned number, unsigned asOf);
  // What failed on the way to a tensor with this number, as far as is known by now.
  std::shared_ptr<const Failure> find(unsigned number);
  // On the executor: whether a word was read that is set still. True once for each; what is numbered from now on runs
  // behind its being cleared.
  bool takeClearing();
  // On the executor: what the word counts its clearing by.
  unsigned clears() const { return clears_; }
  // A graph was captured, and is replayed: what its last replay left undone is done anew.
  void isOfGraph(FailureRange numbers);
  void replays(FailureRange numbers);

 private:
  struct Operation {
    const char* name;
    int64_t limits[3];
  };
  struct GraphOperations {
    FailureRange numbers;
    std::vector<Operation> operations;
  };
  const Operation* operationOf(unsigned serial) const;
  struct Span {  // numbers [first, last]: behind the failure, and before it was cleared
    unsigned first, last;
    std::shared_ptr<const Failure> failure;
  };
  std::shared_ptr<const Failure> findLocked(unsigned number) const;
  void addSpan(Span span);
  std::shared_ptr<const Failure> describe(const FailureWord& word) const;

  static constexpr unsigned kRemembered = 4096;  // operations between a failure and the wait that finds it
  static constexpr size_t kSpans = 64;
  std::mutex mutex_;
  Operation operations_[kRemembered] = {};
  std::atomic<unsigned> last_{0};
  unsigned reported_ = 0, reportedClears_ = 0, clears_ = 0;
  unsigned clean_ = 0;  // operations up to this number found nothing
  std::vector<GraphOperations> graphs_;
  std::deque<Span> spans_;
  std::atomic<bool> clear_{false};
};

}  // namespace gradus::cuda
