// Integer arithmetic. Everything wraps; division by zero gives all ones, as the hardware does.
#include <algorithm>

#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <class T>
struct Types;
template <>
struct Types<uint16_t> {
  using Unsigned = uint16_t;
  using Wide = uint32_t;
};
template <>
struct Types<int16_t> {
  using Unsigned = uint16_t;
  using Wide = int32_t;
};
template <>
struct Types<uint32_t> {
  using Unsigned = uint32_t;
  using Wide = uint64_t;
};
template <>
struct Types<int32_t> {
  using Unsigned = uint32_t;
  using Wide = int64_t;
};
template <>
struct Types<uint64_t> {
  using Unsigned = uint64_t;
  using Wide = unsigned __int128;
};
template <>
struct Types<int64_t> {
  using Unsigned = uint64_t;
  using Wide = __int128;
};
template <class T>
using Wide = typename Types<T>::Wide;
template <class T>
using Unsigned = typename Types<T>::Unsigned;

template <class T>
T mulHi(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}

template <class T>
T mulLo(T a, T b) {
  using U = std::conditional_t<(sizeof(T) < 4), uint32_t, Unsigned<T>>;
  return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
}

template <class T>
T wrapAdd(T a, T b) {
  using U = Unsigned<T>;
  return static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
}

template <class T>
T wrapSub(T a, T b) {
  using U = Unsigned<T>;
  return static_cast<T>(static_cast<U>(static_cast<U>(a) - static_cast<U>(b)));
}

