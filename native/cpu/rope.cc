// Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pairs of features (a, b) turn by an angle,
//   a' = a cos - b sin,   b' = b cos + a sin,
// where a pair is (i, i + D/2) (Llama, GPT-NeoX) or (2i, 2i + 1) when interleaved (GPT-J). `inverse` multiplies with
// the transposed matrix: that is backward, also for tables in which the two features of a pair have their own angle.
#include "../core/op.h"
#include "../core/element.h"
#include "parallel.h"

namespace gradus::cpu {
namespace {

struct Rows {
  int64_t strides[kMaxRank];  // of x's dims; 0 where broadcast
};

Rows broadcastStrides(const TensorView& t, const TensorView& x) {
  Rows rows{};
  for (int d = 0; d < x.rank; ++d) {
    const int from = d - (x.rank - t.rank);
    rows.strides[d] = from < 0 || t.sizes[from] == 1 ? 0 : t.strides[from];
  }
  return rows;
}

template <class X, class Table>
void rotate(const OpCall& call) {
  using T = Compute<X>;
  const TensorView &x = call.in[0], &out = call.out[0];
  const bool interleaved = call.flag(0);
  const T sign = call.flag(1) ? T(-1) : T(1);
  const int64_t width = x.size(-1), half = width / 2, rows = width > 0 ? x.numel / width : 0;
  const Rows of[4] = {broadcastStrides(x, x), broadcastStrides(call.in[1], x), broadcastStrides(call.in[2], x),
                      broadcastStrides(out, x)};
  const int last = x.rank - 1;
  const int64_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half;
  const int64_t sx = of[0].strides[last], sc = of[1].strides[last], ss = of[2].strides[last], so = of[3].strides[last];
  const bool inverse = call.flag(1);

  parallelFor(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t at[4] = {};
      for (int64_t d = last - 1, rest = row; d >= 0; rest /= x.sizes[d], --d) {
        for (int i = 0; i < 4; ++i) at[i] += rest % x.sizes[d] * of[i].strides[d];
      }
      const X* from = x.as<X>() + at[0];
      const Table* cos = call.in[1].as<Table>() + at[1];
      const Table* sin = call.in[2].as<Table>() + at[2];
      X* to = out.as<X>() + at[3];
      for (int64_t i = 0; i < half; ++i) {
        const int64_t p = i * step, q = p + apart;
        const T a = widen(from[p * sx]), b = widen(from[q * sx]);
        // The sine beside b's angle moves a into b', so the transpose reads it for a.
        const T sinA = widen(sin[(inverse ? q : p) * ss]), sinB = widen(sin[(inverse ? p : q) * ss]);
        to[p * so] = Narrow<X>::from(a * widen(cos[p * sc]) - sign * (b * sinA));
        to[q * so] = Narrow<X>::from(b * widen(cos[q * sc]) + sign * (a * sinB));
      }
    }
  });
}

}  // namespace

void run_rope(const OpCall& call) {
  visitFloating(call.in[0].dtype, [&](auto x) {
    using X = decltype(x);
    if constexpr (std::is_same_v<X, double>) {
      rotate<double, double>(call);
    } else {
      switch (call.in[1].dtype) {
        case DType::kFloat16: return rotate<X, Float16>(call);
        case DType::kBFloat16: return rotate<X, BFloat16>(call);
        default: return rotate<X, float>(call);
      }
    }
  });
}

}  // namespace gradus::cpu
