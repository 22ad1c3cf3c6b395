// Logic, shifts, bit fields, permutes and selections.
#include <algorithm>

#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <class T>
T shiftLeft(T a, uint32_t n) {
  constexpr uint32_t bits = 8 * sizeof(T);
  return n < bits ? static_cast<T>(a << (n & (bits - 1))) : T{0};
}

template <class T>
T shiftRight(T a, uint32_t n) {
  constexpr uint32_t bits = 8 * sizeof(T);
  const uint32_t most = std::is_signed_v<T> ? bits - 1 : bits;
  if (std::is_signed_v<T>) return static_cast<T>(a >> (n < most ? n : most));
  return n < bits ? static_cast<T>(a >> (n & (bits - 1))) : T{0};
}

template <class T>
void logic(Registry& r, const std::string& type) {
  add<T, T, T>(r, "and." + type, [](T a, T b) { return static_cast<T>(a & b); });
  add<T, T, T>(r, "or." + type, [](T a, T b) { return static_cast<T>(a | b); });
  add<T, T, T>(r, "xor." + type, [](T a, T b) { return static_cast<T>(a ^ b); });
  add<T, T>(r, "not." + type, [](T a) { return static_cast<T>(~a); });
  add<T, T>(r, "cnot." + type, [](T a) { return static_cast<T>(a == 0); });
  add<T, T, uint32_t>(r, "shl." + type, [](T a, uint32_t n) { return shiftLeft(a, n); });
  add<T, T, uint32_t>(r, "shr." + type, [](T a, uint32_t n) { return shiftRight(a, n); });
}

// Fields of bits: position and length are taken modulo 256; a field past the end is filled with zeros or the sign.
template <class T>
T extractField(T a, uint32_t position, uint32_t length) {
  constexpr int bits = 8 * sizeof(T);
  const int pos = static_cast<int>(position & 0xff), len = static_cast<int>(length & 0xff);
  using U = std::make_unsigned_t<T>;
  const bool negative = std::is_signed_v<T> && len && (static_cast<U>(a) >> std::min(pos + len - 1, bits - 1) & 1);
  const U field = pos < bits ? static_cast<U>(a) >> pos : 0;
  const U mask = len >= bits ? ~U{0} : (U{1} << len) - 1;
  // Bits of the field that lie past the top of a copy the sign as well.
  const int present = std::max(0, std::min(len, bits - pos));
  const U known = present >= bits ? ~U{0} : (U{1} << present) - 1;
  return static_cast<T>(negative ? (field & known) | ~known : field & mask);
}

template <class T>
T insertField(T a, T b, uint32_t position, uint32_t length) {
  constexpr uint32_t bits = 8 * sizeof(T);
  const uint32_t pos = position & 0xff, len = length & 0xff;
  if (pos >= bits || !len) return b;
  const T mask = static_cast<T>((len >= bits ? ~T{0} : (T{1} << len) - 1) << pos);
  return (b & ~mask) | (static_cast<T>(a << pos) & mask);
}

template <class T>
uint32_t findHighest(T a) {  // of the first bit that differs from the sign; all ones when there is none
  using U = std::make_unsigned_t<T>;
  const U v = std::is_signed_v<T> && a < 0 ? static_cast<U>(~a) : static_cast<U>(a);
  return v ? static_cast<uint32_t>(8 * sizeof(T) - 1) - static_cast<uint32_t>(std::countl_zero(v)) : ~0u;
}

template <class T>
T reverse(T v) {
  T result = 0;
  for (size_t i = 0; i < 8 * sizeof(T); ++i) result |= (v >> i & 1) << (8 * sizeof(T) - 1 - i);
  return result;
}

template <class T>
void fields(Registry& r, const std::string& type) {
  addEach<T, T, uint32_t, uint32_t>(r, "bfe." + type,
                                    [](T a, uint32_t p, uint32_t n) { return extractField(a, p, n); });
  addEach<uint32_t, T>(r, "bfind." + type, [](T a) { return findHighest(a); });
  addEach<uint32_t, T>(r, "bfind.shiftamt." + type, [](T a) {
    const uint32_t at = findHighest(a);
    return at == ~0u ? at : static_cast<uint32_t>(8 * sizeof(T) - 1) - at;
  });
}

template <class T>
void counts(Registry& r, const std::string& type) {
  add<uint32_t, T>(r, "popc." + type, [](T a) { return static_cast<uint32_t>(std::popcount(a)); });
  addEach<uint32_t, T>(r, "clz." + type, [](T a) { return static_cast<uint32_t>(std::countl_zero(a)); });
  addEach<T, T>(r, "brev." + type, [](T a) { return reverse(a); });
  addEach<T, T, T, uint32_t, uint32_t>(r, "bfi." + type,
                                       [](T a, T b, uint32_t p, uint32_t n) { return insertField(a, b, p, n); });
}

uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = selector >> 4 * i & 0xf;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (s & 7)) & 0xff;
    if (s & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << 8 * i;
  }
  return result;
}

// The modes of prmt as selectors for `permute`, by the two lowest bits of c.
template <int Mode>
uint32_t permuteMode(uint32_t a, uint32_t b, uint32_t c) {
  static constexpr uint16_t selectors[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543},   // f4e
                                               {0x5670, 0x6701, 0x7012, 0x0123},   // b4e
                                               {0x0000, 0x1111, 0x2222, 0x3333},   // rc8
                                               {0x3210, 0x3211, 0x3222, 0x3333},   // ecl
                                               {0x0000, 0x1110, 0x2210, 0x3210},   // ecr
                                               {0x1010, 0x3232, 0x1010, 0x3232}};  // rc16
  return permute(a, b, selectors[Mode][c & 3]);
}

// r: destination, a, b, c; imm: the truth table.
void runLop3(Warp& w, const Insn& in, uint32_t exec) {
  const auto table = static_cast<uint32_t>(in.imm);
  const uint32_t *a = w.row<uint32_t>(in.r[1]), *b = w.row<uint32_t>(in.r[2]), *c = w.row<uint32_t>(in.r[3]);
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  uint32_t term[8];
  for (int i = 0; i < 8; ++i) term[i] = table >> i & 1 ? ~0u : 0;
#pragma GCC ivdep
  for (int i = 0; i < 32; ++i) {
    const uint32_t x = a[i], y = b[i], z = c[i];
    const uint32_t low = (~y & ((~z & term[0]) | (z & term[1]))) | (y & ((~z & term[2]) | (z & term[3])));
    const uint32_t high = (~y & ((~z & term[4]) | (z & term[5]))) | (y & ((~z & term[6]) | (z & term[7])));
    const uint32_t r = (~x & low) | (x & high);
    d[i] = exec >> i & 1 ? r : d[i];
  }
}

// r: destination, a, b, predicate.
template <class T>
void runSelect(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t p = w.predicates[in.r[3]];
  const Cell<T>*a = w.row<Cell<T>>(in.r[1]), *b = w.row<Cell<T>>(in.r[2]);
  Cell<T>* d = w.row<Cell<T>>(in.r[0]);
#pragma GCC ivdep
  for (int i = 0; i < 32; ++i) {
    const Cell<T> r = p >> i & 1 ? a[i] : b[i];
    d[i] = exec >> i & 1 ? r : d[i];
  }
}

template <class T>
void selections(Registry& r, const std::string& type) {
  const std::string l(1, letter<T>()), capital(1, static_cast<char>(letter<T>() - 'a' + 'A'));
  r.add("selp." + type, &runSelect<T>, capital + l + l + "p");
  add<T, T, T, int32_t>(r, "slct." + type + ".s32", [](T a, T b, int32_t c) { return c >= 0 ? a : b; });
  add<T, T, T, float>(r, "slct." + type + ".f32", [](T a, T b, float c) { return c >= 0 ? a : b; });
  add<T, T, T, float>(r, "slct.ftz." + type + ".f32", [](T a, T b, float c) { return flush(c) >= 0 ? a : b; });
}

// r: destination, a, b of predicates; sub: 0 and, 1 or, 2 xor, 3 not, 4 mov.
void runPredicate(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t a = w.predicates[in.r[1]], b = w.predicates[in.r[2]];
  const uint32_t result = in.sub == 0 ? a & b : in.sub == 1 ? a | b : in.sub == 2 ? a ^ b : in.sub == 3 ? ~a : a;
  uint32_t& d = w.predicates[in.r[0]];
  d = (d & ~exec) | (result & exec);
}

