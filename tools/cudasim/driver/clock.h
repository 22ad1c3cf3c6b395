// Vector clocks: what an operation is ordered after. A lane is a sequence whose members are ordered by themselves: a
// stream, or a chain of a graph's nodes.
//
// Mattern 1989, "Virtual Time and Global States of Distributed Systems".
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace cudasim::driver {

struct Epoch {
  uint32_t lane = 0;
  uint64_t step = 0;
};

class Clock {
 public:
  void join(const Clock& other) {
    if (other.steps_.size() > steps_.size()) steps_.resize(other.steps_.size());
    for (size_t i = 0; i < other.steps_.size(); ++i) steps_[i] = std::max(steps_[i], other.steps_[i]);
  }
  void join(Epoch epoch) {
    if (epoch.lane >= steps_.size()) steps_.resize(epoch.lane + 1);
    steps_[epoch.lane] = std::max(steps_[epoch.lane], epoch.step);
  }
  // Everything that happened up to `epoch` in its lane happened before.
  bool isAfter(Epoch epoch) const { return epoch.lane < steps_.size() && steps_[epoch.lane] >= epoch.step; }

 private:
  std::vector<uint64_t> steps_;
};

}  // namespace cudasim::driver
