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

HWY_INLINE hn::Vec<DF> widenCodes(const DynamicMap& map, const uint8_t* codes, hn::Vec<DF> magnitude) {
  const auto index = hn::PromoteTo(DI(), hn::LoadU(DB(), codes));
  return hn::Mul(hn::GatherIndex(DF(), map.values, index), magnitude);
}

// Codes of values of at most `magnitude`, the nearest each.
template <bool isSigned>
HWY_INLINE void narrowToCodes(const DynamicMap& map, hn::Vec<DF> x, hn::Vec<DF> inverse, uint8_t* codes) {
  const DF d;
  const DI di;
  const auto share = hn::Mul(hn::Abs(x), inverse);
  const auto cell = hn::Sub(hn::ShiftRight<16>(hn::BitCast(di, share)), hn::Set(di, DynamicMap::kFirstCell));
  const auto bounded = hn::Min(hn::Max(cell, hn::Zero(di)), hn::Set(di, DynamicMap::kCells - 1));  // NaN too
  const auto lower = hn::GatherIndex(di, map.cells, bounded);
  const auto above = hn::Gt(share, hn::GatherIndex(d, map.borders, lower));
  auto k = hn::Sub(lower, hn::VecFromMask(di, hn::RebindMask(di, above)));
  if constexpr (isSigned) {
    const auto negative = hn::RebindMask(di, hn::Lt(x, hn::Zero(d)));
    k = hn::IfThenElse(negative, hn::Neg(hn::Min(k, hn::Set(di, map.negatives))), k);
  } else {
    // A second moment that is not 0 keeps a value: as 0 it would let the next update divide by eps alone.
    const auto some = hn::RebindMask(di, hn::Gt(x, hn::Zero(d)));
    k = hn::Max(k, hn::IfThenElseZero(some, hn::Set(di, 1)));
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
    hn::Vec<DF> state[2] = {widenCodes(withSign, m.codes + i, mScale), widenCodes(without, v.codes + i, vScale)};
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
  const DynamicMap& map = DynamicMap::of(call.flag(0));
  forChunks(call.in, 1, kBlock, [&](int, int64_t from, int64_t n, int64_t at) {
    const float magnitude = call.in[1].as<float>()[at];
    for (int64_t i = from; i < from + n; ++i) {
      call.out[0].as<float>()[i] = map.values[call.in[0].as<uint8_t>()[i]] * magnitude;
    }
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
