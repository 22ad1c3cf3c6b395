// AdamW with both averages in 8 bits: 16 bytes a parameter move instead of 28, and 2 instead of 8 stay. A block's
// averages are widened, updated and narrowed again while they are in the first-level cache; the parameter is updated
// from the exact ones.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optim8.cc"
#include <hwy/foreach_target.h>

#include "../core/blocks.h"
#include "dynamic_map.h"
#include "multi_tensor.h"
#include "optim-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

constexpr int64_t kBlock = kQuantizedBlock;
using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DB = hn::Rebind<uint8_t, DF>;

// Entry of a table of DynamicMap: its low 3 bits count.
HWY_INLINE hn::Vec<DF> entry(const float* table, hn::Vec<DI> index) {
  const DF d;
  if constexpr (hn::MaxLanes(d) >= 8) {
    return hn::TableLookupLanes(hn::Load(d, table), hn::IndicesFromVec(d, index));
  } else {
    return hn::GatherIndex(d, table, hn::And(index, hn::Set(DI(), 7)));
  }
}

template <bool isSigned>
HWY_INLINE hn::Vec<DF> widenCodes(const DynamicMap& map, const uint8_t* codes, hn::Vec<DF> magnitude) {
  const DF d;
  const DI di;
  const auto k = hn::Sub(hn::PromoteTo(di, hn::LoadU(DB(), codes)), hn::Set(di, map.zero));
  const auto q = hn::Add(isSigned ? hn::Abs(k) : k, hn::Set(di, map.offset));
  const auto bits = hn::BitCast(di, hn::ConvertTo(d, q));
  const auto decade = hn::Sub(hn::ShiftRight<23>(bits), hn::Set(di, 127 + map.offset));
  const auto mantissa = hn::Or(hn::And(bits, hn::Set(di, 0x7fffff)), hn::Set(di, 0x3f800000));
  auto share = hn::MulAdd(entry(map.slope, decade), hn::BitCast(d, mantissa), entry(map.start, decade));
  share = hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(k, hn::Zero(di))), share);
  if constexpr (isSigned) share = hn::CopySignToAbs(share, hn::BitCast(d, k));
  return hn::Mul(share, magnitude);
}

// Codes of values of at most `magnitude`, the nearest each.
template <bool isSigned>
HWY_INLINE void narrowToCodes(const DynamicMap& map, hn::Vec<DF> x, hn::Vec<DF> inverse, uint8_t* codes) {
  const DF d;
  const DI di;
  const auto share = hn::Mul(hn::Abs(x), inverse);
  // Adding it rounds to an integer and leaves that in the low bits.
  constexpr float kShifter = 0x1.8p23f;
  const auto shifter = hn::Set(d, kShifter);
  const auto rounded = [&](auto y) { return hn::Sub(hn::BitCast(di, hn::Add(y, shifter)), hn::BitCast(di, shifter)); };
  // The bits of a float are 2^23 (127 + log2), within 0.086. Taking 0.31 off that as decades leaves the number of the
  // decade or one less, because no border lies more than 0.28 above its power of 10; a look at the border decides.
  constexpr float kDecade = 0.30103f / (1 << 23), kFloor = 0.5f;
  const auto logarithm = hn::MulAdd(hn::ConvertTo(d, hn::BitCast(di, share)), hn::Set(d, kDecade),
                                    hn::Set(d, 7 - 0.31f - kFloor - 0.30103f * 127));
  const auto guess = rounded(hn::Max(logarithm, hn::Zero(d)));
  const auto beyond = hn::Gt(share, entry(map.border, guess));
  const auto decade = hn::Sub(guess, hn::VecFromMask(di, hn::RebindMask(di, beyond)));
  const auto base = hn::Shl(hn::Set(di, 1 << map.offset), decade);
  const auto place = hn::MulAdd(entry(map.density, decade), share, entry(map.first, decade));
  const auto bounded = hn::Min(rounded(hn::Max(place, hn::Zero(d))), hn::Sub(base, hn::Set(di, 1)));
  auto k = hn::Sub(hn::Add(base, bounded), hn::Set(di, map.offset));
  // A second moment that is not 0 keeps a value: as 0 it would let the next update divide by eps alone.
  const auto some = isSigned ? hn::Gt(share, hn::Set(d, map.least)) : hn::Gt(x, hn::Zero(d));
  k = hn::IfThenElseZero(hn::RebindMask(di, some), k);
  if constexpr (isSigned) {
    const auto negative = hn::RebindMask(di, hn::Lt(x, hn::Zero(d)));
    k = hn::IfThenElse(negative, hn::Neg(hn::Min(k, hn::Set(di, map.mostNegative))), k);
  }
  hn::StoreU(hn::DemoteTo(DB(), hn::Add(k, hn::Set(di, map.zero))), DB(), codes);
}

HWY_INLINE float inverseOf(float magnitude) {
  const float inverse = 1 / magnitude;
  return std::isfinite(inverse) ? inverse : 0;  // nothing but zeros, or subnormals that count as such
}

// A block's values, all or some of which exist; the rest are zeros.
struct Block {
  alignas(64) float values[kBlock];
  alignas(64) uint8_t codes[kBlock];
  float magnitude = 0;

  void load(const DynamicMap& map, const uint8_t* from, int64_t n) {
    if (n < kBlock) std::fill(codes, codes + kBlock, static_cast<uint8_t>(map.zero));
    std::memcpy(codes, from, n);
  }

  template <bool isSigned>
  void store(const DynamicMap& map, uint8_t* to, float* magnitudeTo, int64_t n) {
    const DF d;
    const auto inverse = hn::Set(d, inverseOf(magnitude));
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t i = 0; i < n; i += lanes) narrowToCodes<isSigned>(map, hn::Load(d, values + i), inverse, codes + i);
    std::memcpy(to, codes, n);
    *magnitudeTo = magnitude;
  }
};

