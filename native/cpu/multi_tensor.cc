// What is done to all gradients at once: their norm, clipping, and the loss scaler's part. The split among threads is
// that of the optimizers, by elements and not by tensors.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "multi_tensor.cc"
#include "multi_tensor.h"

#include <hwy/foreach_target.h>

#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

// out = map(in) element by element, where they are tensors of one layout.
template <class Map>
void mapAll(const OpCall& call, int count, const Map& map) {
  forElements(call.out, count, [&](int i, int64_t from, int64_t to) {
    visitFloating(call.out[i].dtype, [&](auto type) {
      using P = decltype(type);
      const hn::ScalableTag<Compute<P>> d;
      const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
      const P* in = call.in[i].as<P>();
      P* out = call.out[i].as<P>();
      int64_t j = from;
      for (; j + lanes <= to; j += lanes) vec::store(d, map(d, vec::load(d, in + j)), out + j);
      if (j < to) vec::storeTail(d, map(d, vec::loadTail(d, in + j, to - j)), out + j, to - j);
    });
  });
}

void scale(const OpCall& call, int count, double factor) {
  mapAll(call, count,
         [factor](auto d, auto x) { return hn::Mul(x, hn::Set(d, static_cast<hn::TFromD<decltype(d)>>(factor))); });
}

void clampAll(const OpCall& call, int count, double limit) {
  mapAll(call, count, [limit](auto d, auto x) {
    const auto bound = hn::Set(d, static_cast<hn::TFromD<decltype(d)>>(limit));
    const auto low = hn::IfThenElse(hn::Gt(x, bound), bound, x);  // NaN stays
    return hn::IfThenElse(hn::Lt(low, hn::Neg(bound)), hn::Neg(bound), low);
  });
}

// --- norm ------------------------------------------------------------------------------------------------------------

constexpr int64_t kChunk = 1 << 14;  // elements summed in vectors before the sum goes to float64

enum class NormKind { kSum, kSquares, kMost, kLeast, kCount, kPower };

// One chunk's share: sums for finite p, the extreme for infinite p. Four accumulators hide the additions' latency.
template <NormKind kind, class P>
double normOfChunk(const P* x, int64_t n, double p) {
  using T = Compute<P>;
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, T(1));
  const auto merge = [&](auto total, auto v) {
    const auto size = hn::Abs(v);
    if constexpr (kind == NormKind::kSum) return hn::Add(total, size);
    if constexpr (kind == NormKind::kSquares) return hn::MulAdd(v, v, total);
    // comparisons are written so that NaN takes over and stays
    if constexpr (kind == NormKind::kMost)
      return hn::IfThenElse(hn::Or(hn::Gt(size, total), hn::IsNaN(v)), size, total);
    if constexpr (kind == NormKind::kLeast)
      return hn::IfThenElse(hn::Or(hn::Lt(size, total), hn::IsNaN(v)), size, total);
    if constexpr (kind == NormKind::kCount) return hn::Add(total, hn::IfThenZeroElse(hn::Eq(v, hn::Zero(d)), one));
    if constexpr (kind == NormKind::kPower) {
      return hn::Add(total, vec::mapLanes(d, size, [p](T each) { return static_cast<T>(std::pow(each, p)); }));
    }
  };
  const T start = kind == NormKind::kLeast ? std::numeric_limits<T>::infinity() : T(0);
  auto a = hn::Set(d, start), b = a, c = a, e = a;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = merge(a, vec::load(d, x + i));
    b = merge(b, vec::load(d, x + i + lanes));
    c = merge(c, vec::load(d, x + i + 2 * lanes));
    e = merge(e, vec::load(d, x + i + 3 * lanes));
  }
  constexpr bool extreme = kind == NormKind::kMost || kind == NormKind::kLeast;
  T parts[4 * hn::MaxLanes(d)];
  hn::StoreU(a, d, parts);
  hn::StoreU(b, d, parts + lanes);
  hn::StoreU(c, d, parts + 2 * lanes);
  hn::StoreU(e, d, parts + 3 * lanes);
  double total = start;
  const auto mergeOne = [&](double value) {
    if constexpr (kind == NormKind::kMost)
      total = value > total || value != value ? value : total;
    else if constexpr (kind == NormKind::kLeast)
      total = value < total || value != value ? value : total;
    else
      total += value;
  };
  for (int64_t j = 0; j < 4 * lanes; ++j) mergeOne(static_cast<double>(parts[j]));
  for (; i < n; ++i) {
    const double v = std::abs(static_cast<double>(widen(x[i])));
    if constexpr (extreme || kind == NormKind::kSum)
      mergeOne(v);
    else if constexpr (kind == NormKind::kSquares)
      mergeOne(v * v);
    else if constexpr (kind == NormKind::kCount)
      mergeOne(v != 0 ? 1 : 0);
    else
      mergeOne(std::pow(v, p));
  }
  return total;
}

