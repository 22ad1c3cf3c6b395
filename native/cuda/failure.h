// Which operation a failure found by a kernel belongs to.
#pragma once

#include <atomic>
#include <mutex>

#include "../core/storage.h"
#include "kernels/failure_word.h"

namespace gradus::cuda {

class FailureLog {
 public:
  // The number of an operation that may fail late.
  unsigned begin(const char* name);
  // The error of a word that was read, or null: none, or reported already.
  std::shared_ptr<const Failure> read(const FailureWord& word);
  // Whether a word was read that is set still: true once for each.
  bool takeClearing() { return clear_.load(std::memory_order_relaxed) && clear_.exchange(false); }

 private:
  static constexpr unsigned kRemembered = 4096;  // operations between a failure and the wait that finds it
  std::mutex mutex_;
  const char* names_[kRemembered] = {};
  unsigned last_ = 0, reported_ = 0;
  std::atomic<bool> clear_{false};
};

}  // namespace gradus::cuda
