// The check for races on whole warps: entries (run/order.h) against what this warp's threads may touch, written so that
// the usual case runs in vectors. What fails here is looked at again, lane by lane, by Warp::mayRead and mayWrite.
#pragma once

#include "../run/launch_state.h"
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

struct RaceView {
  uint64_t base;    // entries below are of earlier launches, or earlier blocks' shared memory
  uint64_t own;     // of this block at time 0
  uint64_t cut;     // added to own: before the last barrier
  uint64_t synced;  // time bits: before the warp's last __syncwarp
  uint64_t self;    // entry of lane 0 now
  uint64_t strong;  // kStrong for strong accesses
  uint64_t reach;   // entries that differ here are out of a strong access's scope
  uint64_t limit;   // of writers that a read through the non-coherent path may meet: earlier launches

  RaceView(const Warp& w, const Region& region, Strength strength, bool nonCoherent = false)
      : base((region.global ? w.block->launch->firstRun : w.block->run) << kBlockShift),
        own(w.block->run << kBlockShift),
        cut(uint64_t{w.block->barrierTime} << kTimeShift),
        synced(w.block->launch->options.checkLanes ? uint64_t{w.syncTime} << kTimeShift : kTimeMask),
        self(w.key()),
        strong(strength == Strength::kWeak ? 0 : kStrong),
        reach(strength == Strength::kBlock ? kBlockMask : 0),
        limit(nonCoherent ? base : ~uint64_t{0}) {}

  static constexpr uint64_t kSameThread = kBlockMask | kThreadMask, kSameWarp = kBlockMask | (kThreadMask & ~31);

  uint64_t lane(uint64_t i) const { return self + i; }

  // Arithmetic on 0 and 1 instead of logic: it keeps the loops free of branches.
  bool writerFine(uint64_t w, uint64_t me) const {
    return (w < base) | (w - own < cut) | (((w ^ me) & kSameThread) == 0) |
           ((((w ^ me) & kSameWarp) == 0) & ((w & kTimeMask) < synced)) |
           (((w & strong) != 0) & (((w ^ me) & reach) == 0));
  }
  bool readerFine(uint64_t r, uint64_t me) const {
    const uint64_t many = r & kMany;
    return (r < base) | ((r - own < cut) & (many != kMany)) | (((r ^ me) & (kSameThread | kMany)) == 0) |
           ((((r ^ me) & kSameWarp) == 0) & ((r & kTimeMask) < synced) & (many < kManyWarps)) |
           (((r & strong) != 0) & (((r ^ me) & reach) == 0));
  }
  // The reader entry after `me` has read.
  uint64_t joined(uint64_t r, uint64_t me) const {
    const uint64_t many = r & kMany, difference = r ^ me;
    const bool fresh = (r < base) | ((r - own < cut) & (many != kMany)) | ((difference & (kSameThread | kMany)) == 0) |
                       (((difference & kSameWarp) == 0) & ((r & kTimeMask) < synced) & (many < kManyWarps));
    const uint64_t relation = (difference & kSameThread) == 0  ? 0
                              : (difference & kSameWarp) == 0  ? kManyLanes
                              : (difference & kBlockMask) == 0 ? kManyWarps
                                                               : kMany;
    const uint64_t most = many > relation ? many : relation;
    return fresh ? me | strong : me | most | (r & strong);
  }
};

// Granules of one lane's access.
inline uint64_t granules(const Region& region, uint32_t bytes) {
  return (bytes + (1u << region.shift) - 1) >> region.shift;
}

// Lanes 0 to count - 1 use neighbouring pieces, `each` = 1 << shift granules long, from `first` on.
inline bool spanRead(const RaceView& v, const Region& region, uint64_t first, uint64_t count, int shift) {
  const uint64_t* __restrict writers = region.writers + first;
  uint64_t* __restrict readers = region.readers + first;
  uint64_t fine = 1;
#pragma GCC ivdep
  for (uint64_t g = 0; g < count << shift; ++g) {
    const uint64_t me = v.lane(g >> shift);
    fine &= v.writerFine(writers[g], me) & (writers[g] < v.limit);
    readers[g] = v.joined(readers[g], me);
  }
  return fine;
}

inline bool spanMayWrite(const RaceView& v, const Region& region, uint64_t first, uint64_t count, int shift) {
  const uint64_t *writers = region.writers + first, *readers = region.readers + first;
  uint64_t fine = 1;
  for (uint64_t g = 0; g < count << shift; ++g) {
    const uint64_t me = v.lane(g >> shift);
    fine &= v.writerFine(writers[g], me) & v.readerFine(readers[g], me);
  }
  return fine;
}

inline void spanWritten(const RaceView& v, const Region& region, uint64_t first, uint64_t count, int shift) {
  uint64_t* writers = region.writers + first;
  for (uint64_t g = 0; g < count << shift; ++g) writers[g] = v.lane(g >> shift) | v.strong;
}

