// Who touched which bytes last, to find two operations on the same bytes that nothing orders.
//
// One operation is ordered after another when its clock says so (clock.h); the order in which the scheduler happened to
// run them counts for nothing. Device and pinned host addresses share one map: the address space is unified.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "clock.h"

namespace cudasim::driver {

struct Touch {
  Epoch epoch;
  std::string who;  // "kernel gradus_pointwise_add on stream 3"
};

struct Conflict {
  uint64_t address;
  size_t bytes;
  std::string other;  // who touched them
  bool otherWrote;
};

class History {
 public:
  // Notes the access, after a comparison with those before it. The first conflict is returned.
  std::optional<Conflict> touch(uint64_t address, size_t bytes, bool write, const Touch& touch, const Clock& clock);
  // The first access to [address, address + bytes) that `clock` is not after.
  std::optional<Conflict> unordered(uint64_t address, size_t bytes, const Clock& clock, bool writesOnly = false) const;
  void forget(uint64_t address, size_t bytes);
  void clear() { spans_.clear(); }
  size_t size() const { return spans_.size(); }

 private:
  struct Span {
    uint64_t end = 0;
    std::optional<Touch> write;
    std::vector<Touch> reads;  // since that write, one a lane
  };
  using Spans = std::map<uint64_t, Span>;

  Spans::iterator cut(uint64_t address);  // the first span that begins at or after `address`; none straddles it
  void addRead(Span& span, const Touch& touch);
  void mergeAround(uint64_t address, uint64_t end);

  Spans spans_;  // by first address, disjoint
};

}  // namespace cudasim::driver
