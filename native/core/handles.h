// Slots with generations: a handle is generation * 2^24 + index, exact in a double. A released handle never finds
// another tensor, so a mistake in JavaScript is an error and not a wild pointer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "storage.h"

namespace gradus {

class HandleTable {
 public:
  // After it, `count` calls of add() succeed. So several are added or none.
  void makeRoom(size_t count) {
    if (free_.size() >= count) return;
    const size_t needed = slots_.size() + count - free_.size();
    GRADUS_CHECK(needed <= kIndexLimit, ErrorCode::kState,
                 "tensor: too many live tensors: got %zu, expected at most %u; release some with dispose() or tidy()",
                 live_ + count, kIndexLimit);
    if (needed > slots_.capacity()) slots_.reserve(std::max(needed, 2 * slots_.capacity()));
  }

  double add(Tensor* tensor) {
    makeRoom(1);
    uint32_t index;
    if (free_.empty()) {
      index = static_cast<uint32_t>(slots_.size());
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
    --live_;
    // A slot is used again at once, so a long training takes one through all its generations: then it retires, because
    // the next handle would not be exact.
    if (++slots_[index].generation < kGenerationLimit) free_.push_back(static_cast<uint32_t>(index));
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
  static constexpr uint32_t kGenerationLimit = 1 << 29;  // 2^24 * 2^29 is the first number that is not exact
  struct Slot {
    Tensor* tensor = nullptr;
    uint32_t generation = 1;  // so that 0 is never a handle
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

}  // namespace gradus