// Any addresses. Entries are gathered, checked side by side, and put back; each address is looked at once. The `each`
// granules of one lane are neighbours: Each, or as many as it says where it is kAnyNumber.
constexpr uint32_t kAnyNumber = 16;  // of the widest access, and the narrowest granule

template <uint32_t Each>
struct Entries {
  alignas(64) uint64_t writer[32 * Each], reader[32 * Each], me[32 * Each];
  alignas(64) uint64_t shared[32 * Each];  // kManyLanes where more lanes use it

  Entries(const RaceView& v, const Region& region, const Pattern& p, const uint64_t* offset, uint32_t each) {
    for (uint32_t u = 0; u < p.distinct; ++u) {
      const uint64_t at = offset[p.lane[u]] >> region.shift, lane = v.lane(p.lane[u]);
      const uint64_t many = p.many[u] ? kManyLanes : 0;
      for (uint32_t k = 0; k < each; ++k) {
        writer[u * each + k] = region.writers[at + k];
        reader[u * each + k] = region.readers[at + k];
        me[u * each + k] = lane;
        shared[u * each + k] = many;
      }
    }
  }
};

template <uint32_t Each>
[[gnu::noinline]] bool scatteredRead(const RaceView& view, const Region& region, const Pattern& p,
                                     const uint64_t* offset, uint64_t granulesEach) {
  const uint32_t each = Each == kAnyNumber ? static_cast<uint32_t>(granulesEach) : Each, count = p.distinct * each;
  const RaceView v = view;
  Entries<Each> e(v, region, p, offset, each);
  uint64_t fine = 1;
  for (uint32_t i = 0; i < count; ++i) {
    // What one of several lanes may read because it wrote it itself, the others may not.
    const uint64_t alone =
        (e.shared[i] == 0) | (((e.writer[i] ^ e.me[i]) & RaceView::kSameThread) != 0) | (e.writer[i] - v.own < v.cut);
    fine &= v.writerFine(e.writer[i], e.me[i]) & alone & (e.writer[i] < v.limit);
    const uint64_t joined = v.joined(e.reader[i], e.me[i]), many = joined & kMany;
    e.reader[i] = (joined & ~kMany) | (many > e.shared[i] ? many : e.shared[i]);
  }
  for (uint32_t u = 0; u < p.distinct; ++u) {
    uint64_t* readers = region.readers + (offset[p.lane[u]] >> region.shift);
    for (uint32_t k = 0; k < each; ++k) readers[k] = e.reader[u * each + k];
  }
  return fine != 0;
}

// Only where each lane has an address of its own.
template <uint32_t Each>
[[gnu::noinline]] bool scatteredMayWrite(const RaceView& view, const Region& region, const Pattern& p,
                                         const uint64_t* offset, uint64_t granulesEach) {
  const uint32_t each = Each == kAnyNumber ? static_cast<uint32_t>(granulesEach) : Each, count = p.distinct * each;
  const RaceView v = view;
  const Entries<Each> e(v, region, p, offset, each);
  uint64_t fine = 1;
  for (uint32_t i = 0; i < count; ++i) fine &= v.writerFine(e.writer[i], e.me[i]) & v.readerFine(e.reader[i], e.me[i]);
  return fine != 0;
}

// The version of a function for so many granules.
#define CUDASIM_BY_GRANULES(function, each, ...)  \
  ((each) == 1   ? function<1>(__VA_ARGS__, each) \
   : (each) == 2 ? function<2>(__VA_ARGS__, each) \
   : (each) == 4 ? function<4>(__VA_ARGS__, each) \
   : (each) == 8 ? function<8>(__VA_ARGS__, each) \
                 : function<kAnyNumber>(__VA_ARGS__, each))

inline bool scatteredRead(const RaceView& v, const Region& region, const Pattern& p, const uint64_t* offset,
                          uint64_t each) {
  return CUDASIM_BY_GRANULES(scatteredRead, each, v, region, p, offset);
}

inline bool scatteredMayWrite(const RaceView& v, const Region& region, const Pattern& p, const uint64_t* offset,
                              uint64_t each) {
  return CUDASIM_BY_GRANULES(scatteredMayWrite, each, v, region, p, offset);
}

inline void scatteredWritten(const RaceView& v, const Region& region, const Pattern& p, const uint64_t* offset,
                             uint64_t each) {
  for (uint32_t u = 0; u < p.distinct; ++u) {
    uint64_t* writers = region.writers + (offset[p.lane[u]] >> region.shift);
    const uint64_t entry = v.lane(p.lane[u]) | v.strong;
    for (uint64_t k = 0; k < each; ++k) writers[k] = entry;
  }
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
