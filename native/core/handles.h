// Slots with generations: a handle is generation * 2^24 + index, exact in a double. A released handle never finds
// another tensor, so a mistake in JavaScript is an error and not a wild pointer.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "storage.h"

namespace gradus {

class HandleTable {
 public:
  double add(Tensor* tensor) {
    uint32_t index;
    if (free_.empty()) {
      index = static_cast<uint32_t>(slots_.size());
      GRADUS_CHECK(
          index < kIndexLimit, ErrorCode::kState,
          "tensor: too many live tensors: got %u, expected fewer than %u; release some with dispose() or tidy()", index,
          kIndexLimit);
      slots_.push_back({});
    } else {
      index = free_.back();
      free_.pop_back();
    }
    Slot& slot = slots_[index];
    slot.tensor = tensor;
    ++live_;
    return static_cast<double>(slot.generation) * kIndexLimit + index;
  }

  Tensor* find(double handle) const {
    if (!(handle >= kIndexLimit && handle < 9007199254740992.0)) return nullptr;
    const uint64_t bits = static_cast<uint64_t>(handle);
    const uint64_t index = bits % kIndexLimit;
    if (index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.generation == bits / kIndexLimit ? slot.tensor : nullptr;
  }

  // Null when the handle is stale: finalizers may come after an explicit release.
  Tensor* remove(double handle) {
    Tensor* tensor = find(handle);
    if (tensor == nullptr) return nullptr;
    const uint64_t index = static_cast<uint64_t>(handle) % kIndexLimit;
    slots_[index].tensor = nullptr;
    ++slots_[index].generation;
    free_.push_back(static_cast<uint32_t>(index));
    --live_;
    return tensor;
  }

  std::vector<Tensor*> takeAll() {
    std::vector<Tensor*> all;
    for (Slot& slot : slots_) {
      if (slot.tensor) all.push_back(slot.tensor);
    }
    slots_.clear();
    free_.clear();
    live_ = 0;
    return all;
  }

  size_t live() const { return live_; }

 private:
  static constexpr uint32_t kIndexLimit = 1 << 24;
  struct Slot {
    Tensor* tensor = nullptr;
    uint32_t generation = 1;  // so that 0 is never a handle
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

}  // namespace gradus
