// The checks of an access to a region, and the write itself.
#include <algorithm>
#include <cstring>

#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

// 1 when every byte is written. Accesses are aligned to their size, so words can be looked at whole.
uint64_t written(const uint8_t* valid, uint32_t bytes) {
  constexpr uint64_t all = 0x0101010101010101;
  uint64_t word = 0;
  switch (bytes) {
    case 1:
      return *valid == kWritten;
    case 2:
      std::memcpy(&word, valid, 2);
      return word == (all & 0xffff);
    case 4:
      std::memcpy(&word, valid, 4);
      return word == (all & 0xffffffff);
    case 8:
      std::memcpy(&word, valid, 8);
      return word == all;
    case 16: {
      uint64_t second;
      std::memcpy(&word, valid, 8);
      std::memcpy(&second, valid + 8, 8);
      return (word == all) & (second == all);
    }
    default:
      return std::all_of(valid, valid + bytes, [](uint8_t v) { return v == kWritten; });
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
    for (uint32_t u = 0; u < p.distinct; ++u) fine &= written(region.valid + offset[p.lane[u]], p.bytes);
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
  const RaceView view(w, region, strength);
  const uint64_t each = granules(region, p.bytes);
  if (in.sub & kNonCoherent) checkNonCoherent(w, in, region, offset, p.lanes, each);
  const bool fine = p.together ? spanRead(view, region, offset[0] >> region.shift, p.distinct, std::countr_zero(each))
                               : scatteredRead(view, region, p, offset, each);
  if (fine) return;
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
  const uint64_t each = granules(region, p.bytes), first = offset[0] >> region.shift;
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
    for (uint32_t u = 0; guarded && u < p.distinct; ++u) {
      const uint8_t* v = region.valid + offset[p.lane[u]];
      for (uint32_t i = 0; i < p.bytes; ++i) fine &= v[i] < kInFlight;
    }
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
  eachLane(p.lanes, [&](int i) {
    copyPiece(region.data + offset[i], value + static_cast<uint32_t>(i) * p.bytes, p.bytes);
    if (region.valid) markPiece(region.valid + offset[i], kWritten, p.bytes);
    for (uint64_t k = 0; region.writers && k < each; ++k)
      region.writers[(offset[i] >> region.shift) + k] = view.lane(static_cast<uint64_t>(i)) | view.strong;
  });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
