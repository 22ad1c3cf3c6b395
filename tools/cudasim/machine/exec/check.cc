// The checks of an access to a region, and the write itself.
#include <algorithm>
#include <cstring>

#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

// Calls f with the bytes of an access as a constant, where it is one of the usual sizes, so that its loops over bytes
// become moves of words.
template <class F>
void withSize(uint32_t bytes, F f) {
  switch (bytes) {
    case 1:
      return f(std::integral_constant<uint32_t, 1>{});
    case 2:
      return f(std::integral_constant<uint32_t, 2>{});
    case 4:
      return f(std::integral_constant<uint32_t, 4>{});
    case 8:
      return f(std::integral_constant<uint32_t, 8>{});
    case 16:
      return f(std::integral_constant<uint32_t, 16>{});
    default:
      return f(bytes);
  }
}

// Bits of any of the valid bytes that differ from those of `expected`.
template <class Size>
uint64_t differing(const uint8_t* valid, uint8_t expected, Size bytes) {
  if constexpr (std::is_same_v<Size, uint32_t>) {
    uint8_t wrong = 0;
    for (uint32_t b = 0; b < bytes; ++b) wrong |= valid[b] ^ expected;
    return wrong;
  } else {
    const uint64_t all = expected * uint64_t{0x0101010101010101};
    uint64_t first = 0, second = 0;
    std::memcpy(&first, valid, std::min<size_t>(bytes, 8));
    if (bytes == 16) std::memcpy(&second, valid + 8, 8), second ^= all;
    return second | (first ^ (bytes < 8 ? all & ((uint64_t{1} << bytes * 8 % 64) - 1) : all));
  }
}

void checkValid(Warp& w, const Insn& in, const Region& region, const Pattern& p, const uint64_t* offset) {
  if (!region.valid) return;
  uint64_t fine = 1;
  if (p.together) {
    const uint8_t* v = region.valid + offset[0];
    uint8_t wrong = 0;
    for (uint32_t i = 0; i < p.distinct * p.bytes; ++i) wrong |= v[i] ^ kWritten;
    fine = !wrong;
  } else {
    withSize(p.bytes, [&](auto bytes) {
      uint64_t wrong = 0;
      for (uint32_t u = 0; u < p.distinct; ++u) wrong |= differing(region.valid + offset[p.lane[u]], kWritten, bytes);
      fine = !wrong;
    });
  }
  if (!fine) eachLane(p.lanes, [&](int i) { w.badBytes(in, region, offset[i], p.bytes, i, false); });
}

// ld.global.nc promises that nobody writes while the kernel runs.
void checkNonCoherent(Warp& w, const Insn& in, const Region& region, const uint64_t* offset, uint32_t lanes,
                      uint64_t each) {
  const uint64_t base = w.block->launch->firstRun << kBlockShift;
  eachLane(lanes, [&](int i) {
    for (uint64_t k = 0; k < each; ++k) {
      const uint64_t entry = region.writers[(offset[i] >> region.shift) + k];
      if (entry >= base)
        w.fault(entryBlock(entry) == w.block->run ? Fault::kRaceGlobal : Fault::kRaceBlocks, in, i,
                "reads through the non-coherent path what " + w.who(entry) + " wrote in the same launch",
                region.address + offset[i]);
    }
  });
}

void writeLane(Warp& w, const Insn& in, const Region& region, int i, uint64_t offset, uint32_t bytes,
               const uint8_t* value, const RaceView& view, Strength strength) {
  uint8_t* valid = region.valid ? region.valid + offset : nullptr;
  if (valid && !region.global) {
    uint8_t blocked = 0;
    for (uint32_t b = 0; b < bytes; ++b) blocked |= valid[b] & 2;
    if (blocked) return w.badBytes(in, region, offset, bytes, i, true);
  }
  const uint64_t each = region.writers ? granules(region, bytes) : 0, me = view.lane(static_cast<uint64_t>(i));
  for (uint64_t k = 0; k < each; ++k) {
    const uint64_t g = (offset >> region.shift) + k;
    if (!(view.writerFine(region.writers[g], me) && view.readerFine(region.readers[g], me))) {
      const uint64_t from = std::max(g << region.shift, offset), size = std::min<uint64_t>(1u << region.shift, bytes);
      w.mayWrite(in, region, g, i, strength, std::memcmp(region.data + from, value + (from - offset), size) == 0);
    }
    region.writers[g] = me | view.strong;
  }
  copyPiece(region.data + offset, value, bytes);
  if (valid) markPiece(valid, kWritten, bytes);
}

}  // namespace

