// Logic, shifts, fields, permutes, selections.
#include "op.h"

namespace cudasim::test {

namespace {

const Row kAmounts = {0, 1, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 0x80000000, 0xffffffff};

Bits cut(Bits v, int width) { return width == 64 ? v : v & ((Bits{1} << width) - 1); }
bool bitOf(Bits v, Bits i) { return v >> i & 1; }

}  // namespace

CUDASIM_TEST("opcodes: logic works bit by bit") {
  struct Kind {
    const char* name;
    char letter;
    int width;
    const Row& values;
  };
  for (const Kind& k : {Kind{"b16", 'h', 16, kShorts}, Kind{"b32", 'w', 32, kWords}, Kind{"b64", 'd', 64, kLongs}}) {
    const std::string l(1, k.letter), t = "." + std::string(k.name);
    Op::of("and" + t, l, l + l).sweep({k.values, k.values}, [](const Row& a) { return a[0] & a[1]; });
    Op::of("or" + t, l, l + l).sweep({k.values, k.values}, [](const Row& a) { return a[0] | a[1]; });
    Op::of("xor" + t, l, l + l).sweep({k.values, k.values}, [](const Row& a) { return a[0] ^ a[1]; });
    Op::of("not" + t, l, l).sweep({k.values}, [&](const Row& a) { return cut(~a[0], k.width); });
    Op::of("cnot" + t, l, l).sweep({k.values}, [&](const Row& a) { return Bits{a[0] == 0}; });
  }
  Op("and.pred %d0, %a0, %a1; or.pred %d1, %a0, %a1; xor.pred %d2, %a0, %a1; not.pred %d3, %a0; mov.pred %d4, %a1;",
     "ppppp", "pp")
      .row({0, 0}, {0, 0, 0, 1, 0})
      .row({0, 1}, {0, 1, 1, 1, 1})
      .row({1, 0}, {0, 1, 1, 0, 0})
      .row({1, 1}, {1, 1, 0, 0, 1});
}

CUDASIM_TEST("opcodes: shifts past the width give zeros or the sign") {
  struct Kind {
    const char* name;
    char letter;
    int width;
    bool isSigned;
    const Row& values;
  };
  for (const Kind& k :
       {Kind{"u16", 'h', 16, false, kShorts}, Kind{"s16", 'h', 16, true, kShorts}, Kind{"u32", 'w', 32, false, kWords},
        Kind{"s32", 'w', 32, true, kWords}, Kind{"u64", 'd', 64, false, kLongs}, Kind{"s64", 'd', 64, true, kLongs}}) {
    const std::string l(1, k.letter);
    Op::of("shr." + std::string(k.name), l, l + "w").sweep({k.values, kAmounts}, [&](const Row& a) {
      Bits r = 0;
      for (Bits i = 0; i < static_cast<Bits>(k.width); ++i) {
        const Bits from = i + a[1];
        const bool inside = from < static_cast<Bits>(k.width);
        r |= Bits{inside ? bitOf(a[0], from) : k.isSigned && bitOf(a[0], static_cast<Bits>(k.width - 1))} << i;
      }
      return r;
    });
    if (k.isSigned) continue;
    const std::string type = "b" + std::to_string(k.width);
    Op::of("shl." + type, l, l + "w").sweep({k.values, kAmounts}, [&](const Row& a) {
      return a[1] < static_cast<Bits>(k.width) ? cut(a[0] << a[1], k.width) : 0;
    });
    Op::of("shr." + type, l, l + "w").sweep({k.values, kAmounts}, [&](const Row& a) {
      return a[1] < static_cast<Bits>(k.width) ? a[0] >> a[1] : 0;
    });
  }
}

CUDASIM_TEST("opcodes: funnel shifts take b as the upper word, and clamp or wrap their amount") {
  const auto funnel = [](const Row& a, Bits n, bool left) {
    const unsigned __int128 both = static_cast<unsigned __int128>(a[1]) << 32 | a[0];
    return static_cast<Bits>(left ? (both << n) >> 32 : both >> n) & 0xffffffff;
  };
  const std::vector<Row> values = {kWords, {0x9abcdef0, 0, 0xffffffff, 1}, kAmounts};
  Op::of("shf.l.clamp.b32", "w", "www").sweep(values, [&](const Row& a) {
    return funnel(a, std::min<Bits>(a[2], 32), true);
  });
  Op::of("shf.l.wrap.b32", "w", "www").sweep(values, [&](const Row& a) { return funnel(a, a[2] & 31, true); });
  Op::of("shf.r.clamp.b32", "w", "www").sweep(values, [&](const Row& a) {
    return funnel(a, std::min<Bits>(a[2], 32), false);
  });
  Op::of("shf.r.wrap.b32", "w", "www").sweep(values, [&](const Row& a) { return funnel(a, a[2] & 31, false); });
}

CUDASIM_TEST("opcodes: bfe takes a field bit by bit, with the sign above it") {
  const Row places = {0, 1, 7, 16, 30, 31, 32, 33, 63, 64, 200, 255, 256 + 3};
  const Row lengths = {0, 1, 2, 8, 16, 31, 32, 33, 63, 64, 255, 256 + 4};
  for (const int width : {32, 64})
    for (const bool isSigned : {false, true}) {
      const std::string l = width == 32 ? "w" : "d", type = (isSigned ? "s" : "u") + std::to_string(width);
      // As in the ISA document: the sign bit is that of the field's last bit, or of the last bit there is.
      Op::of("bfe." + type, l, l + "ww").sweep({width == 32 ? kWords : kLongs, places, lengths}, [&](const Row& a) {
        const Bits pos = a[1] & 0xff, len = a[2] & 0xff, msb = static_cast<Bits>(width - 1);
        const bool sign = !isSigned || len == 0 ? false : bitOf(a[0], std::min(pos + len - 1, msb));
        Bits r = 0;
        for (Bits i = 0; i <= msb; ++i) r |= Bits{i < len && pos + i <= msb ? bitOf(a[0], pos + i) : sign} << i;
        return r;
      });
    }
}

CUDASIM_TEST("opcodes: bfi puts a field in, as far as there is room") {
  const Row places = {0, 1, 7, 31, 32, 63, 64, 255, 256 + 3}, lengths = {0, 1, 8, 31, 32, 33, 64, 255, 256 + 4};
  for (const int width : {32, 64}) {
    const std::string l = width == 32 ? "w" : "d";
    const Row& values = width == 32 ? kWords : kLongs;
    Op::of("bfi.b" + std::to_string(width), l, l + l + "ww")
        .sweep({values, {0, cut(~Bits{0}, width), 0x12345678}, places, lengths}, [&](const Row& a) {
          const Bits pos = a[2] & 0xff, len = a[3] & 0xff, msb = static_cast<Bits>(width - 1);
          Bits r = a[1];
          for (Bits i = 0; i < len && pos + i <= msb; ++i)
            r = (r & ~(Bits{1} << (pos + i))) | Bits{bitOf(a[0], i)} << (pos + i);
          return r;
        });
  }
}

CUDASIM_TEST("opcodes: popc, clz, brev, bfind count and find bits") {
  for (const int width : {32, 64}) {
    const std::string l = width == 32 ? "w" : "d", b = ".b" + std::to_string(width), n = std::to_string(width);
    const Row& values = width == 32 ? kWords : kLongs;
    const auto highest = [&](Bits v) {
      for (int i = width - 1; i >= 0; --i)
        if (bitOf(v, static_cast<Bits>(i))) return i;
      return -1;
    };
    Op::of("popc" + b, "w", l).sweep({values}, [&](const Row& a) {
      Bits c = 0;
      for (int i = 0; i < width; ++i) c += bitOf(a[0], static_cast<Bits>(i));
      return c;
    });
    Op::of("clz" + b, "w", l).sweep({values}, [&](const Row& a) {
      return static_cast<Bits>(width - 1 - highest(a[0]));
    });
    Op::of("brev" + b, l, l).sweep({values}, [&](const Row& a) {
      Bits r = 0;
      for (int i = 0; i < width; ++i) r |= Bits{bitOf(a[0], static_cast<Bits>(i))} << (width - 1 - i);
      return r;
    });
    for (const bool isSigned : {false, true})
      for (const bool amount : {false, true})
        Op::of(std::string("bfind") + (amount ? ".shiftamt" : "") + (isSigned ? ".s" : ".u") + n, "w", l)
            .sweep({values}, [&](const Row& a) {
              const bool flip = isSigned && bitOf(a[0], static_cast<Bits>(width - 1));
              const int at = highest(flip ? cut(~a[0], width) : a[0]);
              return static_cast<Bits>(static_cast<uint32_t>(at < 0 || !amount ? at : width - 1 - at));
            });
  }
}

CUDASIM_TEST("opcodes: prmt picks bytes and copies signs, in all of its modes") {
  const Bits a = 0x83c2a145, b = 0x07f69ed8;  // bytes 0 to 7: 45 a1 c2 83 d8 9e f6 07
  Op::of("prmt.b32", "w", "www")
      .row({a, b, 0x3210}, {a})
      .row({a, b, 0x7654}, {b})
      .row({a, b, 0x0462}, {0x45d8f6c2})
      .row({a, b, 0x89ab}, {0x00ffffff})  // signs of bytes 0, 1, 2, 3
      .row({a, b, 0xcdef}, {0xffffff00})  // of 4, 5, 6, 7
      .row({a, b, 0xffff3210}, {a});      // only 16 bits count
  const auto mode = [&](const char* name, std::vector<Bits> results) {
    Op op = Op::of(std::string("prmt.b32.") + name, "w", "www");
    for (Bits c = 0; c < 4; ++c) op.row({a, b, c}, {results[c]}).row({a, b, c | 0xfffffffc}, {results[c]});
  };
  mode("f4e", {0x83c2a145, 0xd883c2a1, 0x9ed883c2, 0xf69ed883});
  mode("b4e", {0x9ef60745, 0xf60745a1, 0x0745a1c2, 0x45a1c283});
  mode("rc8", {0x45454545, 0xa1a1a1a1, 0xc2c2c2c2, 0x83838383});
  mode("ecl", {0x83c2a145, 0x83c2a1a1, 0x83c2c2c2, 0x83838383});
  mode("ecr", {0x45454545, 0xa1a1a145, 0xc2c2a145, 0x83c2a145});
  mode("rc16", {0xa145a145, 0x83c283c2, 0xa145a145, 0x83c283c2});
}

CUDASIM_TEST("opcodes: lop3 with every table") {
  const Row values = {0x0f0f00ff, 0xf0ccaa55, 0x12345678};
  for (int table = 0; table < 256; ++table)
    Op("lop3.b32 %d0, %a0, %a1, %a2, " + std::to_string(table) + ";", "w", "www")
        .sweep({values, values, values}, [&](const Row& a) {
          Bits r = 0;
          for (Bits i = 0; i < 32; ++i)
            r |= Bits{bitOf(static_cast<Bits>(table),
                            Bits{bitOf(a[0], i)} << 2 | Bits{bitOf(a[1], i)} << 1 | Bits{bitOf(a[2], i)})}
                 << i;
          return r;
        });
}

CUDASIM_TEST("opcodes: selp and slct choose") {
  Op::of("selp.b32", "w", "wwp").row({1, 2, 1}, {1}).row({1, 2, 0}, {2});
  Op::of("selp.f64", "d", "ddp").row({1, 2, 1}, {1}).row({1, 2, 0}, {2});
  Op::of("selp.u16", "h", "hhp").row({1, 2, 1}, {1}).row({1, 2, 0}, {2});
  Op::of("slct.s32.s32", "w", "www").row({1, 2, 0}, {1}).row({1, 2, 0x7fffffff}, {1}).row({1, 2, 0xffffffff}, {2});
  Op::of("slct.u64.f32", "d", "ddw")
      .row({1, 2, 0x80000000}, {1})  // -0 is not below 0
      .row({1, 2, 0x80000001}, {2})
      .row({1, 2, 0x7fc00000}, {2})  // NaN
      .row({1, 2, 0x3f800000}, {1});
  Op::of("slct.ftz.u64.f32", "d", "ddw").row({1, 2, 0x80000001}, {1}).row({1, 2, 0xbf800000}, {2});
}

CUDASIM_TEST("opcodes: mov takes wide registers apart and puts them together, low part first") {
  Op("mov.b64 {%d0, %d1}, %a0;", "ww", "d").row({0x1122334455667788}, {0x55667788, 0x11223344});
  Op("mov.b64 {%d0, %d1, %d2, %d3}, %a0;", "hhhh", "d").row({0x1122334455667788}, {0x7788, 0x5566, 0x3344, 0x1122});
  Op("mov.b32 {%d0, %d1}, %a0;", "hh", "w").row({0xaabbccdd}, {0xccdd, 0xaabb});
  Op("mov.b64 %d0, {%a0, %a1};", "d", "ww").row({0x55667788, 0x11223344}, {0x1122334455667788});
  Op("mov.b64 %d0, {%a0, %a1, %a2, %a3};", "d", "hhhh").row({0x7788, 0x5566, 0x3344, 0x1122}, {0x1122334455667788});
  Op("mov.b32 %d0, {%a0, %a1};", "w", "hh").row({0xccdd, 0xaabb}, {0xaabbccdd});
  Op("mov.b32 {%d0, _}, %a0;", "h", "w").row({0xaabbccdd}, {0xccdd});
}

}  // namespace cudasim::test
