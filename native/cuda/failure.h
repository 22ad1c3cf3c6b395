// Failures that kernels find in their data: which operation they belong to, and what depends on it.
//
// Operations that may fail late are numbered. A tensor carries the highest number on the way to it
// (Storage::lateFailure). Between a failure and its discovery the device leaves the targets of updates in place alone,
// and whatever was computed from numbers in that span may be wrong: it counts as failed with it, for good.
//
// The numbers of a captured graph are its own: a replay makes what carries them anew, and its failure goes with it.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <vector>

#include "../core/storage.h"
#include "kernels/failure_word.h"

namespace gradus::cuda {

// In place of the first number of a slot's: the operation fails with one on another device, whose rank is the place;
// the second number has the devices' indices by rank, 4 bits each.
constexpr int64_t kOfDevices = -1;

// Numbers of the operations of a graph.
struct FailureRange {
  unsigned first = 1, last = 0;
  bool has(unsigned number) const { return first <= number && number <= last; }
};

// The executor numbers operations, captures and replays; the waiter reads what the device found.
class FailureLog {
 public:
  // The number of an operation that may fail late; `limits` are what its error tells.
  unsigned begin(const char* name, int64_t a, int64_t b, int64_t c);
  // On the executor: the module call that what begins from here on belongs to; 0: none.
  void beginContext(uint32_t context) { context_ = context; }
  // The number of the last one.
  unsigned last() const { return last_; }
  // What a wait is told that read the word, and a tensor with `number` on the way to it (0: none): the first wait that
  // sees a failure hears of it, and all that concern tensors behind it. `asOf`: the last number when it was queued.
  std::shared_ptr<const Failure> read(const FailureWord& word, unsigned number, unsigned asOf);
  // What has this number fails with what was found elsewhere, and so does what is numbered from there until the word is
  // cleared. `clears`: clears() when it was numbered. Returns what the word tells of an operation before, the first
  // time that it is seen.
  std::shared_ptr<const Failure> failWith(const FailureWord& word, unsigned number, unsigned clears,
                                          std::shared_ptr<const Failure> failure);
  // Whether it was found elsewhere, where somebody hears of it.
  bool isFromElsewhere(const std::shared_ptr<const Failure>& failure);
  // What failed on the way to a tensor with this number, as far as is known by now.
  std::shared_ptr<const Failure> find(unsigned number);
  // On the executor: whether a word was read that is set still. True once for each; what is numbered from now on runs
  // behind its being cleared.
  bool takeClearing();
  // On the executor: what the word counts its clearing by.
  unsigned clears() const { return clears_; }

  // On the executor. Numbers from here on are those of a graph, which endGraph() tells.
  void beginGraph();
  FailureRange endGraph();
  // It is launched again: what its last replay left undone is done anew. Whether the word has to be cleared first.
  bool replay(FailureRange numbers);
  // It could not be: what it would have made is not there.
  void missReplay(FailureRange numbers, std::shared_ptr<const Failure> failure);
  void closeGraph(FailureRange numbers);
  // On the executor: whether it is a graph's.
  bool isOfGraph(unsigned number) const;
  // On the executor: the number that says what a tensor with this one says, for what is computed from it now.
  unsigned carried(unsigned number) const;

 private:
  struct Operation {
    const char* name;
    int64_t limits[3];
    uint32_t context;
  };
  struct Undone {
    unsigned first = 0;  // what carries a number of the graph from this one on
    std::shared_ptr<const Failure> failure;
  };
  struct GraphEntry {
    FailureRange numbers;
    std::vector<Operation> operations;
    unsigned firstReplay = 0, lastReplay = 0;  // numbers of its replays since a word that was clean
    Undone undone, reported;                   // now; and when the last failure was reported
    bool isClosed = false;
  };
  struct Span {  // numbers [first, last]: behind the failure, and before it was cleared
    unsigned first, last;
    std::shared_ptr<const Failure> failure;
    bool isFromElsewhere = false;
  };
  const GraphEntry* graphOf(unsigned number) const;
  GraphEntry* entryOf(FailureRange numbers);
  const Operation* operationOf(unsigned serial) const;
  std::shared_ptr<const Failure> findLocked(unsigned number) const;
  std::shared_ptr<const Failure> describe(const FailureWord& word) const;
  // Whether it was, and is not cleared.
  bool isReported(const FailureWord& word) const { return word.serial == reported_ && word.clears == reportedClears_; }
  void openSpan(unsigned serial, unsigned clears, std::shared_ptr<const Failure> failure);
  bool takeClearingLocked();

  static constexpr unsigned kRemembered = 4096;  // operations between a failure and the wait that finds it
  static constexpr size_t kNamedSpans = 1024;    // older ones keep their numbers only
  uint32_t context_ = 0;
  std::mutex mutex_;
  Operation operations_[kRemembered] = {};
  std::atomic<unsigned> last_{0};
  unsigned reported_ = 0, reportedClears_ = 0, clears_ = 0;
  unsigned clean_ = 0;             // operations up to this number found nothing, or what they found was cleared
  unsigned captured_ = 0;          // the first number of the graph that is being captured; 0: none is
  std::deque<Span> spans_;         // in the order of their numbers; the last one is open until it is cleared
  std::deque<GraphEntry> graphs_;  // in the order of their numbers; changed by the executor
  std::atomic<bool> clear_{false};
};

}  // namespace gradus::cuda