inline int32_t clampToInt(int64_t v) {
  return static_cast<int32_t>(
      std::clamp<int64_t>(v, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
}

template <class T>
void common(Registry& r, const std::string& type) {
  add<T, T, T>(r, "add." + type, [](T a, T b) { return wrapAdd(a, b); });
  add<T, T, T>(r, "sub." + type, [](T a, T b) { return wrapSub(a, b); });
  add<T, T, T>(r, "mul.lo." + type, [](T a, T b) { return mulLo(a, b); });
  add<T, T, T>(r, "mul.hi." + type, [](T a, T b) { return mulHi(a, b); });
  add<T, T, T, T>(r, "mad.lo." + type, [](T a, T b, T c) { return wrapAdd(mulLo(a, b), c); });
  add<T, T, T, T>(r, "mad.hi." + type, [](T a, T b, T c) { return wrapAdd(mulHi(a, b), c); });
  add<T, T, T>(r, "min." + type, [](T a, T b) { return a < b ? a : b; });
  add<T, T, T>(r, "max." + type, [](T a, T b) { return a > b ? a : b; });
  add<T, T, T, T>(r, "sad." + type, [](T a, T b, T c) { return wrapAdd(c, a < b ? wrapSub(b, a) : wrapSub(a, b)); });
  addEach<T, T, T>(r, "div." + type, [](T a, T b) -> T {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return wrapSub(T{0}, a);
    return static_cast<T>(a / b);
  });
  addEach<T, T, T>(r, "rem." + type, [](T a, T b) -> T {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  });
  if constexpr (std::is_signed_v<T>) {
    add<T, T>(r, "neg." + type, [](T a) { return wrapSub(T{0}, a); });
    add<T, T>(r, "abs." + type, [](T a) { return a < 0 ? wrapSub(T{0}, a) : a; });
  }
}

template <class T>
void widening(Registry& r, const std::string& type) {
  using W = Wide<T>;
  add<W, T, T>(r, "mul.wide." + type, [](T a, T b) { return static_cast<W>(static_cast<W>(a) * static_cast<W>(b)); });
  add<W, T, T, W>(r, "mad.wide." + type,
                  [](T a, T b, W c) { return wrapAdd(static_cast<W>(static_cast<W>(a) * static_cast<W>(b)), c); });
}

// 24-bit factors, sign- or zero-extended; .hi is bits 16 to 47 of the product.
template <class T>
int64_t mul24(T a, T b) {
  const auto cut = [](T v) -> int64_t {
    if constexpr (std::is_signed_v<T>)
      return static_cast<int32_t>(static_cast<uint32_t>(v) << 8) >> 8;
    else
      return v & 0xffffff;
  };
  return cut(a) * cut(b);
}

template <class T>
void with24Bits(Registry& r, const std::string& type) {
  add<T, T, T>(r, "mul24.lo." + type, [](T a, T b) { return static_cast<T>(mul24(a, b)); });
  add<T, T, T>(r, "mul24.hi." + type, [](T a, T b) { return static_cast<T>(mul24(a, b) >> 16); });
  add<T, T, T, T>(r, "mad24.lo." + type, [](T a, T b, T c) { return wrapAdd(static_cast<T>(mul24(a, b)), c); });
  add<T, T, T, T>(r, "mad24.hi." + type, [](T a, T b, T c) { return wrapAdd(static_cast<T>(mul24(a, b) >> 16), c); });
}

// Additions and products of many words. CC.CF is one bit a lane in Warp::carry.
enum class Carry { kNone, kOut, kIn, kInOut };

template <class T, int Op, Carry C>  // Op: 0 add, 1 sub, 2 mad.lo, 3 mad.hi
void runCarry(Warp& w, const Insn& in, uint32_t exec) {
  using U = Unsigned<T>;
  using Big = unsigned __int128;
  const Cell<T>*a = w.row<Cell<T>>(in.r[1]), *b = w.row<Cell<T>>(in.r[2]);
  const Cell<T>* c = Op >= 2 ? w.row<Cell<T>>(in.r[3]) : nullptr;
  Cell<T>* d = w.row<Cell<T>>(in.r[0]);
  constexpr bool takes = C == Carry::kIn || C == Carry::kInOut, gives = C == Carry::kOut || C == Carry::kInOut;
  uint32_t out = 0;
  eachLane(exec, [&](int i) {
    const Big carry = takes ? w.carry >> i & 1 : 0;
    U x = static_cast<U>(a[i]), y = static_cast<U>(b[i]);
    if (Op == 2) x = static_cast<U>(mulLo(static_cast<T>(a[i]), static_cast<T>(b[i]))), y = static_cast<U>(c[i]);
    if (Op == 3) x = static_cast<U>(mulHi(static_cast<T>(a[i]), static_cast<T>(b[i]))), y = static_cast<U>(c[i]);
    const Big sum = Op == 1 ? Big{x} - Big{y} - carry : Big{x} + Big{y} + carry;
    out |= static_cast<uint32_t>(sum >> (8 * sizeof(T)) & 1) << i;  // for sub: the borrow
    d[i] = static_cast<U>(sum);
  });
  if (gives) w.carry = (w.carry & ~exec) | out;
}

template <class T>
void carries(Registry& r, const std::string& type) {
  const std::string l(1, letter<T>()), binary = (sizeof(T) == 8 ? "D" : "W") + l + l, ternary = binary + l;
  r.add("add.cc." + type, &runCarry<T, 0, Carry::kOut>, binary);
  r.add("addc." + type, &runCarry<T, 0, Carry::kIn>, binary);
  r.add("addc.cc." + type, &runCarry<T, 0, Carry::kInOut>, binary);
  r.add("sub.cc." + type, &runCarry<T, 1, Carry::kOut>, binary);
  r.add("subc." + type, &runCarry<T, 1, Carry::kIn>, binary);
  r.add("subc.cc." + type, &runCarry<T, 1, Carry::kInOut>, binary);
  r.add("mad.lo.cc." + type, &runCarry<T, 2, Carry::kOut>, ternary);
  r.add("madc.lo." + type, &runCarry<T, 2, Carry::kIn>, ternary);
  r.add("madc.lo.cc." + type, &runCarry<T, 2, Carry::kInOut>, ternary);
  r.add("mad.hi.cc." + type, &runCarry<T, 3, Carry::kOut>, ternary);
  r.add("madc.hi." + type, &runCarry<T, 3, Carry::kIn>, ternary);
  r.add("madc.hi.cc." + type, &runCarry<T, 3, Carry::kInOut>, ternary);
}

template <class A, class B>
int64_t dot4(uint32_t a, uint32_t b) {
  int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>(static_cast<A>(a >> 8 * i)) * static_cast<B>(b >> 8 * i);
  return sum;
}

template <class A, class B, int Half>
int64_t dot2(uint32_t a, uint32_t b) {
  int64_t sum = 0;
  for (int i = 0; i < 2; ++i)
    sum += static_cast<int64_t>(static_cast<A>(a >> 16 * i)) * static_cast<B>(b >> (16 * Half + 8 * i));
  return sum;
}

template <class A8, class A16, class B>
void dots(Registry& r, const std::string& types) {
  add<uint32_t, uint32_t, uint32_t, uint32_t>(r, "dp4a." + types, [](uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>(c + dot4<A8, B>(a, b));
  });
  add<uint32_t, uint32_t, uint32_t, uint32_t>(r, "dp2a.lo." + types, [](uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>(c + dot2<A16, B, 0>(a, b));
  });
  add<uint32_t, uint32_t, uint32_t, uint32_t>(r, "dp2a.hi." + types, [](uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>(c + dot2<A16, B, 1>(a, b));
  });
}

// Two 16-bit integers side by side (sm_90).
template <class T>
void pairs(Registry& r, const std::string& type) {
  const auto both = [](uint32_t a, uint32_t b, auto f) {
    const auto one = [&](int shift) {
      return static_cast<uint32_t>(static_cast<uint16_t>(f(static_cast<T>(a >> shift), static_cast<T>(b >> shift))))
             << shift;
    };
    return one(0) | one(16);
  };
  using U = uint32_t;
  add<U, U, U>(r, "add." + type, [](U a, U b) { return decltype(both){}(a, b, [](T x, T y) { return x + y; }); });
  add<U, U, U>(r, "min." + type,
               [](U a, U b) { return decltype(both){}(a, b, [](T x, T y) { return x < y ? x : y; }); });
  add<U, U, U>(r, "max." + type,
               [](U a, U b) { return decltype(both){}(a, b, [](T x, T y) { return x > y ? x : y; }); });
}

}  // namespace

void registerInteger(Registry& r) {
  common<uint16_t>(r, "u16");
  common<int16_t>(r, "s16");
  common<uint32_t>(r, "u32");
  common<int32_t>(r, "s32");
  common<uint64_t>(r, "u64");
  common<int64_t>(r, "s64");
  widening<uint16_t>(r, "u16");
  widening<int16_t>(r, "s16");
  widening<uint32_t>(r, "u32");
  widening<int32_t>(r, "s32");
  with24Bits<uint32_t>(r, "u32");
  with24Bits<int32_t>(r, "s32");
  carries<uint32_t>(r, "u32");
  carries<int32_t>(r, "s32");
  carries<uint64_t>(r, "u64");
  carries<int64_t>(r, "s64");
  dots<uint8_t, uint16_t, uint8_t>(r, "u32.u32");
  dots<uint8_t, uint16_t, int8_t>(r, "u32.s32");
  dots<int8_t, int16_t, uint8_t>(r, "s32.u32");
  dots<int8_t, int16_t, int8_t>(r, "s32.s32");
  pairs<uint16_t>(r, "u16x2");
  pairs<int16_t>(r, "s16x2");
  using S = int32_t;
  add<S, S, S>(r, "add.sat.s32", [](S a, S b) { return clampToInt(int64_t{a} + b); });
  add<S, S, S>(r, "sub.sat.s32", [](S a, S b) { return clampToInt(int64_t{a} - b); });
  add<S, S, S, S>(r, "mad.hi.sat.s32", [](S a, S b, S c) { return clampToInt(int64_t{mulHi(a, b)} + c); });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
