// Integer arithmetic against the host's, with every overflow.
#include "op.h"

namespace cudasim::test {

namespace {

using I128 = __int128;

// The value of the low bits, signed or not.
I128 valueOf(Bits bits, int width, bool isSigned) {
  const I128 whole = static_cast<I128>(1) << width;
  const I128 v = static_cast<I128>(bits) & (whole - 1);
  return isSigned && v >= whole / 2 ? v - whole : v;
}
Bits cut(I128 v, int width) { return static_cast<Bits>(v & ((static_cast<I128>(1) << width) - 1)); }

struct Kind {
  const char* name;
  char letter;
  int width;
  bool isSigned;
  const Row& values;
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {{"u16", 'h', 16, false, kShorts}, {"s16", 'h', 16, true, kShorts},
                                         {"u32", 'w', 32, false, kWords},  {"s32", 'w', 32, true, kWords},
                                         {"u64", 'd', 64, false, kLongs},  {"s64", 'd', 64, true, kLongs}};
  return list;
}

template <class F>
void binary(const std::string& opcode, const Kind& k, F f) {
  const std::string l(1, k.letter);
  Op::of(opcode + "." + k.name, l, l + l).sweep({k.values, k.values}, [&](const Row& a) {
    return cut(f(valueOf(a[0], k.width, k.isSigned), valueOf(a[1], k.width, k.isSigned)), k.width);
  });
}

template <class F>
void ternary(const std::string& opcode, const Kind& k, F f) {
  const std::string l(1, k.letter);
  const Row third = {0, 1, 0x7f, cut(-1, k.width), cut(static_cast<I128>(1) << (k.width - 1), k.width), 0x1234};
  Op::of(opcode + "." + k.name, l, l + l + l).sweep({k.values, k.values, third}, [&](const Row& a) {
    const auto v = [&](int i) { return valueOf(a[i], k.width, k.isSigned); };
    return cut(f(v(0), v(1), v(2)), k.width);
  });
}

// Bits above the low half of a product; 128-bit products of unsigned 64-bit numbers do not fit I128.
I128 high(I128 a, I128 b, const Kind& k) {
  if (k.width < 64) return (a * b) >> k.width;
  if (k.isSigned) return (a * b) >> 64;
  return static_cast<I128>((static_cast<unsigned __int128>(a) * static_cast<unsigned __int128>(b)) >> 64);
}
I128 low(I128 a, I128 b) {
  return static_cast<I128>(static_cast<unsigned __int128>(a) * static_cast<unsigned __int128>(b));
}

}  // namespace

CUDASIM_TEST("opcodes: add, sub, mul, mad wrap in every width") {
  for (const Kind& k : kinds()) {
    binary("add", k, [](I128 a, I128 b) { return a + b; });
    binary("sub", k, [](I128 a, I128 b) { return a - b; });
    binary("mul.lo", k, [](I128 a, I128 b) { return low(a, b); });
    binary("mul.hi", k, [&](I128 a, I128 b) { return high(a, b, k); });
    ternary("mad.lo", k, [](I128 a, I128 b, I128 c) { return low(a, b) + c; });
    ternary("mad.hi", k, [&](I128 a, I128 b, I128 c) { return high(a, b, k) + c; });
  }
}

CUDASIM_TEST("opcodes: wide products keep every bit") {
  for (const Kind& k : kinds()) {
    if (k.width == 64) continue;
    const std::string l(1, k.letter), wide = k.width == 16 ? "w" : "d";
    Op::of("mul.wide." + std::string(k.name), wide, l + l).sweep({k.values, k.values}, [&](const Row& a) {
      return cut(valueOf(a[0], k.width, k.isSigned) * valueOf(a[1], k.width, k.isSigned), 2 * k.width);
    });
    const Row third = {0, 1, k.width == 16 ? 0xffffffff : ~Bits{0}, k.width == 16 ? 0x80000000 : Bits{1} << 63};
    Op::of("mad.wide." + std::string(k.name), wide, l + l + wide).sweep({k.values, k.values, third}, [&](const Row& a) {
      const I128 product = valueOf(a[0], k.width, k.isSigned) * valueOf(a[1], k.width, k.isSigned);
      return cut(product + valueOf(a[2], 2 * k.width, k.isSigned), 2 * k.width);
    });
  }
}

CUDASIM_TEST("opcodes: div and rem cut towards zero, min and max compare by sign, sad adds a distance") {
  for (const Kind& k : kinds()) {
    Row divisors;
    for (const Bits v : k.values)
      if (v) divisors.push_back(v);
    const std::string l(1, k.letter), name = "." + std::string(k.name);
    const auto v = [&](Bits b) { return valueOf(b, k.width, k.isSigned); };
    Op::of("div" + name, l, l + l).sweep({k.values, divisors}, [&](const Row& a) {
      return cut(v(a[0]) / v(a[1]), k.width);
    });
    Op::of("rem" + name, l, l + l).sweep({k.values, divisors}, [&](const Row& a) {
      return cut(v(a[0]) % v(a[1]), k.width);
    });
    binary("min", k, [](I128 a, I128 b) { return std::min(a, b); });
    binary("max", k, [](I128 a, I128 b) { return std::max(a, b); });
    ternary("sad", k, [](I128 a, I128 b, I128 c) { return c + (a < b ? b - a : a - b); });
    if (!k.isSigned) continue;
    Op::of("neg" + name, l, l).sweep({k.values}, [&](const Row& a) { return cut(-v(a[0]), k.width); });
    Op::of("abs" + name, l, l).sweep({k.values}, [&](const Row& a) {
      return cut(v(a[0]) < 0 ? -v(a[0]) : v(a[0]), k.width);
    });
  }
}

CUDASIM_TEST("opcodes: sat keeps signed 32-bit sums in range") {
  const Kind& s32 = kinds()[3];
  const auto clamp = [](I128 v) { return std::max<I128>(-0x80000000ll, std::min<I128>(0x7fffffff, v)); };
  binary("add.sat", s32, [&](I128 a, I128 b) { return clamp(a + b); });
  binary("sub.sat", s32, [&](I128 a, I128 b) { return clamp(a - b); });
  ternary("mad.hi.sat", s32, [&](I128 a, I128 b, I128 c) { return clamp(((a * b) >> 32) + c); });
}

CUDASIM_TEST("opcodes: mul24 and mad24 take 24 bits") {
  for (const Kind& k : {kinds()[2], kinds()[3]}) {
    const auto v = [&](I128 a) { return valueOf(static_cast<Bits>(a), 24, k.isSigned); };
    binary("mul24.lo", k, [&](I128 a, I128 b) { return v(a) * v(b); });
    binary("mul24.hi", k, [&](I128 a, I128 b) { return v(a) * v(b) >> 16; });
    ternary("mad24.lo", k, [&](I128 a, I128 b, I128 c) { return v(a) * v(b) + c; });
    ternary("mad24.hi", k, [&](I128 a, I128 b, I128 c) { return (v(a) * v(b) >> 16) + c; });
  }
}

CUDASIM_TEST("opcodes: carries run through sums, differences and products of many words") {
  const Row w = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
  using U128 = unsigned __int128;
  const auto number = [](const Row& a, size_t i) {
    return static_cast<U128>(a[i]) | static_cast<U128>(a[i + 1]) << 32;
  };
  const auto put = [](Op& op, const Row& in, U128 r, int words) {
    Row out;
    for (int i = 0; i < words; ++i) out.push_back(static_cast<uint32_t>(r >> (32 * i)));
    op.row(in, out);
  };
  Op sum("add.cc.u32 %d0, %a0, %a2; addc.cc.u32 %d1, %a1, %a3; addc.u32 %d2, 0, 0;", "www", "wwww");
  Op difference("sub.cc.u32 %d0, %a0, %a2; subc.cc.u32 %d1, %a1, %a3; subc.u32 %d2, 0, 0;", "www", "wwww");
  Op product(
      "mul.lo.u32 %d0, %a0, %a2; mul.hi.u32 %d1, %a0, %a2; mad.lo.cc.u32 %d1, %a0, %a3, %d1; "
      "madc.hi.u32 %d2, %a0, %a3, 0; mad.lo.cc.u32 %d1, %a1, %a2, %d1; madc.hi.cc.u32 %d2, %a1, %a2, %d2; "
      "addc.u32 %d3, 0, 0; mad.lo.cc.u32 %d2, %a1, %a3, %d2; madc.hi.u32 %d3, %a1, %a3, %d3;",
      "wwww", "wwww");
  for (const Bits a : w)
    for (const Bits b : w)
      for (const Bits c : w)
        for (const Bits d : w) {
          const Row in = {a, b, c, d};
          put(sum, in, number(in, 0) + number(in, 2), 3);
          put(difference, in, number(in, 0) - number(in, 2), 3);
          put(product, in, number(in, 0) * number(in, 2), 4);
        }
  // 64 bits at once.
  const Bits top = Bits{1} << 63;
  Op("add.cc.u64 %d0, %a0, %a2; addc.u64 %d1, %a1, %a3;", "dd", "dddd")
      .row({~Bits{0}, 5, 1, 6}, {0, 12})
      .row({top, 0, top, 0}, {0, 1})
      .row({top, 0, top - 1, 0}, {~Bits{0}, 0});
  Op("sub.cc.s64 %d0, %a0, %a2; subc.s64 %d1, %a1, %a3;", "dd", "dddd")
      .row({0, 5, 1, 2}, {~Bits{0}, 2})
      .row({7, 5, 7, 5}, {0, 0});
}

CUDASIM_TEST("opcodes: dp4a and dp2a add products of bytes") {
  Op::of("dp4a.u32.u32", "w", "www").row({0x01020304, 0x05060708, 10}, {10 + 4 * 8 + 3 * 7 + 2 * 6 + 5});
  Op::of("dp4a.s32.s32", "w", "www")
      .row({0xff80017f, 0x02ff7f80, 0}, {0xffffffff & (-1 * 2 + -128 * -1 + 1 * 127 + 127 * -128)});
  Op::of("dp4a.u32.s32", "w", "www")
      .row({0xff80017f, 0x02ff7f80, 1}, {0xffffffff & (1 + 255 * 2 + 128 * -1 + 1 * 127 + 127 * -128)});
  Op::of("dp4a.s32.u32", "w", "www")
      .row({0xff80017f, 0x02ff7f80, 1}, {0xffffffff & (1 + -1 * 2 + -128 * 255 + 1 * 127 + 127 * 128)});
  Op::of("dp2a.lo.u32.u32", "w", "www").row({0x00030002, 0x0a0b0c0d, 1}, {1 + 2 * 13 + 3 * 12});
  Op::of("dp2a.hi.u32.u32", "w", "www").row({0x00030002, 0x0a0b0c0d, 1}, {1 + 2 * 11 + 3 * 10});
  Op::of("dp2a.lo.s32.s32", "w", "www").row({0xffff8000, 0x0000ff02, 0}, {0xffffffff & (-32768 * 2 + -1 * -1)});
}

CUDASIM_TEST("opcodes: pairs of 16-bit integers do not carry into each other") {
  Op::of("add.u16x2", "w", "ww")
      .row({0x0001ffff, 0x00020001}, {0x00030000})
      .row({0xffff0000, 0x00010005}, {0x00000005});
  Op::of("min.s16x2", "w", "ww").row({0x00018000, 0xffff7fff}, {0xffff8000});
  Op::of("max.s16x2", "w", "ww").row({0x00018000, 0xffff7fff}, {0x00017fff});
  Op::of("min.u16x2", "w", "ww").row({0x00018000, 0xffff7fff}, {0x00017fff});
  Op::of("max.u16x2", "w", "ww").row({0x00018000, 0xffff7fff}, {0xffff8000});
}

}  // namespace cudasim::test