template <class P, class G>
void updateBlock(const AdamRule<DF, false>& rule, const Incoming<DF>& incoming, P* p, const G* g, int64_t n, Block& m,
                 Block& v) {
  const DF d;
  const DynamicMap &withSign = DynamicMap::of(true), &without = DynamicMap::of(false);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto mScale = hn::Set(d, m.magnitude), vScale = hn::Set(d, v.magnitude);
  auto mMost = hn::Zero(d), vMost = hn::Zero(d);
  const auto pass = [&](int64_t i, auto param, auto gradient) {
    hn::Vec<DF> state[2] = {widenCodes<true>(withSign, m.codes + i, mScale),
                            widenCodes<false>(without, v.codes + i, vScale)};
    const auto updated = rule.update(param, incoming.of(gradient), state);
    hn::Store(state[0], d, m.values + i);
    hn::Store(state[1], d, v.values + i);
    mMost = hn::Max(mMost, hn::Abs(state[0]));
    vMost = hn::Max(vMost, state[1]);
    return updated;
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) vec::store(d, pass(i, vec::load(d, p + i), vec::load(d, g + i)), p + i);
  if (const int64_t rest = n - i; rest > 0) {
    vec::storeTail(d, pass(i, vec::loadTail(d, p + i, rest), vec::loadTail(d, g + i, rest)), p + i, rest);
  }
  m.magnitude = vec::maxLanes(d, mMost);
  v.magnitude = vec::maxLanes(d, vMost);
}

void adamw8bit(const OpCall& call) {
  const StepFrame frame(call);
  if (frame.skipped) return;
  const int count = frame.count;
  const DynamicMap &withSign = DynamicMap::of(true), &without = DynamicMap::of(false);
  // once a parameter: powers of the decay rates take longer than a block
  AdamSettings* settings = call.scratch<AdamSettings>(count);
  for (int i = 0; i < count; ++i) new (settings + i) AdamSettings(call.attr + StepFrame::kAttributes, frame, i);
  forChunks(frame.params, count, kBlock, [&](int i, int64_t from, int64_t n, int64_t) {
    uint8_t* codes[2];
    float* magnitudes[2];
    for (int s = 0; s < 2; ++s) {
      codes[s] = frame.states[s * count + i].as<uint8_t>() + from;
      magnitudes[s] = frame.states[(2 + s) * count + i].as<float>() + from / kBlock;
    }
    Block m, v;
    m.load(withSign, codes[0], n);
    v.load(without, codes[1], n);
    m.magnitude = *magnitudes[0];
    v.magnitude = *magnitudes[1];
    const AdamRule<DF, false> rule(settings[i]);
    const Incoming<DF> incoming(frame);
    const TensorView &param = frame.params[i], &grad = frame.grads[i];
    visitFloating(param.dtype, [&](auto type) {
      using P = decltype(type);
      if constexpr (sizeof(P) < 8) {
        P* p = param.as<P>() + from;
        if (grad.dtype == param.dtype)
          updateBlock(rule, incoming, p, grad.as<P>() + from, n, m, v);
        else
          updateBlock(rule, incoming, p, grad.as<float>() + from, n, m, v);
      }
    });
    m.store<true>(withSign, codes[0], magnitudes[0], n);
    v.store<false>(without, codes[1], magnitudes[1], n);
  });
  frame.countUp();
}

// --- conversions -----------------------------------------------------------------------------------------------------

void quantizeBlocks(const OpCall& call) {
  const bool isSigned = call.flag(0);
  const DynamicMap& map = DynamicMap::of(isSigned);
  forChunks(call.in, 1, kBlock, [&](int, int64_t from, int64_t n, int64_t at) {
    const float* x = call.in[0].as<float>() + from;
    Block block;
    std::fill(block.values, block.values + kBlock, 0.0f);
    for (int64_t i = 0; i < n; ++i) {
      block.values[i] = x[i];
      block.magnitude = std::max(block.magnitude, std::abs(x[i]));
    }
    uint8_t* codes = call.out[0].as<uint8_t>() + from;
    float* magnitude = call.out[1].as<float>() + at;
    isSigned ? block.store<true>(map, codes, magnitude, n) : block.store<false>(map, codes, magnitude, n);
  });
}

void dequantizeBlocks(const OpCall& call) {
  const bool isSigned = call.flag(0);
  const DynamicMap& map = DynamicMap::of(isSigned);
  forChunks(call.in, 1, kBlock, [&](int, int64_t from, int64_t n, int64_t at) {
    const DF d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const auto magnitude = hn::Set(d, call.in[1].as<float>()[at]);
    Block block;
    block.load(map, call.in[0].as<uint8_t>() + from, n);
    for (int64_t i = 0; i < n; i += lanes) {
      hn::Store(isSigned ? widenCodes<true>(map, block.codes + i, magnitude)
                         : widenCodes<false>(map, block.codes + i, magnitude),
                d, block.values + i);
    }
    std::memcpy(call.out[0].as<float>() + from, block.values, n * sizeof(float));
  });
}

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(adamw8bit);
HWY_EXPORT(quantizeBlocks);
HWY_EXPORT(dequantizeBlocks);

void run_adamw8bit(const OpCall& call) { HWY_DYNAMIC_DISPATCH(adamw8bit)(call); }
void run_quantizeBlocks(const OpCall& call) { HWY_DYNAMIC_DISPATCH(quantizeBlocks)(call); }
void run_dequantizeBlocks(const OpCall& call) { HWY_DYNAMIC_DISPATCH(dequantizeBlocks)(call); }

}  // namespace gradus::cpu
#endif
