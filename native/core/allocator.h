// The caching allocator of a device's memory. It keeps its books in host memory and never touches what it hands out.
//
// A training step asks for the same sizes again and again, so memory is kept between steps: no page faults, no calls
// into the kernel. Small requests come from size classes, large ones from segments that are split best-fit and
// coalesced again when freed, so that what is reserved stays close to the peak of what is in use.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "memory_log.h"
#include "memory_source.h"

namespace gradus {

struct Block;
struct Failure;

struct Allocation {
  void* data = nullptr;
  Block* block = nullptr;  // null for those of size classes
  size_t bytes = 0;        // as asked for
  class Allocator* owner = nullptr;
};

struct MemoryStats {
  uint64_t allocated, reserved, maxAllocated, limit;
  uint64_t allocations;  // since the start
};

// What the allocators of a device have in use together, and may have.
struct MemoryBudget {
  std::atomic<uint64_t> allocated{0}, reserved{0}, peak{0}, limit{0}, count{0};
  std::string place;  // the device, where it is not the cpu
};

class Allocator {
 public:
  static constexpr size_t kAlignment = 64;

  // Why nothing that lies here has contents: a captured graph's memory before its first replay. Touched by the
  // executor.
  std::shared_ptr<const Failure> unwritten;
  bool isAbandoned = false;  // and never will have

  // With a budget of its own, or that of another allocator of the device.
  explicit Allocator(MemorySource& source, Allocator* sharing = nullptr);
  // Throws Error(kOutOfMemory). `context` tags the allocation for out-of-memory reports.
  Allocation allocate(size_t bytes, uint32_t context, MemoryEvent::Kind kind = MemoryEvent::kTensor);
  void release(const Allocation& allocation);
  // Of all that share the budget.
  MemoryStats stats();
  // Bytes of this one's.
  uint64_t inUse();
  void resetPeak();
  void setLimit(uint64_t bytes);
  void setPlace(std::string name) { budget_->place = std::move(name); }
  // Gives memory that is not in use back to the system.
  void trim();

  // The log of everything that passes here, for profiles; off by default. One at a time: throws Error(kState) when it
  // is on. Events beyond `most` are only counted.
  void startLog(size_t most);
  void stopLog();
  void note(const void* address, size_t bytes, uint32_t what);
  std::vector<MemoryEvent> events(uint64_t* missed);

 private:
  struct Segment {
    char* base;
    size_t bytes;
    Block* first;
  };
  // A block that is cut into pieces of one size class.
  struct Slab {
    Block* block;
    int sizeClass;
    size_t unused;  // pieces, while they are counted
  };
  struct BySize {
    bool operator()(const Block* a, const Block* b) const;
  };

  void* takeSmall(int sizeClass);
  Block* takeLarge(size_t bytes);
  Block* find(size_t bytes);
  Block* growFor(size_t bytes);
  void free(Block* block);
  void dissolveSlabs();
  void trimLocked();
  [[noreturn]] void outOfMemory(size_t bytes, const char* why);

  MemorySource& source_;
  MemoryBudget own_;
  MemoryBudget* const budget_;
  std::mutex mutex_;
  std::vector<void*> smallFree_[64];
  std::map<char*, Slab> slabs_;
  std::set<Block*, BySize> free_;
  std::vector<Segment> segments_;
  size_t nextSegment_;
  MemoryLog log_;
  uint64_t allocated_ = 0;
};

}  // namespace gradus