void passOn(Warp& w, const Region& region, const uint64_t* offset, uint32_t lanes, uint16_t sub, bool store) {
  SyncTable& table = region.global ? w.block->launch->sync : w.block->sync;
  if (store && (sub & kIsRelease)) w.fence(lanes, sub & kDeviceScope);
  eachLane(lanes, [&](int i) {
    const uint64_t key = region.address + offset[i];
    if (store)
      w.publish(i, table, key, sub & kDeviceScope);
    else
      w.acquire(i, table, key);
  });
}

void checkRead(Warp& w, const Insn& in, const Region& region, const Pattern& p, const uint64_t* offset) {
  checkValid(w, in, region, p, offset);
  if (!region.writers) return;
  const Strength strength = strengthOf(in.sub, region);
  const RaceView view(w, region, strength, in.sub & kNonCoherent);
  const uint64_t each = granules(region, p.bytes);
  const uint64_t first = offset[std::countr_zero(p.lanes)] >> region.shift;
  const bool fine = p.together ? spanRead(view, region, first, p.distinct, std::countr_zero(each))
                               : scatteredRead(view, region, p, offset, each);
  if (fine) return;
  if (in.sub & kNonCoherent) checkNonCoherent(w, in, region, offset, p.lanes, each);
  eachLane(p.lanes, [&](int i) {
    for (uint64_t k = 0; k < each; ++k) {
      const uint64_t g = (offset[i] >> region.shift) + k;
      if (!view.writerFine(region.writers[g], view.lane(static_cast<uint64_t>(i))))
        w.mayRead(in, region, g, i, strength);
    }
  });
}

void checkedWrite(Warp& w, const Insn& in, const Region& region, const Pattern& p, const uint64_t* offset,
                  const uint8_t* value) {
  const Strength strength = strengthOf(in.sub, region);
  if (strength != Strength::kWeak && w.block->launch->program.hasFences)
    passOn(w, region, offset, p.lanes, in.sub, true);
  const RaceView view(w, region, strength);
  const uint64_t each = granules(region, p.bytes), first = offset[std::countr_zero(p.lanes)] >> region.shift;
  const int shift = std::countr_zero(each);
  const bool alone = p.distinct == static_cast<uint32_t>(std::popcount(p.lanes));
  const bool guarded = region.valid && !region.global;  // red zones and copies in flight
  uint64_t fine = alone;
  if (p.together) {
    uint8_t blocked = 0;
    for (uint32_t i = 0; guarded && i < p.distinct * p.bytes; ++i) blocked |= region.valid[offset[0] + i] & 2;
    fine &= !blocked;
    if (fine && region.writers) fine = spanMayWrite(view, region, first, p.distinct, shift);
  } else if (fine) {
    if (guarded)
      withSize(p.bytes, [&](auto bytes) {
        uint64_t bits = 0;
        for (uint32_t u = 0; u < p.distinct; ++u) bits |= differing(region.valid + offset[p.lane[u]], 0, bytes);
        fine = !(bits & 0x0202020202020202);
      });
    if (fine && region.writers) fine = scatteredMayWrite(view, region, p, offset, each);
  }
  if (!fine) {
    eachLane(p.lanes, [&](int i) {
      writeLane(w, in, region, i, offset[i], p.bytes, value + static_cast<uint32_t>(i) * p.bytes, view, strength);
    });
    return;
  }
  if (p.together) {
    std::memcpy(region.data + offset[0], value, size_t{p.distinct} * p.bytes);
    if (region.valid) std::memset(region.valid + offset[0], kWritten, size_t{p.distinct} * p.bytes);
    if (region.writers) spanWritten(view, region, first, p.distinct, shift);
    return;
  }
  withSize(p.bytes, [&](auto bytes) {
    eachLane(p.lanes, [&](int i) {
      std::memcpy(region.data + offset[i], value + static_cast<uint32_t>(i) * bytes, bytes);
      if (region.valid) std::memset(region.valid + offset[i], kWritten, bytes);
    });
  });
  if (region.writers) scatteredWritten(view, region, p, offset, each);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
