// setp, set and testp.
#include "compare.h"

#include <cmath>

#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <class F>
uint32_t gather(F f) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; ++i) bits |= (f(i) ? 1u : 0u) << i;
  return bits;
}

template <class T>
uint32_t compareLanes(const T* a, const T* b, uint16_t code) {
  switch (code) {
    case kEq:
      return gather([&](uint32_t i) { return a[i] == b[i]; });
    case kNe:
      if constexpr (std::is_floating_point_v<T>) return gather([&](uint32_t i) { return a[i] < b[i] || a[i] > b[i]; });
      return gather([&](uint32_t i) { return a[i] != b[i]; });
    case kLt:
      return gather([&](uint32_t i) { return a[i] < b[i]; });
    case kLe:
      return gather([&](uint32_t i) { return a[i] <= b[i]; });
    case kGt:
      return gather([&](uint32_t i) { return a[i] > b[i]; });
    case kGe:
      return gather([&](uint32_t i) { return a[i] >= b[i]; });
    case kEqu:
      return gather([&](uint32_t i) { return !(a[i] < b[i] || a[i] > b[i]); });
    case kNeu:
      return gather([&](uint32_t i) { return !(a[i] == b[i]); });
    case kLtu:
      return gather([&](uint32_t i) { return !(a[i] >= b[i]); });
    case kLeu:
      return gather([&](uint32_t i) { return !(a[i] > b[i]); });
    case kGtu:
      return gather([&](uint32_t i) { return !(a[i] <= b[i]); });
    case kGeu:
      return gather([&](uint32_t i) { return !(a[i] < b[i]); });
    case kNum:
      return gather([&](uint32_t i) { return a[i] == a[i] && b[i] == b[i]; });
    default:
      return gather([&](uint32_t i) { return a[i] != a[i] || b[i] != b[i]; });
  }
}

uint32_t combine(const Warp& w, const Insn& in, int slot, uint32_t bits) {
  const uint16_t how = in.sub >> 5 & 3;
  if (how == kAlone) return bits;
  const uint32_t c = w.predicates[in.r[slot]] ^ (in.sub & kNegatedThird ? ~0u : 0);
  return how == kAnd ? bits & c : how == kOr ? bits | c : bits ^ c;
}

void put(Warp& w, uint32_t slot, uint32_t bits, uint32_t exec) {
  w.predicates[slot] = (w.predicates[slot] & ~exec) | (bits & exec);
}

// What values are compared as: halves as floats.
template <class T>
struct As {
  using Type = T;
  static Type of(T v, bool ftz) {
    if constexpr (std::is_same_v<T, float>) return ftz ? flush(v) : v;
    return v;
  }
};
template <>
struct As<F16> {
  using Type = float;
  static float of(F16 v, bool ftz) {
    const float f = toFloat(v);
    return ftz && std::fabs(f) < 0x1p-14f ? std::copysign(0.0f, f) : f;
  }
};
template <>
struct As<BF16> {
  using Type = float;
  static float of(BF16 v, bool) { return toFloat(v); }
};

template <class T>
uint32_t compareRows(const Warp& w, const Insn& in, int slot) {
  using V = typename As<T>::Type;
  const Cell<T>*a = w.row<Cell<T>>(in.r[slot]), *b = w.row<Cell<T>>(in.r[slot + 1]);
  const bool ftz = in.sub & kFlushOperands;
  V x[32], y[32];
  for (int i = 0; i < 32; ++i) x[i] = As<T>::of(unpack<T>(a[i]), ftz), y[i] = As<T>::of(unpack<T>(b[i]), ftz);
  return compareLanes<V>(x, y, in.sub & 31);
}

template <class H, class P>
void comparePairs(const Warp& w, const Insn& in, int slot, uint32_t* lows, uint32_t* highs) {
  const uint32_t *a = w.row<uint32_t>(in.r[slot]), *b = w.row<uint32_t>(in.r[slot + 1]);
  const bool ftz = in.sub & kFlushOperands;
  float x[2][32], y[2][32];
  for (int i = 0; i < 32; ++i) {
    x[0][i] = As<H>::of(low(P{a[i]}), ftz), x[1][i] = As<H>::of(high(P{a[i]}), ftz);
    y[0][i] = As<H>::of(low(P{b[i]}), ftz), y[1][i] = As<H>::of(high(P{b[i]}), ftz);
  }
  *lows = compareLanes<float>(x[0], y[0], in.sub & 31);
  *highs = compareLanes<float>(x[1], y[1], in.sub & 31);
}