// r: the whole and its 2 or 4 parts (in `more`: parts beyond). sub: bits of a part.
template <bool Split>
void runParts(Warp& w, const Insn& in, uint32_t exec) {
  const int parts = in.count, bits = in.sub, whole = parts * bits;
  const auto part = [&](int k) { return in.r[1 + k]; };
  const auto get = [&](uint32_t row, int width, int i) -> uint64_t {
    return width == 64 ? w.row<uint64_t>(row)[i] : w.row<uint32_t>(row)[i];
  };
  const auto put = [&](uint32_t row, int width, int i, uint64_t v) {
    if (width == 64)
      w.row<uint64_t>(row)[i] = v;
    else
      w.row<uint32_t>(row)[i] = static_cast<uint32_t>(v);
  };
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  if constexpr (Split) {
    for (int k = 0; k < parts; ++k)
      for (int i = 0; i < 32; ++i)
        if (exec >> i & 1) put(part(k), bits, i, get(in.r[0], whole, i) >> (k * bits) & mask);
  } else {
    for (int i = 0; i < 32; ++i) {
      if (!(exec >> i & 1)) continue;
      uint64_t v = 0;
      for (int k = 0; k < parts; ++k) v |= (get(part(k), bits, i) & mask) << (k * bits);
      put(in.r[0], whole, i, v);
    }
  }
}

}  // namespace

void registerBits(Registry& r) {
  logic<uint16_t>(r, "b16");
  logic<uint32_t>(r, "b32");
  logic<uint64_t>(r, "b64");
  for (const char* type : {"u16", "s16"})
    add<uint16_t, uint16_t, uint32_t>(r, std::string("shl.") + type,
                                      [](uint16_t a, uint32_t n) { return shiftLeft(a, n); });
  add<uint16_t, uint16_t, uint32_t>(r, "shr.u16", [](uint16_t a, uint32_t n) { return shiftRight(a, n); });
  add<int16_t, int16_t, uint32_t>(r, "shr.s16", [](int16_t a, uint32_t n) { return shiftRight(a, n); });
  add<uint32_t, uint32_t, uint32_t>(r, "shr.u32", [](uint32_t a, uint32_t n) { return shiftRight(a, n); });
  add<int32_t, int32_t, uint32_t>(r, "shr.s32", [](int32_t a, uint32_t n) { return shiftRight(a, n); });
  add<uint64_t, uint64_t, uint32_t>(r, "shr.u64", [](uint64_t a, uint32_t n) { return shiftRight(a, n); });
  add<int64_t, int64_t, uint32_t>(r, "shr.s64", [](int64_t a, uint32_t n) { return shiftRight(a, n); });
  fields<uint32_t>(r, "u32");
  fields<int32_t>(r, "s32");
  fields<uint64_t>(r, "u64");
  fields<int64_t>(r, "s64");
  counts<uint32_t>(r, "b32");
  counts<uint64_t>(r, "b64");
  for (const char* type : {"b16", "u16", "s16"}) selections<uint16_t>(r, type);
  for (const char* type : {"b32", "u32", "s32", "f32"}) selections<uint32_t>(r, type);
  for (const char* type : {"b64", "u64", "s64", "f64"}) selections<uint64_t>(r, type);

  using U = uint32_t;
  add<U, U, U, U>(r, "shf.l.clamp.b32", [](U a, U b, U c) {
    const U n = c < 32 ? c : 32;
    return static_cast<U>((a | static_cast<uint64_t>(b) << 32) << n >> 32);
  });
  add<U, U, U, U>(r, "shf.l.wrap.b32",
                  [](U a, U b, U c) { return static_cast<U>((a | static_cast<uint64_t>(b) << 32) << (c & 31) >> 32); });
  add<U, U, U, U>(r, "shf.r.clamp.b32", [](U a, U b, U c) {
    const U n = c < 32 ? c : 32;
    return static_cast<U>((a | static_cast<uint64_t>(b) << 32) >> n);
  });
  add<U, U, U, U>(r, "shf.r.wrap.b32",
                  [](U a, U b, U c) { return static_cast<U>((a | static_cast<uint64_t>(b) << 32) >> (c & 31)); });
  add<U, U, U, U>(r, "prmt.b32", [](U a, U b, U c) { return permute(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.f4e", [](U a, U b, U c) { return permuteMode<0>(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.b4e", [](U a, U b, U c) { return permuteMode<1>(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.rc8", [](U a, U b, U c) { return permuteMode<2>(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.ecl", [](U a, U b, U c) { return permuteMode<3>(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.ecr", [](U a, U b, U c) { return permuteMode<4>(a, b, c); });
  add<U, U, U, U>(r, "prmt.b32.rc16", [](U a, U b, U c) { return permuteMode<5>(a, b, c); });
  r.add("@lop3", &runLop3);
  r.add("@predicate", &runPredicate);
  r.add("@split", &runParts<true>);
  r.add("@merge", &runParts<false>);
  add<U, U>(r, "@mov.16", [](U a) { return a; });
  add<U, U>(r, "@mov.32", [](U a) { return a; });
  add<uint64_t, uint64_t>(r, "@mov.64", [](uint64_t a) { return a; });
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
