#include "failure.h"

#include <bit>
#include <limits>

#include "../core/data_errors.h"

namespace gradus::cuda {
namespace {

// Limits a, b and c of an operation, by what it may find:
//   an index      a: of indices
//   a target      a: classes, b: ignoreIndex
//   a weight      a: weights of a row, b: samples
//   a length      a: tokens of the queries, b: of the keys, c: sequences
Error errorOf(const char* op, const int64_t (&limits)[3], const FailureWord& word) {
  const auto place = static_cast<int64_t>(~word.order);
  const auto [a, b, c] = limits;
  const int64_t row = place / (a + 2);
  const int64_t offset = place % (c + 2);
  const bool ofKeys = place >= c + 2;
  const char* offsets = ofKeys ? "cuSeqlensK" : "cuSeqlensQ";
  switch (word.kind) {
    case kTargetOutOfRange:
      return targetOutOfRange(op, word.value, place, a, b);
    case kDivisionByZero:
      return divisionByZero(op);
    case kUnusableWeight:
      return unusableWeight(std::bit_cast<double>(word.value), row, place % (a + 2));
    case kUnusableSum:
      return unusableWeights(std::bit_cast<double>(word.value), row);
    case kTooFewWeights:
      return tooFewWeights(word.value, b);
    case kNotCumulative:
      return notCumulative(op, offsets, word.value, offset, ofKeys ? b : a);
    case kNotAddingUp:
      return notAddingUp(op, offsets, word.value, ofKeys ? b : a);
    case kLengthOutOfRange:
      return lengthOutOfRange(op, word.value, place, b);
    default:
      return indexOutOfRange(op, word.value, place, a);
  }
}

}  // namespace

unsigned FailureLog::begin(const char* name, int64_t a, int64_t b, int64_t c) {
  std::lock_guard lock(mutex_);
  if (++last_ == 0) ++last_;
  operations_[last_ % kRemembered] = {name, {a, b, c}};
  return last_;
}

std::shared_ptr<const Failure> FailureLog::describe(const FailureWord& word) const {
  if (last_ - word.serial >= kRemembered) {
    const auto text = "cuda: an operation found something wrong in its data: got one that is too long ago to be named";
    return std::make_shared<Failure>(Failure{ErrorCode::kState, text, 0});
  }
  const Operation& operation = operations_[word.serial % kRemembered];
  const Error error = errorOf(operation.name, operation.limits, word);
  return std::make_shared<Failure>(Failure{error.code(), error.what(), 0});
}

std::shared_ptr<const Failure> FailureLog::read(const FailureWord& word, unsigned number) {
  std::lock_guard lock(mutex_);
  if (word.serial == 0 || word.serial == reported_) return findLocked(number);  // reported: not cleared by then
  reported_ = word.serial;
  clear_.store(true);
  if (spans_.size() == kSpans) spans_.pop_front();
  spans_.push_back({word.serial, std::numeric_limits<unsigned>::max(), describe(word)});
  return spans_.back().failure;
}

std::shared_ptr<const Failure> FailureLog::find(unsigned number) {
  std::lock_guard lock(mutex_);
  return findLocked(number);
}

std::shared_ptr<const Failure> FailureLog::findLocked(unsigned number) const {
  if (number == 0) return nullptr;
  for (const Span& span : spans_) {
    if (span.first <= number && number <= span.last) return span.failure;
  }
  return nullptr;
}

bool FailureLog::takeClearing() {
  if (!clear_.load(std::memory_order_relaxed)) return false;
  std::lock_guard lock(mutex_);
  clear_.store(false);
  spans_.back().last = last_++;
  return true;
}

}  // namespace gradus::cuda
