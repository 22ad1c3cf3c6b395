// What follows from the addresses of a warp: sectors of global memory, wavefronts of shared memory, which lanes share.
#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

// Same lanes, same differences between addresses, same place in a sector or a word (whole words may move: every bank
// moves with them). Else takes the new ones.
bool repeats(Pattern& p, const uint64_t* offset, uint32_t lanes, uint32_t bytes, uint64_t period) {
  const uint64_t base = offset[std::countr_zero(lanes)];
  uint64_t wrong = (p.lanes ^ lanes) | (p.bytes ^ bytes) | (p.phase ^ (base & (period - 1)));
  if (lanes == ~0u) {
    for (uint32_t i = 0; i < 32; ++i) wrong |= (offset[i] - base) ^ static_cast<uint64_t>(p.delta[i]);
  } else {
    for (uint32_t i = 0; i < 32; ++i)
      wrong |= lanes >> i & 1 ? (offset[i] - base) ^ static_cast<uint64_t>(p.delta[i]) : 0;
  }
  if (!wrong) return true;
  p.lanes = lanes;
  p.bytes = bytes;
  p.phase = base & (period - 1);
  for (uint32_t i = 0; i < 32; ++i) p.delta[i] = lanes >> i & 1 ? static_cast<int64_t>(offset[i] - base) : 0;
  return false;
}

bool together(const Pattern& p) {
  if ((p.lanes & (p.lanes + 1)) || !std::has_single_bit(p.bytes)) return false;
  uint64_t wrong = 0;
  for (uint32_t i = 0; i < 32; ++i)
    wrong |= p.lanes >> i & 1 ? static_cast<uint64_t>(p.delta[i]) ^ (uint64_t{i} * p.bytes) : 0;
  return !wrong;
}

// A table of 64 places by a hash of the address finds lanes that share one.
void findDistinct(Pattern& p) {
  uint8_t table[64];
  std::fill_n(table, 64, uint8_t{255});
  p.distinct = 0;
  eachLane(p.lanes, [&](int i) {
    uint32_t h = static_cast<uint32_t>(static_cast<uint64_t>(p.delta[i]) * 0x9e3779b97f4a7c15 >> 58);
    while (table[h] != 255 && p.delta[p.lane[table[h]]] != p.delta[i]) h = (h + 1) & 63;
    if (table[h] != 255) {
      p.many[table[h]] = true;
      return;
    }
    table[h] = static_cast<uint8_t>(p.distinct);
    p.lane[p.distinct] = static_cast<uint8_t>(i);
    p.many[p.distinct++] = false;
  });
}

uint32_t sectors(const Pattern& p, const uint64_t* offset) {
  uint64_t seen[32];
  uint32_t count = 0;
  for (uint32_t u = 0; u < p.distinct; ++u) {
    const uint64_t sector = offset[p.lane[u]] >> 5;
    uint32_t k = count;
    while (k && seen[k - 1] != sector) --k;
    if (!k) seen[count++] = sector;
  }
  return count;
}

// 32 banks of four bytes. Eight bytes a lane go in two halves of a warp, sixteen in four quarters; lanes that want the
// same word share it.
void findWavefronts(Pattern& p, const uint64_t* offset) {
  const uint32_t parts = p.bytes <= 4 ? 1 : p.bytes / 4, size = 32 / parts;
  p.wavefronts = p.ideal = 0;
  for (uint32_t part = 0; part < parts; ++part) {
    const uint32_t here = p.lanes & ((size == 32 ? ~0u : (1u << size) - 1) << (part * size));
    if (!here) continue;
    uint64_t seen[32][32];
    uint8_t count[32] = {};
    uint8_t most = 1;
    eachLane(here, [&](int i) {
      for (uint32_t k = 0; k < parts; ++k) {
        const uint64_t word = (offset[i] >> 2) + k, bank = word & 31;
        uint8_t n = 0;
        while (n < count[bank] && seen[bank][n] != word) ++n;
        if (n < count[bank]) continue;
        seen[bank][count[bank]++] = word;
        most = std::max(most, count[bank]);
      }
    });
    p.wavefronts += most;
    ++p.ideal;
  }
}

}  // namespace

const Pattern& look(Warp& w, const Insn& in, const Region& region, const uint64_t* offset, uint32_t lanes,
                    uint32_t bytes) {
  Site& s = site(w, in);
  Pattern& p = region.global ? s.global : s.shared;
  if (repeats(p, offset, lanes, bytes, region.global ? 32 : 4)) return p;
  p.together = together(p);
  if (p.together) {
    p.distinct = static_cast<uint32_t>(std::popcount(lanes));
    for (uint32_t i = 0; i < 32; ++i) p.lane[i] = static_cast<uint8_t>(i), p.many[i] = false;
  } else {
    findDistinct(p);
  }
  if (!region.global)
    findWavefronts(p, offset);
  else if (p.together)
    p.sectors = static_cast<uint32_t>((p.phase + uint64_t{p.distinct} * bytes + 31) / 32);
  else
    p.sectors = sectors(p, offset);
  return p;
}

void count(Warp& w, const Region& region, const Pattern& p, bool store) {
  Counters& c = w.worker->counters;
  const uint64_t moved = uint64_t{p.bytes} * static_cast<uint64_t>(std::popcount(p.lanes));
  if (region.global) {
    (store ? c.globalBytesStored : c.globalBytesLoaded) += moved;
    (store ? c.globalDistinctStored : c.globalDistinctLoaded) += uint64_t{p.bytes} * p.distinct;
    (store ? c.globalStoreRequests : c.globalLoadRequests) += 1;
    (store ? c.globalStoreSectors : c.globalLoadSectors) += p.sectors;
  } else {
    (store ? c.sharedBytesStored : c.sharedBytesLoaded) += moved;
    (store ? c.sharedStoreRequests : c.sharedLoadRequests) += 1;
    (store ? c.sharedStoreWavefronts : c.sharedLoadWavefronts) += p.wavefronts;
    c.sharedIdealWavefronts += p.ideal;
  }
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
