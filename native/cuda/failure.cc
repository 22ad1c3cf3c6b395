#include "failure.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "../core/data_errors.h"

namespace gradus::cuda {
namespace {

Error failedElsewhere(const char* op, int device) {
  return dataError(ErrorCode::kState,
                   "%s: it takes what an operation on another device failed to make: got a failure on cuda:%d, "
                   "expected none; the error of cuda:%d says which",
                   op, device, device);
}

// Limits a, b and c of an operation, by what it may find:
//   an index      a: of indices
//   a target      a: classes, b: ignoreIndex
//   a weight      a: weights of a row, b: samples
//   a length      a: tokens of the queries, b: of the keys, c: sequences
//   a failure on another device     a: kOfDevices, b: the devices by rank
Error errorOf(const char* op, const int64_t (&limits)[3], const FailureWord& word) {
  const auto place = static_cast<int64_t>(~word.order);
  const auto [a, b, c] = limits;
  const int64_t row = place / (a + 2);
  const int64_t offset = place % (c + 2);
  const bool ofKeys = place >= c + 2;
  const char* offsets = ofKeys ? "cuSeqlensK" : "cuSeqlensQ";
  if (a == kOfDevices) return failedElsewhere(op, static_cast<int>(b >> 4 * place & 15));
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
  operations_[last_ % kRemembered] = {name, {a, b, c}, context_};
  return last_;
}

const FailureLog::GraphEntry* FailureLog::graphOf(unsigned number) const {
  const auto behind = std::partition_point(graphs_.begin(), graphs_.end(),
                                           [&](const GraphEntry& graph) { return graph.numbers.first <= number; });
  if (behind == graphs_.begin() || !std::prev(behind)->numbers.has(number)) return nullptr;
  return &*std::prev(behind);
}

FailureLog::GraphEntry* FailureLog::entryOf(FailureRange numbers) {
  if (numbers.first > numbers.last) return nullptr;  // none of its operations fails late
  return const_cast<GraphEntry*>(graphOf(numbers.first));
}

const FailureLog::Operation* FailureLog::operationOf(unsigned serial) const {
  if (const GraphEntry* graph = graphOf(serial)) {
    const unsigned i = serial - graph->numbers.first;
    return i < graph->operations.size() ? &graph->operations[i] : nullptr;
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
  return std::make_shared<Failure>(Failure{error.code(), error.what(), operation->context});
}

std::shared_ptr<const Failure> FailureLog::read(const FailureWord& word, unsigned number, unsigned asOf) {
  std::lock_guard lock(mutex_);
  if (word.serial == 0) {
    clean_ = std::max(clean_, asOf);
    // what its kernels found before that was known when the read was queued
    return graphOf(number) == nullptr ? findLocked(number) : nullptr;
  }
  if (!isReported(word)) {
    std::shared_ptr<const Failure> failure = describe(word);
    openSpan(word.serial, word.clears, failure);
    return failure;
  }
  // By now a replay may have made it anew; that is not what was read.
  const GraphEntry* graph = graphOf(number);
  if (graph == nullptr) return findLocked(number);
  return number >= graph->reported.first ? graph->reported.failure : nullptr;
}

std::shared_ptr<const Failure> FailureLog::failWith(const FailureWord& word, unsigned number, unsigned clears,
                                                    std::shared_ptr<const Failure> failure) {
  std::lock_guard lock(mutex_);
  // What kernels of this device found before would be cleared with it, unread.
  std::shared_ptr<const Failure> own;
  if (word.serial != 0 && word.serial != number && !isReported(word)) {
    own = describe(word);
    openSpan(word.serial, word.clears, own);
  }
  if (findLocked(number) == nullptr) {
    openSpan(number, clears, std::move(failure));
    spans_.back().isFromElsewhere = true;
  }
  return own;
}

bool FailureLog::isFromElsewhere(const std::shared_ptr<const Failure>& failure) {
  std::lock_guard lock(mutex_);
  return std::any_of(spans_.begin(), spans_.end(),
                     [&](const Span& span) { return span.isFromElsewhere && span.failure == failure; });
}

// What the word says is taken for told from here on.
void FailureLog::openSpan(unsigned serial, unsigned clears, std::shared_ptr<const Failure> failure) {
  reported_ = serial;
  reportedClears_ = clears;
  clear_.store(true);
  unsigned first = serial;
  const GraphEntry* culprit = graphOf(serial);
  // Which of its replays it was nobody knows: the first one since a word that was clean, or a later one.
  if (culprit != nullptr) first = std::max(culprit->firstReplay, clean_ + 1);
  for (GraphEntry& graph : graphs_) {
    graph.reported = {};
    if (graph.lastReplay < first) continue;
    const bool isKnown = &graph == culprit && graph.firstReplay == graph.lastReplay;
    graph.undone = graph.reported = {isKnown ? serial : graph.numbers.first, failure};
  }
  spans_.push_back({first, std::numeric_limits<unsigned>::max(), std::move(failure)});
  if (spans_.size() > kNamedSpans) {
    static const auto unnamed = std::make_shared<const Failure>(
        Failure{ErrorCode::kState, "cuda: a tensor depends on an operation that failed too long ago to be named", 0});
    spans_[spans_.size() - kNamedSpans - 1].failure = unnamed;
  }
}

std::shared_ptr<const Failure> FailureLog::find(unsigned number) {
  std::lock_guard lock(mutex_);
  return findLocked(number);
}

std::shared_ptr<const Failure> FailureLog::findLocked(unsigned number) const {
  if (number == 0 || (captured_ != 0 && number >= captured_)) return nullptr;  // nothing that is captured has run
  if (const GraphEntry* graph = graphOf(number)) return number >= graph->undone.first ? graph->undone.failure : nullptr;
  const auto behind =
      std::partition_point(spans_.begin(), spans_.end(), [&](const Span& span) { return span.first <= number; });
  return behind != spans_.begin() && number <= std::prev(behind)->last ? std::prev(behind)->failure : nullptr;
}

bool FailureLog::takeClearing() {
  if (!clear_.load(std::memory_order_relaxed)) return false;
  std::lock_guard lock(mutex_);
  return takeClearingLocked();
}

bool FailureLog::takeClearingLocked() {
  if (!clear_.exchange(false)) return false;
  spans_.back().last = last_++;
  clean_ = last_;
  ++clears_;
  return true;
}

// --- graphs ---------------------------------------------------------------------------------------------------------

void FailureLog::beginGraph() {
  std::lock_guard lock(mutex_);
  captured_ = last_ + 1;
  // What a closed one made may still be there; but where no span goes around its numbers, they need no entry.
  std::erase_if(graphs_, [this](const GraphEntry& graph) {
    const auto& [first, last] = graph.numbers;
    if (!graph.isClosed || graph.undone.failure || last > clean_ || graph.lastReplay > clean_) return false;
    return std::none_of(spans_.begin(), spans_.end(),
                        [&](const Span& span) { return span.first <= last && span.last >= first; });
  });
}

FailureRange FailureLog::endGraph() {
  std::lock_guard lock(mutex_);
  const FailureRange numbers{std::exchange(captured_, 0), last_};
  if (numbers.first > numbers.last) return numbers;
  GraphEntry& graph = graphs_.emplace_back();
  graph.numbers = numbers;
  if (numbers.last - numbers.first >= kRemembered) return numbers;
  for (unsigned i = numbers.first; i <= numbers.last; ++i) graph.operations.push_back(operations_[i % kRemembered]);
  return numbers;
}

bool FailureLog::replay(FailureRange numbers) {
  std::lock_guard lock(mutex_);
  // One with what follows: a failure that is found between them would be forgotten, and the word still be set.
  const bool clears = takeClearingLocked();
  const unsigned number = ++last_;  // what is numbered before it does not depend on it
  GraphEntry* graph = entryOf(numbers);
  if (graph == nullptr) return clears;
  graph->undone = {};
  if (graph->firstReplay <= clean_) graph->firstReplay = number;
  graph->lastReplay = number;
  return clears;
}

void FailureLog::missReplay(FailureRange numbers, std::shared_ptr<const Failure> failure) {
  std::lock_guard lock(mutex_);
  if (GraphEntry* graph = entryOf(numbers)) graph->undone = {numbers.first, std::move(failure)};
}

void FailureLog::closeGraph(FailureRange numbers) {
  std::lock_guard lock(mutex_);
  if (GraphEntry* graph = entryOf(numbers)) graph->isClosed = true;
}

bool FailureLog::isOfGraph(unsigned number) const {
  return number != 0 && ((captured_ != 0 && number >= captured_) || graphOf(number) != nullptr);
}

// While a graph is captured it has numbers of its own only: what they depend on besides is looked at before each
// replay. Elsewhere what a graph made counts as of now, for the next replay makes it anew.
unsigned FailureLog::carried(unsigned number) const {
  if (captured_ != 0) return number >= captured_ ? number : 0;
  return isOfGraph(number) ? last_.load() : number;
}

}  // namespace gradus::cuda
