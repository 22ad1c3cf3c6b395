#include "failure.h"

#include <algorithm>
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

const FailureLog::Operation* FailureLog::operationOf(unsigned serial) const {
  for (const GraphOperations& graph : graphs_) {
    const unsigned i = serial - graph.numbers.first;
    if (i < graph.operations.size()) return &graph.operations[i];
  }
  return last_ - serial < kRemembered ? &operations_[serial % kRemembered] : nullptr;
}

std::shared_ptr<const Failure> FailureLog::describe(const FailureWord& word) const {
  const Operation* operation = operationOf(word.serial);
  if (operation == nullptr) {
    const auto text = "cuda: an operation found something wrong in its data: got one that is too long ago to be named";
    return std::make_shared<Failure>(Failure{ErrorCode::kState, text, 0});
  }
  const Error error = errorOf(operation->name, operation->limits, word);
  return std::make_shared<Failure>(Failure{error.code(), error.what(), 0});
}

std::shared_ptr<const Failure> FailureLog::read(const FailureWord& word, unsigned number, unsigned asOf) {
  std::lock_guard lock(mutex_);
  if (word.serial == 0) clean_ = std::max(clean_, asOf);
  const bool isReported = word.serial == reported_ && word.clears == reportedClears_;  // not cleared by then
  if (word.serial == 0 || isReported) return findLocked(number);
  reported_ = word.serial;
  reportedClears_ = word.clears;
  clear_.store(true);
  const std::shared_ptr<const Failure> failure = describe(word);
  unsigned first = word.serial;
  for (const auto& [graph, operations] : graphs_) {
    if (word.serial < graph.first || word.serial > graph.last) continue;
    // a replay found it, and nobody knows which of those since the last word that was clean
    Failure passing = *failure;
    passing.passes = true;
    addSpan({word.serial, graph.last, std::make_shared<Failure>(std::move(passing))});
    first = std::max(clean_, graph.last) + 1;
  }
  addSpan({first, std::numeric_limits<unsigned>::max(), failure});
  return failure;
}

void FailureLog::addSpan(Span span) {
  if (spans_.size() == kSpans) spans_.pop_front();
  spans_.push_back(std::move(span));
}

void FailureLog::isOfGraph(FailureRange numbers) {
  std::lock_guard lock(mutex_);
  if (numbers.first > numbers.last) return;
  GraphOperations graph{numbers, {}};
  if (numbers.last - numbers.first < kRemembered) {
    for (unsigned i = numbers.first; i <= numbers.last; ++i) graph.operations.push_back(operations_[i % kRemembered]);
  }
  graphs_.push_back(std::move(graph));
}

void FailureLog::replays(FailureRange numbers) {
  std::lock_guard lock(mutex_);
  std::erase_if(spans_, [&](const Span& span) { return span.first >= numbers.first && span.last <= numbers.last; });
  ++last_;  // what is numbered before it does not depend on it
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
  clean_ = last_;
  ++clears_;
  return true;
}

}  // namespace gradus::cuda