// r: p, q, a, b, c. The second result is the combination with the comparison inverted.
template <class T>
void setPredicate(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t bits = compareRows<T>(w, in, 2);
  const uint32_t p = combine(w, in, 4, bits), q = combine(w, in, 4, ~bits);
  put(w, in.r[0], p, exec);
  if (in.sub & kSecondResult) put(w, in.r[1], q, exec);
}

// For pairs p and q are the low and the high half's result.
template <class H, class P>
void setPredicatePair(Warp& w, const Insn& in, uint32_t exec) {
  uint32_t lows, highs;
  comparePairs<H, P>(w, in, 2, &lows, &highs);
  const uint32_t p = combine(w, in, 4, lows), q = combine(w, in, 4, highs);
  put(w, in.r[0], p, exec);
  if (in.sub & kSecondResult) put(w, in.r[1], q, exec);
}

// r: destination, a, b, c; imm: what true is.
template <class T>
void setValue(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t bits = combine(w, in, 3, compareRows<T>(w, in, 1)), one = static_cast<uint32_t>(in.imm);
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  for (int i = 0; i < 32; ++i) d[i] = exec >> i & 1 ? (bits >> i & 1 ? one : 0) : d[i];
}

template <class H, class P>
void setValuePair(Warp& w, const Insn& in, uint32_t exec) {
  uint32_t lows, highs;
  comparePairs<H, P>(w, in, 1, &lows, &highs);
  lows = combine(w, in, 3, lows), highs = combine(w, in, 3, highs);
  const uint32_t one = static_cast<uint32_t>(in.imm);
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  for (int i = 0; i < 32; ++i) {
    const uint32_t r = (lows >> i & 1 ? one : 0) | (highs >> i & 1 ? one << 16 : 0);
    d[i] = exec >> i & 1 ? r : d[i];
  }
}

// r: p, a; sub: finite, infinite, number, notanumber, normal, subnormal.
template <class T>
void testProperty(Warp& w, const Insn& in, uint32_t exec) {
  const Cell<T>* a = w.row<Cell<T>>(in.r[1]);
  const uint16_t what = in.sub;
  const uint32_t bits = gather([&](uint32_t i) {
    switch (std::fpclassify(unpack<T>(a[i]))) {
      case FP_NAN:
        return what == 3;
      case FP_INFINITE:
        return what == 1 || what == 2;
      case FP_SUBNORMAL:
        return what == 0 || what == 2 || what == 5;
      case FP_ZERO:
        return what == 0 || what == 2 || what == 4;
      default:
        return what == 0 || what == 2 || what == 4;
    }
  });
  put(w, in.r[0], bits, exec);
}

template <class T>
void types(Registry& r, const std::string& type) {
  r.add("@setp." + type, &setPredicate<T>);
  r.add("@set." + type, &setValue<T>);
}

}  // namespace

void registerCompare(Registry& r) {
  for (const char* type : {"b16", "u16"}) types<uint16_t>(r, type);
  for (const char* type : {"b32", "u32"}) types<uint32_t>(r, type);
  for (const char* type : {"b64", "u64"}) types<uint64_t>(r, type);
  types<int16_t>(r, "s16");
  types<int32_t>(r, "s32");
  types<int64_t>(r, "s64");
  types<float>(r, "f32");
  types<double>(r, "f64");
  types<F16>(r, "f16");
  types<BF16>(r, "bf16");
  r.add("@setp.f16x2", &setPredicatePair<F16, F16x2>);
  r.add("@setp.bf16x2", &setPredicatePair<BF16, BF16x2>);
  r.add("@set.f16x2", &setValuePair<F16, F16x2>);
  r.add("@set.bf16x2", &setValuePair<BF16, BF16x2>);
  r.add("@testp.f32", &testProperty<float>);
  r.add("@testp.f64", &testProperty<double>);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
