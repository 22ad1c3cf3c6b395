// What happened to memory while someone watched: every allocation and release of the process, with notes from the
// stream about what a tensor is and where a phase begins. Who was alive at a peak can only be told afterwards.
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
  static constexpr size_t kMost = size_t{1} << 22;  // 100 MB: later events are left out

  bool on() const { return on_; }
  void start() {
    events_.clear();
    on_ = true;
  }
  void stop() {
    on_ = false;
    events_ = {};
  }
  void add(MemoryEvent::Kind kind, const void* address, size_t bytes, uint32_t context) {
    if (events_.size() < kMost) events_.push_back({kind, context, reinterpret_cast<uint64_t>(address), bytes});
  }
  const std::vector<MemoryEvent>& events() const { return events_; }

 private:
  bool on_ = false;
  std::vector<MemoryEvent> events_;
};

}  // namespace gradus
