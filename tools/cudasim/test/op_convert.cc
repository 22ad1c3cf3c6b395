// cvt between all kinds of numbers.
#include "reference.h"

namespace cudasim::test {

namespace {

struct Float {
  const Format& f;
  std::string type;
  char letter;
  const Row& values;
};
const std::vector<Float>& floats() {
  static const std::vector<Float> list = {{kF32, "f32", 'w', kFloats},
                                          {kF64, "f64", 'd', kDoubles},
                                          {kF16, "f16", 'h', kHalves},
                                          {kBF16, "bf16", 'h', kBrains}};
  return list;
}
struct Whole {
  std::string type;
  int width;
  bool isSigned;
  const Row& values;
};
const std::vector<Whole>& integers() {
  static const std::vector<Whole> list = {
      {"u8", 8, false, kShorts},  {"s8", 8, true, kShorts},  {"u16", 16, false, kShorts}, {"s16", 16, true, kShorts},
      {"u32", 32, false, kWords}, {"s32", 32, true, kWords}, {"u64", 64, false, kLongs},  {"s64", 64, true, kLongs}};
  return list;
}

std::string letterOf(int width) { return width <= 16 ? "h" : width == 32 ? "w" : "d"; }

__int128 valueOf(Bits bits, const Whole& k) {
  const __int128 whole = static_cast<__int128>(1) << k.width;
  const __int128 v = static_cast<__int128>(bits) & (whole - 1);
  return k.isSigned && v >= whole / 2 ? v - whole : v;
}
// In a register that may be wider than the type: signed numbers fill it with their sign.
Bits inRegister(__int128 v, const Whole& k, int bits) {
  if (!k.isSigned) v &= (static_cast<__int128>(1) << k.width) - 1;
  return static_cast<Bits>(v & ((static_cast<__int128>(1) << bits) - 1));
}

const std::vector<std::pair<std::string, To>> kRoundings = {
    {"rn", To::kNearest}, {"rz", To::kZero}, {"rm", To::kDown}, {"rp", To::kUp}};

}  // namespace

CUDASIM_TEST("opcodes: cvt from float to integer rounds, clamps, and makes something of NaN") {
  for (const Float& from : floats())
    for (const Whole& to : integers())
      for (const auto& [name, how] : kRoundings)
        for (const bool ftz : {false, true}) {
          if (ftz && from.type != "f32") continue;
          const int bits = std::max(to.width, 16);
          Row values = from.values;
          if (from.type == "f32")
            values.insert(values.end(),
                          {0x4f000000, 0xcf000000, 0xcf000001, 0x4f800000, 0x5f000000, 0xdf000000, 0x5f7fffff,
                           0x3f000000, 0x3fc00000, 0x40200000, 0xbf000000, 0xbfc00000, 0x437f8000, 0x42ff0000});
          if (from.type == "f64")
            values.insert(values.end(), {bitsOf(2147483647.5), bitsOf(-2147483648.5), bitsOf(4294967295.5), bitsOf(0.5),
                                         bitsOf(1.5), bitsOf(-2.5), bitsOf(255.5), bitsOf(-128.5)});
          Op::of("cvt." + name + "i" + (ftz ? ".ftz." : ".") + to.type + "." + from.type, letterOf(to.width),
                 std::string(1, from.letter))
              .sweep({values}, [&](const Row& r) -> Bits {
                const Bits a = ftz ? flushed(r[0], from.f) : r[0];
                const __int128 most = (static_cast<__int128>(1) << (to.width - to.isSigned)) - 1,
                               least = to.isSigned ? -most - 1 : 0;
                if (isNan(a, from.f)) {
                  const bool zero = from.type != "f64" && to.width != 64;
                  return inRegister(zero ? 0 : valueOf(Bits{1} << (to.width - 1), to), to, bits);
                }
                if (isInfinite(a, from.f)) return inRegister(signOf(a, from.f) ? least : most, to, bits);
                const Quad x = decode(a, from.f);
                if (x > power(100) || x < -power(100)) return inRegister(x < 0 ? least : most, to, bits);
                const auto v = static_cast<__int128>(integral(x, how));
                return inRegister(std::max(least, std::min(most, v)), to, bits);
              });
        }
}

CUDASIM_TEST("opcodes: cvt from integer to float in every rounding") {
  for (const Whole& from : integers())
    for (const Float& to : floats())
      for (const auto& [name, how] : kRoundings) {
        Row values = from.values;
        if (from.width >= 32) values.insert(values.end(), {0x1000001, 0x1000003, 0xffffff80, 0xffff7f, 0x8000080});
        if (from.width == 64)
          values.insert(values.end(), {0x20000000000001, 0x20000000000003, 0x4000008000000001, 0xfffffffffffffc00,
                                       0x8000000000000400});
        Op::of("cvt." + name + "." + to.type + "." + from.type, std::string(1, to.letter), letterOf(from.width))
            .sweep({values}, [&](const Row& a) { return encode(static_cast<Quad>(valueOf(a[0], from)), to.f, how); });
      }
}

CUDASIM_TEST("opcodes: cvt between float formats in every rounding, with ftz, sat and relu") {
  for (const Float& from : floats())
    for (const Float& to : floats()) {
      const bool narrows = to.f.digits < from.f.digits || (to.type == "f16" && from.type == "bf16");
      const bool apart = (from.type == "f16") != (to.type == "f16") && from.f.bits == to.f.bits && from.type != to.type;
      if (from.type == to.type || apart || (from.type == "f64" && to.f.bits == 16) ||
          (from.f.bits == 16 && to.type == "f64"))
        continue;
      for (const auto& [name, how] : kRoundings)
        for (const std::string m : {"", "ftz", "sat", "relu"}) {
          const bool one = from.type == "f32" || to.type == "f32";
          if (!narrows && name != "rn") continue;
          if ((m == "ftz" && !one) || (m == "relu" && to.f.bits != 16) ||
              (m == "relu" && (name == "rm" || name == "rp")))
            continue;
          if (from.type == "bf16" || (to.type == "bf16" && (name == "rm" || name == "rp"))) {
            if (!m.empty() || narrows) continue;
          }
          if (to.type == "bf16" && (m == "ftz" || m == "sat")) continue;
          Row values = from.values;
          if (from.type == "f32")
            values.insert(values.end(),
                          {0x477fefff, 0x477ff000, 0x33000000, 0x33000001, 0x38800000, 0x387fe000, 0x387fefff,
                           0x3f802000, 0x3f801000, 0x3f803000, 0x3f808000, 0x3f818000, 0x7f7f8000});
          if (from.type == "f64")
            values.insert(values.end(), {bitsOf(0x1.000001p0), bitsOf(0x1.000003p0), bitsOf(-0x1.fffffffp127),
                                         bitsOf(0x1p-150), bitsOf(0x1.8p-149), bitsOf(0x1.ffffffp-127)});
          const std::string opcode =
              "cvt" + (narrows ? "." + name : "") + (m.empty() ? "" : "." + m) + "." + to.type + "." + from.type;
          Op::of(opcode, std::string(1, to.letter), std::string(1, from.letter))
              .sweep({values}, [&](const Row& r) -> Bits {
                const Bits a = m == "ftz" && from.type == "f32" ? flushed(r[0], from.f) : r[0];
                if (isNan(a, from.f)) return m == "sat" ? 0 : to.f.nan;
                const bool negative = signOf(a, from.f);
                if (m == "relu" && negative) return 0;
                Bits result = isInfinite(a, from.f) ? infinityOf(to.f) | static_cast<Bits>(negative) << (to.f.bits - 1)
                                                    : encode(decode(a, from.f), to.f, how, negative);
                if (m == "ftz" && to.type == "f32") result = flushed(result, to.f);
                return m == "sat" ? saturated(result, to.f) : result;
              });
        }
    }
}

CUDASIM_TEST("opcodes: cvt to an integral float of the same format") {
  for (const Float& k : floats()) {
    if (k.type == "bf16") continue;
    Row values = k.values;
    if (k.type == "f32")
      values.insert(values.end(), {0x3f000000, 0x3fc00000, 0x40200000, 0xbf000000, 0xbf400000, 0x4b000001, 0x4affffff});
    for (const auto& [name, how] : kRoundings)
      Op::of("cvt." + name + "i." + k.type + "." + k.type, std::string(1, k.letter), std::string(1, k.letter))
          .sweep({values}, [&](const Row& a) -> Bits {
            if (isNan(a[0], k.f)) return k.f.nan;
            const bool negative = signOf(a[0], k.f);
            if (isInfinite(a[0], k.f)) return a[0];
            const Quad x = decode(a[0], k.f);
            if (x >= power(100) || x <= -power(100)) return a[0];
            return encode(integral(x, how), k.f, how, negative);
          });
  }
}

CUDASIM_TEST("opcodes: cvt between integers cuts, extends, and with sat clamps") {
  for (const Whole& from : integers())
    for (const Whole& to : integers())
      for (const bool sat : {false, true}) {
        if (sat && from.type == to.type) continue;
        const int bits = std::max(to.width, 16);
        Op::of(std::string("cvt.") + (sat ? "sat." : "") + to.type + "." + from.type, letterOf(to.width),
               letterOf(from.width))
            .sweep({from.values}, [&](const Row& a) {
              __int128 v = valueOf(a[0], from);
              const __int128 most = (static_cast<__int128>(1) << (to.width - to.isSigned)) - 1,
                             least = to.isSigned ? -most - 1 : 0;
              v = sat ? std::max(least, std::min(most, v)) : valueOf(static_cast<Bits>(v), to);
              return inRegister(v, to, bits);
            });
      }
  // Registers wider than their types: the source is cut, the result extended.
  Op::of("cvt.s32.s8", "w", "w").row({0x12345680}, {0xffffff80}).row({0xffffff7f}, {0x7f});
  Op::of("cvt.u32.u8", "w", "w").row({0x12345680}, {0x80});
  Op::of("cvt.s8.s32", "w", "w").row({0x00000180}, {0xffffff80});
  Op::of("cvt.u16.u64", "h", "d").row({0x123456789abcdef0}, {0xdef0});
  Op::of("cvt.s64.s16", "d", "h").row({0x8000}, {0xffffffffffff8000});
  Op::of("cvt.rn.f32.u8", "w", "h").row({0x1ff}, {bitsOf(255.0f)});
}

CUDASIM_TEST("opcodes: cvt packs two floats, the first on top, and rounds to tf32") {
  const auto half = [](Bits a, const Format& f, To how, bool relu) -> Bits {
    if (isNan(a, kF32)) return f.nan;
    if (relu && signOf(a, kF32)) return 0;
    if (isInfinite(a, kF32)) return infinityOf(f) | (signOf(a, kF32) ? 0x8000 : 0);
    return encode(decode(a, kF32), f, how, signOf(a, kF32));
  };
  for (const auto& [type, f] : {std::pair<std::string, const Format*>{"f16x2", &kF16}, {"bf16x2", &kBF16}})
    for (const auto& [name, how] : {std::pair<std::string, To>{"rn", To::kNearest}, {"rz", To::kZero}})
      for (const bool relu : {false, true})
        Op::of("cvt." + name + (relu ? ".relu." : ".") + type + ".f32", "w", "ww")
            .sweep({kFloats, {0x3f800000, 0xbf801000, 0x477ff000}},
                   [&](const Row& a) { return half(a[0], *f, how, relu) << 16 | half(a[1], *f, how, relu); });
  const Row ties = {0x3f801000, 0x3f803000, 0xbf801000, 0x3f800fff, 0x3f801001, 0x7f7ff000, 0x00001000, 0x00000fff};
  Row values = kFloats;
  values.insert(values.end(), ties.begin(), ties.end());
  for (const auto& [name, how] : {std::pair<std::string, To>{"rna", To::kAway}, {"rn", To::kNearest}})
    Op::of("cvt." + name + ".tf32.f32", "w", "w").sweep({values}, [&](const Row& a) -> Bits {
      if (isNan(a[0], kF32)) return 0x7fffffff;
      if (isInfinite(a[0], kF32)) return a[0];
      return encode(decode(a[0], kF32), kTF32, how, signOf(a[0], kF32));
    });
}

}  // namespace cudasim::test
