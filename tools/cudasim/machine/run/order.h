// Who used a piece of memory last, and whether that came before what a thread does now.
//
// Every granule has an entry for its last writer and one for its last reader:
//
//   63       36 35    13  12     11 10   9    0
//   block run   time      strong many    thread
//
// - block run: a number that no other block of this or an earlier launch has, so entries of earlier launches are just
//   small and need no clearing.
// - time: the block's clock. It ticks at barriers, __syncwarp and fences.
// - strong: an atomic, volatile, relaxed, acquire or release access; those never race with each other.
// - many (readers): other threads have read, too: 1 of the same warp, 2 of the same block, 3 of other blocks.
//
// Order inside a block is a vector clock by warp and, inside a warp, by lane, with short cuts for the usual full
// barrier and full __syncwarp. Order between blocks comes from fences and strong accesses: a strong write after a fence
// publishes, at its address, what the thread had seen by the fence; a strong read takes on all that was published
// there. A reader's own fence is not asked for, as usual code leaves it to the barrier that follows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace cudasim {

constexpr int kThreadBits = 10, kTimeShift = 13, kBlockShift = 36;
constexpr uint64_t kThreadMask = (1 << kThreadBits) - 1;
constexpr uint64_t kMany = 3 << kThreadBits, kManyLanes = 1 << kThreadBits, kManyWarps = 2 << kThreadBits;
constexpr uint64_t kStrong = 1 << 12;
constexpr uint64_t kBlockMask = ~uint64_t{0} << kBlockShift;
constexpr uint64_t kTimeMask = ~kBlockMask & ~((uint64_t{1} << kTimeShift) - 1);
constexpr uint32_t kLastTime = (1u << (kBlockShift - kTimeShift)) - 1;

constexpr uint64_t kLastRun = (uint64_t{1} << (64 - kBlockShift)) - 1;

inline uint32_t entryTime(uint64_t e) { return static_cast<uint32_t>((e & kTimeMask) >> kTimeShift); }
inline uint32_t entryThread(uint64_t e) { return static_cast<uint32_t>(e & kThreadMask); }
inline uint64_t entryBlock(uint64_t e) { return e >> kBlockShift; }

enum class Strength : uint8_t { kWeak, kBlock, kDevice };  // how far an access's own atomicity reaches

class SyncTable;

// A block took on what was published at `key` up to `position`.
struct Acquired {
  const SyncTable* table;
  uint64_t key;
  size_t position;
  uint32_t thread, time;
};
using AcquiredList = std::vector<Acquired>;

struct Publication {
  uint64_t block;
  uint32_t thread;
  uint32_t time;                              // clock at the fence: the thread's own accesses up to it are published
  uint32_t barrierTime;                       // accesses of the whole block before this are published, too
  uint32_t warpTime;                          // and those of the thread's warp before this
  bool device;                                // the fence reached beyond the block
  std::shared_ptr<const AcquiredList> known;  // what the thread itself had taken on
};

class SyncTable {
 public:
  void clear() { locations_.clear(); }
  void publish(uint64_t key, Publication p);
  size_t position(uint64_t key) const;  // how much is published at key
  // Whether an access of (block, thread) at `time` was published at key before `position`, directly or through others.
  bool covers(uint64_t key, size_t position, uint64_t block, uint32_t thread, uint32_t time, bool device) const;

 private:
  // The same, directly; else what those who published had taken on goes to `further`.
  bool tells(uint64_t key, size_t position, uint64_t block, uint32_t thread, uint32_t time, bool device,
             std::vector<std::shared_ptr<const AcquiredList>>& further) const;

  struct Location {
    std::vector<Publication> list;
    std::unordered_map<uint64_t, std::vector<size_t>> byBlock;
    std::vector<size_t> withKnown;
  };
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Location> locations_;
};

}  // namespace cudasim
