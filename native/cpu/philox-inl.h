// Many philox counters at once. Include inside a kernel file that Highway compiles for every target, as simd.h.
//
// A counter's four words stand in the low halves of 64-bit lanes, because that is where the 32 x 32 -> 64 bit product
// reads and writes them: two products, two shifts and two xors a round, and no shuffles. The high halves are garbage
// on the way. A vector of 8 counters (AVX-512) yields 32 words in about 20 cycles.
#if defined(GRADUS_CPU_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADUS_CPU_PHILOX_INL_H_
#undef GRADUS_CPU_PHILOX_INL_H_
#else
#define GRADUS_CPU_PHILOX_INL_H_
#endif

#include <hwy/highway.h>

#include <cstring>

#include "philox.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

class PhiloxVector {
 public:
  using D64 = hn::ScalableTag<uint64_t>;
  using D32 = hn::ScalableTag<uint32_t>;
  static constexpr size_t kCounters = hn::MaxLanes(D64());
  static constexpr size_t kWords = 4 * kCounters;

  explicit PhiloxVector(const Philox& stream) : stream_(stream) {
    uint32_t k0 = static_cast<uint32_t>(stream.key), k1 = static_cast<uint32_t>(stream.key >> 32);
    for (int round = 0; round < Philox::kRounds; ++round) {
      keys_[round][0] = k0;
      keys_[round][1] = k1;
      k0 += Philox::kWeyl0;
      k1 += Philox::kWeyl1;
    }
    // Even lanes hold the first half of the counters: interleaving then gives words in order without crossing blocks.
    for (size_t i = 0; i < kCounters; ++i) lanes_[i] = i / 2 + (i % 2) * (kCounters / 2);
  }

  // Words [first, first + count) of the stream, whatever their alignment.
  void fill(uint64_t first, size_t count, uint32_t* out) const {
    for (; count > 0 && first % 4 != 0; ++first, --count) *out++ = stream_.word(first);
    uint64_t block = first / 4;
    for (; count >= kWords; count -= kWords, block += kCounters, out += kWords) batch(block, out);
    if (count > 0) {
      uint32_t words[kWords];
      batch(block, words);
      std::memcpy(out, words, count * sizeof(uint32_t));
    }
  }

 private:
  HWY_INLINE void batch(uint64_t block, uint32_t* out) const {
    const D64 d;
    const D32 d32;
    const auto m0 = hn::Set(d32, Philox::kMul0), m1 = hn::Set(d32, Philox::kMul1);
    auto c0 = hn::Add(hn::Load(d, lanes_), hn::Set(d, stream_.offset + block));
    auto c1 = hn::ShiftRight<32>(c0);
    auto c2 = hn::Set(d, stream_.high), c3 = hn::ShiftRight<32>(c2);
    HWY_UNROLL(10)
    for (int round = 0; round < Philox::kRounds; ++round) {
      const auto p0 = hn::MulEven(hn::BitCast(d32, c0), m0);
      const auto p1 = hn::MulEven(hn::BitCast(d32, c2), m1);
      c0 = hn::Xor3(hn::ShiftRight<32>(p1), c1, hn::Set(d, keys_[round][0]));
      c2 = hn::Xor3(hn::ShiftRight<32>(p0), c3, hn::Set(d, keys_[round][1]));
      c1 = p1;
      c3 = p0;
    }
    const auto a = hn::BitCast(d, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c1)), hn::BitCast(d32, c0)));
    const auto b = hn::BitCast(d, hn::OddEven(hn::BitCast(d32, hn::ShiftLeft<32>(c3)), hn::BitCast(d32, c2)));
    hn::StoreU(hn::BitCast(d32, hn::InterleaveLower(d, a, b)), d32, out);
    hn::StoreU(hn::BitCast(d32, hn::InterleaveUpper(d, a, b)), d32, out + kWords / 2);
  }

  Philox stream_;
  HWY_ALIGN uint64_t lanes_[kCounters];
  uint64_t keys_[Philox::kRounds][2];
};

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
