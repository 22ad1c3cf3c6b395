// What happened to memory while someone watched: every allocation and release of the process, with notes from the
// stream about what a tensor is and where a phase begins. Who was alive at a peak can only be told afterwards, and only
// from all of the events: those that found no room are counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gradus {

struct MemoryEvent {
  enum Kind : uint8_t { kTensor, kWorkspace, kRelease, kNote };
  Kind kind;
  uint32_t context;  // module path; of a note: what it says
  uint64_t address;  // of a note about no tensor 0
  uint64_t bytes;
};

class MemoryLog {
 public:
  bool on() const { return on_; }
  void start(size_t most) {
    events_.clear();
    most_ = most;
    missed_ = 0;
    on_ = true;
  }
  void stop() {
    on_ = false;
    events_ = {};
  }
  void add(MemoryEvent::Kind kind, const void* address, size_t bytes, uint32_t context) {
    if (events_.size() < most_) {
      events_.push_back({kind, context, reinterpret_cast<uint64_t>(address), bytes});
    } else {
      ++missed_;
    }
  }
  const std::vector<MemoryEvent>& events() const { return events_; }
  uint64_t missed() const { return missed_; }

 private:
  bool on_ = false;
  size_t most_ = 0;
  uint64_t missed_ = 0;
  std::vector<MemoryEvent> events_;
};

}  // namespace gradus
