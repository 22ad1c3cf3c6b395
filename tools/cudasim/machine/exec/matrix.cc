// mma.sync: D [16, 8] = A [16, K] B [K, 8] + C. Products are exact and each is added in float32: PTX leaves order and
// precision of the sum open, as long as it is no worse than that. This file is compiled with -ffp-contract=fast, which
// changes nothing where products are exact.
#include "matrix.h"

#include "../run/launch_state.h"
#include "lanes.h"
#include "tiles.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

struct Tf32 {};

using Row = float __attribute__((vector_size(32)));  // eight columns

uint32_t slot(const Insn& in, int i) { return i < kSlots ? in.r[i] : in.more[i - kSlots]; }

// Numbers of K in a register: each lane has one or two.
template <class H>
constexpr int kWide = std::is_same_v<H, Tf32> ? 4 : 8;

// A register of A as 8 rows of kWide numbers.
template <class H>
void rowsOf(const uint32_t* row, float* out) {
  if constexpr (std::is_same_v<H, Tf32>) {
    for (int i = 0; i < 32; ++i) out[i] = asFloat(row[i] & ~0x1fffu);
  } else {
    widen(H{}, reinterpret_cast<const uint16_t*>(row), out);
  }
}

// A register of B holds columns; this gives kWide rows of 8 numbers.
template <class H>
void columnsOf(const uint32_t* row, float* out) {
  if constexpr (std::is_same_v<H, Tf32>) {
    for (int k = 0; k < 4; ++k)
      for (int n = 0; n < 8; ++n) out[k * 8 + n] = asFloat(row[n * 4 + k] & ~0x1fffu);
  } else {
    alignas(64) uint16_t turned[64];
    transpose(reinterpret_cast<const uint16_t*>(row), turned);
    widen(H{}, turned, out);
  }
}

// Fragments, with g = lane / 4 and t = lane % 4: a register of A holds row g, or g + 8 for odd ones; every two
// registers move on in K by kWide, as does every register of B. Accumulators hold columns 2 t and 2 t + 1, in two
// registers or as a pair of halves.
template <class H, bool HalfAccumulator>
void multiply(Warp& w, const Insn& in, uint32_t exec) {
  exec = w.meet(in, exec, nullptr, true);
  if (!exec) return;
  if (exec != ~0u) w.fault(Fault::kBadMemberMask, in, std::countr_zero(exec), "mma needs all 32 lanes");
  const MmaShape& shape = kMmaShapes[in.sub];
  constexpr int wide = kWide<H>;
  alignas(64) float a[4][64], b[2 * wide][8], c[16][8];
  const int firstA = shape.d, firstB = firstA + shape.a, firstC = firstB + shape.b;
  for (int r = 0; r < shape.a; ++r) rowsOf<H>(w.row<uint32_t>(slot(in, firstA + r)), a[r]);
  for (int r = 0; r < shape.b; ++r) columnsOf<H>(w.row<uint32_t>(slot(in, firstB + r)), b[r * wide]);
  for (int half = 0; half < 2; ++half) {
    float* to = c[half * 8];
    if constexpr (HalfAccumulator) {
      widen(F16{}, w.row<uint16_t>(slot(in, firstC + half)), to);
    } else {
      const uint32_t *even = w.row<uint32_t>(slot(in, firstC + 2 * half)),
                     *odd = w.row<uint32_t>(slot(in, firstC + 2 * half + 1));
      for (int i = 0; i < 32; ++i) to[2 * i] = asFloat(even[i]), to[2 * i + 1] = asFloat(odd[i]);
    }
  }
  Row sum[16];
  std::memcpy(sum, c, sizeof sum);
  for (int part = 0; part < shape.b; ++part)
    for (int k = 0; k < wide; ++k) {
      Row line;
      std::memcpy(&line, b[part * wide + k], sizeof line);
      const float *upper = a[2 * part] + k, *lower = a[2 * part + 1] + k;
#pragma GCC unroll 8
      for (int m = 0; m < 8; ++m) sum[m] += upper[m * wide] * line;
#pragma GCC unroll 8
      for (int m = 0; m < 8; ++m) sum[m + 8] += lower[m * wide] * line;
    }
  std::memcpy(c, sum, sizeof sum);
  for (int half = 0; half < 2; ++half) {
    const float* from = c[half * 8];
    if constexpr (HalfAccumulator) {
      uint16_t* to = w.row<uint16_t>(slot(in, half));
      for (int i = 0; i < 64; ++i) to[i] = toF16(from[i]).bits;
    } else {
      uint32_t *even = w.row<uint32_t>(slot(in, 2 * half)), *odd = w.row<uint32_t>(slot(in, 2 * half + 1));
      for (int i = 0; i < 32; ++i) {
        even[i] = asBits(canonical(from[2 * i]));
        odd[i] = asBits(canonical(from[2 * i + 1]));
      }
    }
  }
}

}  // namespace

void registerMatrix(Registry& r) {
  r.add("@mma.f16.f32", &multiply<F16, false>);
  r.add("@mma.f16.f16", &multiply<F16, true>);
  r.add("@mma.bf16.f32", &multiply<BF16, false>);
  r.add("@mma.tf32.f32", &multiply<Tf32, false>);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