double chunkShare(const TensorView& tensor, int64_t from, int64_t n, double p) {
  return visitFloating(tensor.dtype, [&](auto type) -> double {
    using P = decltype(type);
    const P* x = tensor.as<P>() + from;
    if (p == 2) return normOfChunk<NormKind::kSquares>(x, n, p);
    if (p == 1) return normOfChunk<NormKind::kSum>(x, n, p);
    if (p == std::numeric_limits<double>::infinity()) return normOfChunk<NormKind::kMost>(x, n, p);
    if (p == -std::numeric_limits<double>::infinity()) return normOfChunk<NormKind::kLeast>(x, n, p);
    if (p == 0) return normOfChunk<NormKind::kCount>(x, n, p);
    return normOfChunk<NormKind::kPower>(x, n, p);
  });
}

void norm(const OpCall& call) {
  const double p = call.attr[0];
  const int64_t chunks = countChunks(call.in, call.nIn, kChunk);
  double* shares = call.scratch<double>(std::max<int64_t>(1, chunks));
  forChunks(call.in, call.nIn, kChunk,
            [&](int i, int64_t from, int64_t n, int64_t at) { shares[at] = chunkShare(call.in[i], from, n, p); });
  const bool most = p == std::numeric_limits<double>::infinity(), least = p == -std::numeric_limits<double>::infinity();
  double total = least && chunks > 0 ? std::numeric_limits<double>::infinity() : 0;
  for (int64_t i = 0; i < chunks; ++i) {
    const double share = shares[i];
    if (most)
      total = share > total || share != share ? share : total;
    else if (least)
      total = share < total || share != share ? share : total;
    else
      total += share;
  }
  if (p == 2)
    total = std::sqrt(total);
  else if (!most && !least && p != 0 && p != 1)
    total = std::pow(total, 1 / p);
  *call.out[0].as<float>() = static_cast<float>(total);
}

// --- unscaling -------------------------------------------------------------------------------------------------------

// Divides one chunk by the scale and tells whether all of it was finite before. The sum of the squares of what it
// leaves has the bits that normOfChunk would find.
template <bool write, class P>
bool unscaleChunk(P* x, int64_t n, float inverse, double* squares) {
  using T = Compute<P>;
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, static_cast<T>(inverse)), zero = hn::Zero(d);
  auto a = zero, b = zero, c = zero, e = zero;
  auto finite = zero;  // stays 0 unless something times 0 is NaN
  const auto pass = [&](int64_t at, auto& total) {
    const auto v = vec::load(d, x + at);
    finite = hn::MulAdd(v, zero, finite);
    auto u = hn::Mul(v, factor);
    if constexpr (write) {
      vec::store(d, u, x + at);
      if constexpr (sizeof(P) == 2) u = vec::load(d, x + at);  // as it was rounded
    }
    total = hn::MulAdd(u, u, total);
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    pass(i, a);
    pass(i + lanes, b);
    pass(i + 2 * lanes, c);
    pass(i + 3 * lanes, e);
  }
  T parts[4 * hn::MaxLanes(d)];
  hn::StoreU(a, d, parts);
  hn::StoreU(b, d, parts + lanes);
  hn::StoreU(c, d, parts + 2 * lanes);
  hn::StoreU(e, d, parts + 3 * lanes);
  double total = 0;
  for (int64_t j = 0; j < 4 * lanes; ++j) total += static_cast<double>(parts[j]);
  bool good = hn::AllTrue(d, hn::Eq(finite, zero));
  for (; i < n; ++i) {
    const T v = widen(x[i]);
    good = good && std::isfinite(v);
    T u = v * static_cast<T>(inverse);
    if constexpr (write) {
      x[i] = Narrow<P>::from(u);
      u = widen(x[i]);
    }
    total += static_cast<double>(u) * static_cast<double>(u);
  }
  *squares = total;
  return good;
}

