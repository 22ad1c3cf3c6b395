// min, max, neg, abs, copysign, comparisons and properties of floats; comparisons of integers.
#include "reference.h"

namespace cudasim::test {

namespace {

struct Kind {
  const Format& f;
  std::string type;
  char letter;
  const Row& values;
};
const std::vector<Kind>& floats() {
  static const std::vector<Kind> list = {{kF32, "f32", 'w', kFloats},
                                         {kF64, "f64", 'd', kDoubles},
                                         {kF16, "f16", 'h', kHalves},
                                         {kBF16, "bf16", 'h', kBrains}};
  return list;
}

bool below(Bits a, Bits b, const Format& f) {
  const auto value = [&](Bits x) {
    return isInfinite(x, f) ? (signOf(x, f) ? -power(16000) : power(16000)) : decode(x, f);
  };
  return value(a) < value(b);
}

Bits pick(Bits a, Bits b, const Format& f, bool least, bool nan) {
  if (isNan(a, f) && isNan(b, f)) return f.nan;
  if (nan && (isNan(a, f) || isNan(b, f))) return f.nan;
  if (isNan(a, f)) return b;
  if (isNan(b, f)) return a;
  if (isZero(a, f) && isZero(b, f)) return least ? a | b : a & b;  // +0 is more than -0
  return below(a, b, f) == least ? a : b;
}

}  // namespace

CUDASIM_TEST("opcodes: min and max, with NaN, ftz and xorsign.abs") {
  for (const Kind& k : floats()) {
    const std::string l(1, k.letter);
    const Bits top = Bits{1} << (k.f.bits - 1);
    for (const bool least : {true, false})
      for (const bool ftz : {false, true})
        for (const bool nan : {false, true})
          for (const bool abs : {false, true}) {
            if ((ftz && (k.type == "f64" || k.type == "bf16")) || (k.type == "f64" && (nan || abs))) continue;
            const std::string opcode = std::string(least ? "min" : "max") + (ftz ? ".ftz" : "") + (nan ? ".NaN" : "") +
                                       (abs ? ".xorsign.abs" : "") + "." + k.type;
            Op::of(opcode, l, l + l).sweep({k.values, k.values}, [&](const Row& r) {
              Bits a = ftz ? flushed(r[0], k.f) : r[0], b = ftz ? flushed(r[1], k.f) : r[1];
              const Bits sign = (a ^ b) & top;
              if (abs) a &= ~top, b &= ~top;
              const Bits result = pick(a, b, k.f, least, nan);
              return abs && !isNan(result, k.f) && result != kAnyNan ? result | sign : result;
            });
          }
  }
}

CUDASIM_TEST("opcodes: neg, abs and copysign change the sign alone") {
  for (const Kind& k : floats()) {
    const std::string l(1, k.letter), t = "." + k.type;
    const Bits top = Bits{1} << (k.f.bits - 1);
    for (const bool ftz : {false, true}) {
      if (ftz && (k.type == "f64" || k.type == "bf16")) continue;
      const auto in = [&](Bits a) { return ftz ? flushed(a, k.f) : a; };
      const std::string m = ftz ? ".ftz" : "";
      Op::of("neg" + m + t, l, l).sweep({k.values}, [&](const Row& a) {
        return isNan(a[0], k.f) ? k.f.nan : in(a[0]) ^ top;
      });
      Op::of("abs" + m + t, l, l).sweep({k.values}, [&](const Row& a) {
        return isNan(a[0], k.f) ? k.f.nan : in(a[0]) & ~top;
      });
    }
    if (k.f.bits > 16)
      Op::of("copysign" + t, l, l + l).sweep({k.values, k.values}, [&](const Row& a) {
        return (a[0] & top) | (a[1] & ~top);
      });
  }
}

CUDASIM_TEST("opcodes: setp and set compare floats, ordered and unordered") {
  const std::vector<std::string> codes = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                          "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  for (const Kind& k : floats())
    for (const std::string& code : codes)
      for (const bool ftz : {false, true}) {
        if (ftz && (k.type == "f64" || k.type == "bf16")) continue;
        const auto holds = [&](const Row& r) -> bool {
          const Bits a = ftz ? flushed(r[0], k.f) : r[0], b = ftz ? flushed(r[1], k.f) : r[1];
          const bool nan = isNan(a, k.f) || isNan(b, k.f);
          if (code == "num") return !nan;
          if (code == "nan") return nan;
          if (nan) return code.size() == 3;
          const bool less = below(a, b, k.f), more = below(b, a, k.f);
          const std::string c = code.substr(0, 2);
          return c == "eq"   ? !less && !more
                 : c == "ne" ? less || more
                 : c == "lt" ? less
                 : c == "le" ? !more
                 : c == "gt" ? more
                             : !less;
        };
        const std::string l(1, k.letter), tail = code + (ftz ? ".ftz" : "");
        Op::of("setp." + tail + "." + k.type, "p", l + l).sweep({k.values, k.values}, [&](const Row& a) {
          return Bits{holds(a)};
        });
        if (k.type == "f32") {
          Op::of("set." + tail + ".u32.f32", "w", "ww").sweep({k.values, k.values}, [&](const Row& a) {
            return holds(a) ? 0xffffffff : 0;
          });
          Op::of("set." + tail + ".f32.f32", "w", "ww").sweep({k.values, k.values}, [&](const Row& a) {
            return holds(a) ? 0x3f800000 : 0;
          });
        }
      }
}

CUDASIM_TEST("opcodes: setp of integers knows signs, combines with a predicate, and gives the complement") {
  struct Whole {
    const char* type;
    char letter;
    int width;
    bool isSigned;
    const Row& values;
  };
  for (const Whole& k : {Whole{"u16", 'h', 16, false, kShorts}, Whole{"s16", 'h', 16, true, kShorts},
                         Whole{"u32", 'w', 32, false, kWords}, Whole{"s32", 'w', 32, true, kWords},
                         Whole{"u64", 'd', 64, false, kLongs}, Whole{"s64", 'd', 64, true, kLongs}}) {
    const Bits flip = k.isSigned ? Bits{1} << (k.width - 1) : 0;  // makes unsigned order of signed
    const std::string l(1, k.letter);
    const auto check = [&](const std::string& code, auto f) {
      Op::of("setp." + code + "." + k.type, "p", l + l).sweep({k.values, k.values}, [&](const Row& a) {
        return Bits{f(a[0] ^ flip, a[1] ^ flip)};
      });
    };
    check("eq", [](Bits a, Bits b) { return a == b; });
    check("ne", [](Bits a, Bits b) { return a != b; });
    check("lt", [](Bits a, Bits b) { return a < b; });
    check("le", [](Bits a, Bits b) { return a <= b; });
    check("gt", [](Bits a, Bits b) { return a > b; });
    check("ge", [](Bits a, Bits b) { return a >= b; });
    if (k.isSigned) continue;
    check("lo", [](Bits a, Bits b) { return a < b; });
    check("ls", [](Bits a, Bits b) { return a <= b; });
    check("hi", [](Bits a, Bits b) { return a > b; });
    check("hs", [](Bits a, Bits b) { return a >= b; });
  }
  const auto both = [](const std::string& how, const std::string& third, auto f) {
    Op op("setp.lt." + how + ".s32 %d0|%d1, %a0, %a1, " + third + ";", "pp", "wwp");
    for (const Bits a : {1, 2})
      for (const Bits b : {1, 2})
        for (const Bits c : {0, 1}) op.row({a, b, c}, {Bits{f(a < b, c != 0)}, Bits{f(a >= b, c != 0)}});
  };
  both("and", "%a2", [](bool t, bool c) { return t && c; });
  both("or", "%a2", [](bool t, bool c) { return t || c; });
  both("xor", "%a2", [](bool t, bool c) { return t != c; });
  both("and", "!%a2", [](bool t, bool c) { return t && !c; });
}

CUDASIM_TEST("opcodes: setp and set of packed halves look at each half") {
  Op::of("set.lt.f16x2.f16x2", "w", "ww")
      .row({0x3c00c000, 0x3c003c00}, {0x00003c00})
      .row({0x7e000000, 0x3c003c00}, {0x00003c00});
  Op::of("set.gtu.bf16x2.bf16x2", "w", "ww").row({0x7fc03f80, 0x3f803f80}, {0x3f800000});
  Op("setp.lt.f16x2 %d0|%d1, %a0, %a1;", "pp", "ww")
      .row({0x3c00c000, 0x3c003c00}, {1, 0})
      .row({0xbc007e00, 0x3c003c00}, {0, 1});
}

CUDASIM_TEST("opcodes: testp tells kinds of numbers, zero being normal") {
  for (const Kind& k : {floats()[0], floats()[1]}) {
    const int fraction = k.f.digits - 1;
    const auto check = [&](const std::string& what, auto f) {
      Op::of("testp." + what + "." + k.type, "p", std::string(1, k.letter)).sweep({k.values}, [&](const Row& a) {
        return Bits{f(a[0])};
      });
    };
    const auto denormal = [&](Bits a) { return !isZero(a, k.f) && magnitudeOf(a, k.f) >> fraction == 0; };
    const auto finite = [&](Bits a) { return !isNan(a, k.f) && !isInfinite(a, k.f); };
    check("finite", finite);
    check("infinite", [&](Bits a) { return isInfinite(a, k.f); });
    check("number", [&](Bits a) { return !isNan(a, k.f); });
    check("notanumber", [&](Bits a) { return isNan(a, k.f); });
    check("normal", [&](Bits a) { return finite(a) && !denormal(a); });
    check("subnormal", denormal);
  }
}

}  // namespace cudasim::test
