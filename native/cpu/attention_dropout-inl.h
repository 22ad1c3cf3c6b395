// Dropout of attention probabilities. Element (b, h, q, k), counted in row-major order, has one random word that
// depends on nothing else, so backward and any tiling or vector width see the same mask.
#if defined(GRADUS_ATTENTION_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_ATTENTION_DROPOUT_INL_H_
#undef GRADUS_ATTENTION_DROPOUT_INL_H_
#else
#define GRADUS_ATTENTION_DROPOUT_INL_H_
#endif

#include "attention_tile-inl.h"
#include "philox.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// philox of counters held one to a 64-bit lane, as PhiloxVector, but each lane with a counter of its own.
template <class D64>
HWY_INLINE void philoxLanes(D64 d, hn::Vec<D64> counter, uint64_t seed, hn::Vec<D64> words[4]) {
  const hn::Repartition<uint32_t, D64> d32;
  const auto m0 = hn::Set(d32, Philox::kMul0), m1 = hn::Set(d32, Philox::kMul1);
  auto c0 = counter, c1 = hn::ShiftRight<32>(counter), c2 = hn::Zero(d), c3 = hn::Zero(d);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < Philox::kRounds; ++round, k0 += Philox::kWeyl0, k1 += Philox::kWeyl1) {
    const auto p0 = hn::MulEven(hn::BitCast(d32, c0), m0), p1 = hn::MulEven(hn::BitCast(d32, c2), m1);
    c0 = hn::Xor3(hn::ShiftRight<32>(p1), c1, hn::Set(d, k0));
    c2 = hn::Xor3(hn::ShiftRight<32>(p0), c3, hn::Set(d, k1));
    c1 = p1;
    c3 = p0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// keep[key][query] = 1 / (1 - p) or 0, and 0 for what pads the tile to whole pairs of keys and of queries.
template <class T>
void dropoutTile(const Attention& a, const TileAt& tile, T* keep) {
  const hn::ScalableTag<uint64_t> d;
  const hn::Rebind<uint32_t, decltype(d)> d32;
  const int lanes = static_cast<int>(hn::Lanes(d));
  // Four keys share a counter; a row of the tile may begin in the middle of one.
  alignas(64) uint32_t words[(kAttentionBlock + 4) * kAttentionBlock];
  alignas(64) uint64_t counters[kAttentionBlock];
  uint32_t within[kAttentionBlock];
  const int64_t query = tile.segment->firstQuery + tile.firstQuery;
  uint64_t element = ((tile.segment->batch * a.heads + tile.head) * a.queries + query) * a.keys + tile.firstKey;
  for (int c = 0; c < kAttentionBlock; ++c, element += a.keys) {
    counters[c] = a.offset + element / 4;
    within[c] = element % 4;
  }
  const bool aligned = a.keys % 4 == 0;  // then so is every row: tiles begin at multiples of four
  const int quads = (tile.keys + 3) / 4 + (aligned ? 0 : 1);
  for (int c = 0; c < tile.queries; c += lanes) {
    const auto base = hn::Load(d, counters + c);
    for (int quad = 0; quad < quads; ++quad) {
      hn::Vec<decltype(d)> random[4];
      philoxLanes(d, hn::Add(base, hn::Set(d, quad)), a.seed, random);
      for (int i = 0; i < 4; ++i) {
        hn::Store(hn::TruncateTo(d32, random[i]), d32, words + (quad * 4 + i) * kAttentionBlock + c);
      }
    }
  }
  const uint32_t threshold = dropThreshold(a.dropout);
  const T factor = a.dropout < 1 ? static_cast<T>(1 / (1 - a.dropout)) : T(0);
  for (int r = 0; r < tile.keys; ++r) {
    T* row = keep + r * kAttentionBlock;
    const uint32_t* from = words + r * kAttentionBlock;
    if (aligned) {
      for (int c = 0; c < kAttentionBlock; ++c) row[c] = from[c] >= threshold ? factor : T(0);
    } else {
      for (int c = 0; c < tile.queries; ++c) {
        row[c] = from[within[c] * kAttentionBlock + c] >= threshold ? factor : T(0);
      }
    }
    std::fill(row + tile.queries, row + kAttentionBlock, T(0));
  }
  if (tile.keys % 2) std::fill(keep + tile.keys * kAttentionBlock, keep + (tile.keys + 1) * kAttentionBlock, T(0));
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