void unscale(const OpCall& call) {
  const int count = call.nIn - 1;
  const bool write = call.flag(0);
  const TensorView& scale = call.in[count];
  const float inverse = scale.present() ? static_cast<float>(1.0 / *scale.as<float>()) : 1;
  const int64_t chunks = countChunks(call.in, count, kChunk);
  double* shares = call.scratch<double>(std::max<int64_t>(1, chunks));
  int32_t* culprits = call.scratch<int32_t>(std::max<int64_t>(1, chunks));
  forChunks(call.in, count, kChunk, [&](int i, int64_t from, int64_t n, int64_t at) {
    const bool good = visitFloating(call.in[i].dtype, [&](auto type) {
      using P = decltype(type);
      return write ? unscaleChunk<true, P>(call.out[i].as<P>() + from, n, inverse, shares + at)
                   : unscaleChunk<false, P>(call.in[i].as<P>() + from, n, inverse, shares + at);
    });
    culprits[at] = good ? -1 : i;
  });
  double total = 0;
  int32_t first = -1;
  for (int64_t at = 0; at < chunks; ++at) {
    total += shares[at];
    if (first < 0) first = culprits[at];
  }
  const TensorView* results = call.out + call.nOut - 3;
  *results[0].as<float>() = first < 0 ? 0 : 1;
  *results[1].as<float>() = static_cast<float>(std::sqrt(total));
  *results[2].as<int32_t>() = first;
}

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(scale);
HWY_EXPORT(clampAll);
HWY_EXPORT(norm);
HWY_EXPORT(unscale);

void run_multiTensorNorm(const OpCall& call) { HWY_DYNAMIC_DISPATCH(norm)(call); }
void run_multiTensorScale(const OpCall& call) { HWY_DYNAMIC_DISPATCH(scale)(call, call.nOut, call.attr[0]); }
void run_multiTensorClamp(const OpCall& call) { HWY_DYNAMIC_DISPATCH(clampAll)(call, call.nOut, call.attr[0]); }
void run_multiTensorUnscale(const OpCall& call) { HWY_DYNAMIC_DISPATCH(unscale)(call); }

void run_gate(const OpCall& call) { *call.out[0].as<float>() = 0; }

void run_multiTensorClip(const OpCall& call) {
  // In float32, as PyTorch computes it. A NaN norm scales by NaN; an infinite one by 0, so that finite elements become
  // 0 and infinite ones NaN.
  const float norm = *call.in[call.nOut].as<float>();
  const float factor = static_cast<float>(call.attr[0]) / (norm + 1e-6f);
  if (factor >= 1) return;
  HWY_DYNAMIC_DISPATCH(scale)(call, call.nOut, factor);
}

// PyTorch's rule (_amp_update_scale_): one overflow anywhere backs off at once; growthInterval updates without one
// grow, unless the larger scale would not be finite, and the count begins again either way.
void run_scalerUpdate(const OpCall& call) {
  float *scale = call.out[0].as<float>(), *status = call.out[2].as<float>();
  int32_t* tracker = call.out[1].as<int32_t>();
  int pair = -1, first = -1;
  for (int i = 0; i + 1 < call.nIn && pair < 0; i += 2) {
    if (*call.in[i].as<float>() == 0) continue;
    pair = i / 2;
    first = *call.in[i + 1].as<int32_t>();
  }
  if (pair >= 0) {
    *scale = static_cast<float>(*scale * call.attr[1]);
    *tracker = 0;
  } else {
    const int64_t good = int64_t{*tracker} + 1;
    const bool grows = static_cast<double>(good) == call.attr[2];
    const float grown = static_cast<float>(*scale * call.attr[0]);
    if (grows && std::isfinite(grown)) *scale = grown;
    *tracker = grows ? 0 : static_cast<int32_t>(good);
  }
  status[0] = *scale;
  status[1] = static_cast<float>(pair);
  status[2] = static_cast<float>(first);
}

}  // namespace gradus::cpu
#endif
