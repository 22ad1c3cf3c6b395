// Float arithmetic of every format against exact sums and products that reference.h rounds by definition.
#include "reference.h"

namespace cudasim::test {

namespace {

struct Rounding {
  const char* name;
  To to;
};
const std::vector<Rounding> kRoundings = {
    {"", To::kNearest}, {".rn", To::kNearest}, {".rz", To::kZero}, {".rm", To::kDown}, {".rp", To::kUp}};

// Values whose sums and products 128 bits hold exactly: exponents less than 50 apart.
const Row kNear = {0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x3f800001, 0x3f7fffff, 0x33800000, 0xb3800001,
                   0x40490fdb, 0xc2f6e979, 0x4b7fffff, 0x39d1b717, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345};

Bits combine(Bits a, Bits b, const Format& f, To to, bool product) {
  const bool sign = signOf(a, f) != signOf(b, f);
  if (isNan(a, f) || isNan(b, f)) return f.nan;
  if (product) {
    if ((isInfinite(a, f) && isZero(b, f)) || (isZero(a, f) && isInfinite(b, f))) return f.nan;
    if (isInfinite(a, f) || isInfinite(b, f)) return infinityOf(f) | static_cast<Bits>(sign) << (f.bits - 1);
    return encode(decode(a, f) * decode(b, f), f, to, sign);
  }
  if (isInfinite(a, f) && isInfinite(b, f)) return sign ? f.nan : a;
  if (isInfinite(a, f)) return a;
  if (isInfinite(b, f)) return b;
  // An exact zero is positive unless both are negative zeros, or when rounding downwards.
  const bool zero = (signOf(a, f) && signOf(b, f)) || (to == To::kDown && (sign || !isZero(a, f)));
  return encode(decode(a, f) + decode(b, f), f, to, zero);
}

Bits fused(Bits a, Bits b, Bits c, const Format& f, To to) {
  const bool sign = signOf(a, f) != signOf(b, f);
  if (isNan(a, f) || isNan(b, f) || isNan(c, f)) return f.nan;
  if ((isInfinite(a, f) && isZero(b, f)) || (isZero(a, f) && isInfinite(b, f))) return f.nan;
  if (isInfinite(a, f) || isInfinite(b, f))
    return isInfinite(c, f) && signOf(c, f) != sign ? f.nan : infinityOf(f) | static_cast<Bits>(sign) << (f.bits - 1);
  if (isInfinite(c, f)) return c;
  const Quad product = decode(a, f) * decode(b, f), sum = product + decode(c, f);
  const bool same = sign == signOf(c, f);
  return encode(sum, f, to, same ? sign : to == To::kDown);
}

// A quotient or root in 128 bits is off by less than a 2^-80th of the format's last place, and never a tie.
Bits quotient(Bits a, Bits b, const Format& f, To to) {
  const bool sign = signOf(a, f) != signOf(b, f);
  const Bits top = static_cast<Bits>(sign) << (f.bits - 1);
  if (isNan(a, f) || isNan(b, f)) return f.nan;
  if ((isInfinite(a, f) && isInfinite(b, f)) || (isZero(a, f) && isZero(b, f))) return f.nan;
  if (isInfinite(a, f) || isZero(b, f)) return infinityOf(f) | top;
  if (isInfinite(b, f) || isZero(a, f)) return top;
  return encode(decode(a, f) / decode(b, f), f, to, sign);
}

Bits root(Bits a, const Format& f, To to) {
  if (isNan(a, f) || (signOf(a, f) && !isZero(a, f))) return f.nan;
  if (isZero(a, f) || isInfinite(a, f)) return a;
  const Quad x = decode(a, f);
  Quad r = std::sqrt(static_cast<double>(x));
  if (x < power(-1000)) r = std::sqrt(static_cast<double>(x * power(400))) * power(-200);
  for (int i = 0; i < 3; ++i) r = (r + x / r) / 2;
  // Exact roots stay exact.
  const auto near = static_cast<Quad>(static_cast<double>(r));
  return encode(near * near == x ? near : r, f, to);
}

struct Modifier {
  const char* name;
  bool ftz, sat;
};
const std::vector<Modifier> kModifiers = {
    {"", false, false}, {".ftz", true, false}, {".sat", false, true}, {".ftz.sat", true, true}};

Bits finish(Bits r, const Modifier& m, const Format& f) {
  if (r != kAnyNan && m.ftz) r = flushed(r, f);
  return m.sat ? saturated(r, f) : r;
}

}  // namespace

CUDASIM_TEST("opcodes: add, sub, mul of f32 in every rounding, with ftz and sat") {
  for (const Rounding& r : kRoundings)
    for (const Modifier& m : kModifiers) {
      const std::string tail = std::string(r.name) + m.name + ".f32";
      const auto in = [&](Bits b) { return m.ftz ? flushed(b, kF32) : b; };
      const auto check = [&](const char* name, bool product, Bits flip, const Row& values) {
        Op::of(name + tail, "w", "ww").sweep({values, values}, [&](const Row& a) {
          return finish(combine(in(a[0]), in(a[1]) ^ flip, kF32, r.to, product), m, kF32);
        });
      };
      check("add", false, 0, kNear);
      check("sub", false, 0x80000000, kNear);
      check("mul", true, 0, kFloats);
    }
  // Denormals, where sums are exact in any rounding.
  const Row small = {0, 0x80000000, 1, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000, 0x00ffffff};
  for (const Modifier& m : kModifiers)
    Op::of(std::string("add.rn") + m.name + ".f32", "w", "ww").sweep({small, small}, [&](const Row& a) {
      const auto in = [&](Bits b) { return m.ftz ? flushed(b, kF32) : b; };
      return finish(combine(in(a[0]), in(a[1]), kF32, To::kNearest, false), m, kF32);
    });
}

CUDASIM_TEST("opcodes: fma of f32 and f64 rounds once, in every rounding") {
  const Row third = {0, 0x80000000, 0x3f800000, 0xbf800001, 0x34000000, 0xb2800000, 0x7f800000, 0x7fc00000, 0x42f6e979};
  for (const Rounding& r : kRoundings) {
    if (!*r.name) continue;
    for (const Modifier& m : kModifiers)
      Op::of(std::string("fma") + r.name + m.name + ".f32", "w", "www").sweep({kNear, kNear, third}, [&](const Row& a) {
        return finish(fused(a[0], a[1], a[2], kF32, r.to), m, kF32);
      });
    // In double 128 bits are exact only for short factors.
    const Row d = {bitsOf(0.0),           bitsOf(-0.0), bitsOf(1.0),        bitsOf(-1.5),       bitsOf(1.0 + 0x1p-26),
                   bitsOf(1.0 - 0x1p-27), bitsOf(3.0),  0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000};
    const Row c = {bitsOf(0.0), bitsOf(-0.0),           bitsOf(0x1p-52),   bitsOf(-0x1p-54),
                   bitsOf(1.0), bitsOf(-1.0 - 0x1p-26), 0x7ff0000000000000};
    Op::of(std::string("fma") + r.name + ".f64", "d", "ddd").sweep({d, d, c}, [&](const Row& a) {
      return fused(a[0], a[1], a[2], kF64, r.to);
    });
  }
}

CUDASIM_TEST("opcodes: div, rcp, sqrt of f32 in every rounding") {
  for (const Rounding& r : kRoundings) {
    if (!*r.name) continue;
    for (const bool ftz : {false, true}) {
      const std::string tail = std::string(r.name) + (ftz ? ".ftz" : "") + ".f32";
      const auto in = [&](Bits b) { return ftz ? flushed(b, kF32) : b; };
      const auto out = [&](Bits b) { return ftz ? flushed(b, kF32) : b; };
      Op::of("div" + tail, "w", "ww").sweep({kFloats, kFloats}, [&](const Row& a) {
        return out(quotient(in(a[0]), in(a[1]), kF32, r.to));
      });
      Op::of("rcp" + tail, "w", "w").sweep({kFloats}, [&](const Row& a) {
        return out(quotient(0x3f800000, in(a[0]), kF32, r.to));
      });
      Op::of("sqrt" + tail, "w", "w").sweep({kFloats}, [&](const Row& a) { return out(root(in(a[0]), kF32, r.to)); });
    }
  }
}

CUDASIM_TEST("opcodes: add, sub, mul, div, rcp, sqrt of f64 in every rounding") {
  const Row near = {bitsOf(0.0),        bitsOf(-0.0),       bitsOf(1.0),        bitsOf(-1.0), 0x3ff0000000000001,
                    0x3fefffffffffffff, bitsOf(0x1p-53),    bitsOf(-0x1.8p-53), bitsOf(3.25), bitsOf(-123.456),
                    0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000};
  const Row shortOnes = {bitsOf(0.0),         bitsOf(-0.0),       bitsOf(1.0 + 0x1p-30), bitsOf(-3.0 - 0x1p-40),
                         bitsOf(0x1.7p-1000), bitsOf(-0x1.3p-74), bitsOf(0x1.9p1000),    0x7ff0000000000000,
                         0x7ff8000000000000,  0x0000000000000001};
  for (const Rounding& r : kRoundings) {
    const std::string tail = std::string(r.name) + ".f64";
    Op::of("add" + tail, "d", "dd").sweep({near, near}, [&](const Row& a) {
      return combine(a[0], a[1], kF64, r.to, false);
    });
    Op::of("sub" + tail, "d", "dd").sweep({near, near}, [&](const Row& a) {
      return combine(a[0], a[1] ^ Bits{1} << 63, kF64, r.to, false);
    });
    Op::of("mul" + tail, "d", "dd").sweep({shortOnes, shortOnes}, [&](const Row& a) {
      return combine(a[0], a[1], kF64, r.to, true);
    });
    if (!*r.name) continue;
    const Row divisors = {bitsOf(1.0),  bitsOf(3.0),       bitsOf(-7.0),       bitsOf(0.0),
                          bitsOf(-0.0), bitsOf(0x1.8p300), 0x7ff0000000000000, 0x7ff8000000000000};
    Op::of("div" + tail, "d", "dd").sweep({near, divisors}, [&](const Row& a) {
      return quotient(a[0], a[1], kF64, r.to);
    });
    Op::of("rcp" + tail, "d", "d").sweep({divisors}, [&](const Row& a) {
      return quotient(bitsOf(1.0), a[0], kF64, r.to);
    });
    Op::of("sqrt" + tail, "d", "d").sweep({kDoubles}, [&](const Row& a) { return root(a[0], kF64, r.to); });
  }
}

CUDASIM_TEST("opcodes: f16 and bf16 arithmetic rounds exact results once") {
  struct Kind {
    const Format& f;
    std::string type;
    const Row& values;
    bool modifiers;
  };
  for (const Kind& k : {Kind{kF16, ".f16", kHalves, true}, Kind{kBF16, ".bf16", kBrains, false}})
    for (const Modifier& m : kModifiers) {
      if (!k.modifiers && *m.name) continue;
      const auto in = [&](Bits b) { return m.ftz ? flushed(b, k.f) : b; };
      const auto one = [&](char op, Bits a, Bits b) {
        return finish(combine(in(a), in(b) ^ (op == '-' ? 0x8000 : 0), k.f, To::kNearest, op == '*'), m, k.f);
      };
      for (const auto& [name, op] : {std::pair{"add", '+'}, std::pair{"sub", '-'}, std::pair{"mul", '*'}}) {
        for (const char* round : {"", ".rn"}) {
          const std::string opcode = std::string(name) + round + m.name + k.type;
          Op::of(opcode, "h", "hh").sweep({k.values, k.values}, [&](const Row& a) { return one(op, a[0], a[1]); });
          Op::of(opcode + "x2", "w", "ww")
              .sweep({{0x3c003555, 0xfbff0001, 0x7c009401}, {0x3c013bff, 0x7bff8001, 0x0000fc00}}, [&](const Row& a) {
                return one(op, a[0] & 0xffff, a[1] & 0xffff) | one(op, a[0] >> 16, a[1] >> 16) << 16;
              });
        }
      }
      const Row third = {0, 0x8000, k.f.digits == 11 ? 0x3c01u : 0x3f81u, k.f.digits == 11 ? 0x9001u : 0xbc01u,
                         k.f.nan};
      for (const bool relu : {false, true}) {
        if (relu && m.sat) continue;
        const auto fma = [&](const Row& a) {
          Bits r = finish(fused(in(a[0]), in(a[1]), in(a[2]), k.f, To::kNearest), m, k.f);
          return relu && signOf(r, k.f) && !isNan(r, k.f) ? 0 : r;
        };
        Op::of(std::string("fma.rn") + m.name + (relu ? ".relu" : "") + k.type, "h", "hhh")
            .sweep({k.values, k.values, third}, fma);
      }
    }
}

}  // namespace cudasim::test
