#include "history.h"

#include <algorithm>

namespace cudasim::driver {
namespace {

bool sameTouch(const Touch& a, const Touch& b) { return a.epoch.lane == b.epoch.lane && a.epoch.step == b.epoch.step; }

}  // namespace

History::Spans::iterator History::cut(uint64_t address) {
  const auto next = spans_.lower_bound(address);
  if (next == spans_.begin()) return next;
  const auto before = std::prev(next);
  if (before->second.end <= address) return next;
  Span right = before->second;
  before->second.end = address;
  return spans_.emplace_hint(next, address, std::move(right));
}

void History::addRead(Span& span, const Touch& touch) {
  for (Touch& read : span.reads)
    if (read.epoch.lane == touch.epoch.lane) {
      read = touch;
      return;
    }
  span.reads.push_back(touch);
}

std::optional<Conflict> History::touch(uint64_t address, size_t bytes, bool write, const Touch& touch,
                                       const Clock& clock) {
  if (bytes == 0) return std::nullopt;
  const uint64_t end = address + bytes;
  const std::optional<Conflict> conflict = unordered(address, bytes, clock, /*writesOnly=*/!write);
  cut(address);
  cut(end);
  if (write) {
    spans_.erase(spans_.lower_bound(address), spans_.lower_bound(end));
    spans_.emplace(address, Span{end, touch, {}});
  } else {
    uint64_t at = address;
    for (auto it = spans_.lower_bound(address); at < end;) {
      if (it == spans_.end() || it->first > at) {  // a gap: nobody has been here
        const uint64_t stop = it == spans_.end() ? end : std::min(end, it->first);
        it = spans_.emplace_hint(it, at, Span{stop, std::nullopt, {}});
      }
      addRead(it->second, touch);
      at = it->second.end;
      ++it;
    }
  }
  mergeAround(address, end);
  return conflict;
}

// Long sequences of small accesses by one operation would otherwise leave a span each.
void History::mergeAround(uint64_t address, uint64_t end) {
  auto it = spans_.lower_bound(address);
  if (it != spans_.begin()) --it;
  while (it != spans_.end() && it->first <= end) {
    const auto next = std::next(it);
    if (next == spans_.end()) return;
    const Span &a = it->second, &b = next->second;
    const bool sameWrite = a.write.has_value() == b.write.has_value() && (!a.write || sameTouch(*a.write, *b.write));
    if (a.end == next->first && sameWrite &&
        std::equal(a.reads.begin(), a.reads.end(), b.reads.begin(), b.reads.end(), sameTouch)) {
      it->second.end = b.end;
      spans_.erase(next);
    } else {
      it = next;
    }
  }
}

std::optional<Conflict> History::unordered(uint64_t address, size_t bytes, const Clock& clock, bool writesOnly) const {
  const uint64_t end = address + bytes;
  auto it = spans_.upper_bound(address);
  if (it != spans_.begin() && std::prev(it)->second.end > address) --it;
  for (; it != spans_.end() && it->first < end; ++it) {
    const uint64_t from = std::max(it->first, address);
    const size_t overlap = std::min(it->second.end, end) - from;
    const Span& span = it->second;
    if (span.write && !clock.isAfter(span.write->epoch)) return Conflict{from, overlap, span.write->who, true};
    if (writesOnly) continue;
    for (const Touch& read : span.reads)
      if (!clock.isAfter(read.epoch)) return Conflict{from, overlap, read.who, false};
  }
  return std::nullopt;
}

void History::forget(uint64_t address, size_t bytes) {
  cut(address);
  cut(address + bytes);
  spans_.erase(spans_.lower_bound(address), spans_.lower_bound(address + bytes));
}

}  // namespace cudasim::driver
