// Layer norm and root-mean-square norm over the last dims, seen as rows of `width` elements.
//
// Forward reads a row from memory once; its passes find it in the first-level cache: the mean first, then the sum of
// squared differences from it, which stays exact where E[x^2] - E[x]^2 would cancel. Backward reads g and x once:
//   xhat = (x - mean) rstd, gw = g weight
//   dx = rstd (gw - mean(gw) - xhat mean(gw xhat)),  dweight = sum over rows of g xhat,  dbias = sum over rows of g
// (rms norm: mean = 0 and the mean(gw) term falls away). Forward may leave xhat behind, in 16 bits, so that nobody has
// to keep a wider x for backward. Rows are split into parts by their number alone; a part sums dweight and dbias for
// itself and the parts are added in order, so the bits do not depend on the threads. Ba et al. 2016, arXiv:1607.06450;
// Zhang & Sennrich 2019, arXiv:1910.07467.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norm.cc"
#include <hwy/foreach_target.h>

#include "rows-inl.h"
#include "views.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Sum of term(i, count) over a row, with four accumulators because one would wait for itself.
template <class D, class Term>
HWY_INLINE hn::TFromD<D> sumOver(D d, int64_t n, const Term& term) {
  constexpr int64_t kLanes = hn::MaxLanes(D());
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = hn::Add(s0, term(i, kLanes));
    s1 = hn::Add(s1, term(i + kLanes, kLanes));
    s2 = hn::Add(s2, term(i + 2 * kLanes, kLanes));
    s3 = hn::Add(s3, term(i + 3 * kLanes, kLanes));
  }
  forVectors(d, n - i, [&](int64_t j, int64_t count) GRADUS_INLINE_BODY {
    s0 = hn::Add(s0, padded(d, term(i + j, count), count, 0));
  });
  return vec::sumLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

template <class C>
struct Rows {
  int64_t count, width;
  const C *weight, *bias;  // null: 1 and 0
};

// kCentered: layer norm, which takes the mean away; rms norm does not.
// normalized: x without weight and bias, or null.
template <bool kCentered, class T, class H, class C = Compute<T>>
void normalize(const T* x, T* y, C* means, C* rstds, H* normalized, const Rows<C>& rows, C eps) {
  const Lanes<T> d;
  const int64_t n = rows.width;
  const C inverse = C(1) / static_cast<C>(n);
  const bool stream = streamsRows(y, rows.count, n, sizeof(T));
  parallelFor(rows.count, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* from = x + r * n;
      T* to = y + r * n;
      H* hat = normalized ? normalized + r * n : nullptr;
      C mean = 0;
      if (kCentered) {
        mean = inverse *
               sumOver(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY { return loadSome(d, from + i, count); });
        means[r] = mean;
      }
      const auto center = hn::Set(d, mean);
      const C squares = sumOver(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
        const auto v = hn::Sub(loadSome(d, from + i, count), center);
        return hn::Mul(v, v);
      });
      const C rstd = C(1) / std::sqrt(squares * inverse + eps);
      rstds[r] = rstd;
      const auto scale = hn::Set(d, rstd);
      forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
        auto v = hn::Mul(hn::Sub(loadSome(d, from + i, count), center), scale);
        if (hat) storeSome(d, v, hat + i, count);
        if (rows.weight) v = hn::Mul(v, loadSome(d, rows.weight + i, count));
        if (rows.bias) v = hn::Add(v, loadSome(d, rows.bias + i, count));
        putSome(d, v, to + i, count, stream);
      });
    }
    hwy::FlushStream();
  });
}

// H: of x, which may be normalized already.
template <class T, class H, class C>
struct Gradient {
  const T* g;
  const H* x;
  const C *means, *rstds;
  T* dx;
  C *dweight, *dbias;  // [parts, width] each, or null
  bool accumulate;     // dx += instead of dx =
  bool normalized;     // x is xhat, and there are no means
};

template <bool kCentered, bool kParameters, class T, class H, class C = Compute<T>>
void gradientRows(const Gradient<T, H, C>& of, const Rows<C>& rows, int64_t begin, int64_t end, C* dweight, C* dbias) {
  const Lanes<T> d;
  const int64_t n = rows.width;
  const C inverse = C(1) / static_cast<C>(n);
  const bool stream = !of.accumulate && streamsRows(of.dx, rows.count, n, sizeof(T));
  for (int64_t r = begin; r < end; ++r) {
    const T* g = of.g + r * n;
    const H* x = of.x + r * n;
    T* dx = of.dx + r * n;
    const auto rstd = hn::Set(d, of.rstds[r]);
    const C scaling = of.normalized ? C(1) : of.rstds[r];
    const auto scale = hn::Set(d, scaling);
    const auto center = hn::Set(d, kCentered && !of.normalized ? of.means[r] : C(0));
    auto sum = hn::Zero(d), dot = hn::Zero(d);
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      auto grad = loadSome(d, g + i, count);  // absent lanes are 0 and add nothing
      const auto hat = hn::Mul(hn::Sub(loadSome(d, x + i, count), center), scale);
      if (kParameters) {
        storeSome(d, hn::MulAdd(grad, hat, loadSome(d, dweight + i, count)), dweight + i, count);
        if (kCentered) storeSome(d, hn::Add(grad, loadSome(d, dbias + i, count)), dbias + i, count);
      }
      if (rows.weight) grad = hn::Mul(grad, loadSome(d, rows.weight + i, count));
      sum = hn::Add(sum, grad);
      dot = hn::MulAdd(grad, hat, dot);
    });
    // dx = rstd (gw - a - (x - mean) b) with b = rstd mean(gw xhat), or xhat and mean(gw xhat)
    const auto a = hn::Set(d, kCentered ? inverse * vec::sumLanes(d, sum) : C(0));
    const auto b = hn::Set(d, inverse * vec::sumLanes(d, dot) * scaling);
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      auto grad = loadSome(d, g + i, count);
      if (rows.weight) grad = hn::Mul(grad, loadSome(d, rows.weight + i, count));
      const auto from = hn::Sub(loadSome(d, x + i, count), center);
      const auto made = hn::NegMulAdd(from, b, hn::Sub(grad, a));
      putSome(d, of.accumulate ? hn::MulAdd(made, rstd, loadSome(d, dx + i, count)) : hn::Mul(made, rstd), dx + i,
              count, stream);
    });
  }
  hwy::FlushStream();
}

// Rows of a part: enough that adding the parts up costs little, and sums short enough to round little.
constexpr int64_t kPartRows = 64, kMostParts = 64;

// The columns of [parts, width] added up, in the order of the parts.
template <class C>
void addParts(C* parts, int64_t count, int64_t n, const TensorView& out) {
  const hn::ScalableTag<C> d;
  visitFloating(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* to = out.as<T>();
    if constexpr (std::is_same_v<Compute<T>, C>) {
      forVectors(d, n, [&](int64_t i, int64_t lanes) GRADUS_INLINE_BODY {
        auto sum = hn::Zero(d);
        for (int64_t p = 0; p < count; ++p) sum = hn::Add(sum, loadSome(d, parts + p * n + i, lanes));
        storeSome(d, sum, to + i, lanes);
      });
    } else {
      for (int64_t i = 0; i < n; ++i) {
        C sum = 0;
        for (int64_t p = 0; p < count; ++p) sum += parts[p * n + i];
        to[i] = Narrow<T>::from(sum);
      }
    }
  });
}

template <bool kCentered, class T, class H, class C = Compute<T>>
void gradient(const OpCall& call, Gradient<T, H, C> of, const Rows<C>& rows) {
  const int64_t n = rows.width;
  const TensorView& dweight = call.out[1];
  const bool wantsBias = kCentered && call.out[2].numel > 0, parameters = dweight.numel > 0 || wantsBias;
  const int64_t perPart = std::max(kPartRows, (rows.count + kMostParts - 1) / kMostParts);
  const int64_t parts = (rows.count + perPart - 1) / perPart;
  const size_t partial = parameters ? static_cast<size_t>(parts) * n : 1;
  of.dweight = call.scratch<C>(partial);
  of.dbias = call.scratch<C>(kCentered ? partial : 1);
  parallelFor(parts, std::max<int64_t>(1, 16384 / (n * perPart)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t from = p * perPart, to = std::min(rows.count, from + perPart);
      if (!parameters) {
        gradientRows<kCentered, false, T, H, C>(of, rows, from, to, nullptr, nullptr);
        continue;
      }
      C *w = of.dweight + p * n, *b = of.dbias + (kCentered ? p * n : 0);
      std::fill_n(w, n, C(0));
      if (kCentered) std::fill_n(b, n, C(0));
      gradientRows<kCentered, true, T, H, C>(of, rows, from, to, w, b);
    }
  });
  if (dweight.numel > 0) addParts(of.dweight, parts, n, dweight);
  if (wantsBias) addParts(of.dbias, parts, n, call.out[2]);
}

template <class C>
const C* parameter(const OpCall& call, int i) {
  if (i >= call.nIn || !call.in[i].present()) return nullptr;
  const DType dtype = std::is_same_v<C, double> ? DType::kFloat64 : DType::kFloat32;
  return contiguousAs(call, call.in[i], dtype).template as<C>();
}

template <class A, class B, class Body>
void callIfAlike(const Body& body) {
  if constexpr (std::is_same_v<Compute<A>, Compute<B>>) body(A{}, B{});
}

// Calls body with values of both dtypes, which compute alike.
template <class Body>
void visitPair(DType a, DType b, const Body& body) {
  visitFloating(a, [&](auto first) {
    visitFloating(b, [&](auto second) { callIfAlike<decltype(first), decltype(second)>(body); });
  });
}

int64_t widthOf(const TensorView& x, int64_t normDims) {
  int64_t width = 1;
  for (int d = x.rank - static_cast<int>(normDims); d < x.rank; ++d) width *= x.sizes[d];
  return width;
}

template <bool kCentered>
void forward(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  const int64_t width = widthOf(x, call.integer(1));
  if (x.numel == 0) {  // rows without elements still have statistics: of nothing
    for (int i = 1; i < (kCentered ? 3 : 2); ++i) {
      fillView(call, call.out[i], std::numeric_limits<double>::quiet_NaN());
    }
    return;
  }
  visitFloating(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    const Rows<C> rows{x.numel / width, width, parameter<C>(call, 1), kCentered ? parameter<C>(call, 2) : nullptr};
    const TensorView& normalized = call.out[kCentered ? 3 : 2];
    visitFloating(normalized.dtype, [&](auto sample) {
      using H = decltype(sample);
      if constexpr (std::is_same_v<Compute<H>, C>) {
        normalize<kCentered>(x.as<T>(), call.out[0].as<T>(), call.out[1].as<C>(), call.out[kCentered ? 2 : 1].as<C>(),
                             normalized.numel > 0 ? normalized.as<H>() : nullptr, rows, static_cast<C>(call.attr[0]));
      }
    });
  });
}

template <bool kCentered>
void backward(const OpCall& call) {
  const TensorView g = contiguousOf(call, call.in[0]), x = contiguousOf(call, call.in[1]);
  if (x.numel == 0) {
    for (int i = call.flag(1) ? 1 : 0; i < call.nOut; ++i) fillView(call, call.out[i], 0);
    return;
  }
  visitPair(g.dtype, x.dtype, [&](auto of, auto from) {
    using T = decltype(of);
    using H = decltype(from);
    using C = Compute<T>;
    const int64_t width = widthOf(x, call.integer(0));
    const Rows<C> rows{x.numel / width, width, parameter<C>(call, kCentered ? 4 : 3), nullptr};
    const bool normalized = call.flag(2);
    const C* means = normalized ? nullptr : call.in[2].as<C>();
    const C* rstds = call.in[kCentered ? 3 : 2].as<C>();
    gradient<kCentered, T, H, C>(
        call, {g.as<T>(), x.as<H>(), means, rstds, call.out[0].as<T>(), nullptr, nullptr, call.flag(1), normalized},
        rows);
  });
}

// y = xhat weight + bias: what forward made of xhat, once more.
void scaleShift(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  if (x.numel == 0) return;
  visitPair(x.dtype, call.out[0].dtype, [&](auto from, auto to) {
    using H = decltype(from);
    using T = decltype(to);
    using C = Compute<T>;
    const Lanes<T> d;
    const int64_t n = widthOf(x, call.integer(0)), count = x.numel / n;
    const C *weight = parameter<C>(call, 1), *bias = parameter<C>(call, 2);
    parallelFor(count, std::max<int64_t>(1, 32768 / n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const H* hat = x.as<H>() + r * n;
        T* y = call.out[0].as<T>() + r * n;
        forVectors(d, n, [&](int64_t i, int64_t lanes) GRADUS_INLINE_BODY {
          auto v = loadSome(d, hat + i, lanes);
          if (weight) v = hn::Mul(v, loadSome(d, weight + i, lanes));
          if (bias) v = hn::Add(v, loadSome(d, bias + i, lanes));
          storeSome(d, v, y + i, lanes);
        });
      }
    });
  });
}

void layerNormForward(const OpCall& call) { forward<true>(call); }
void layerNormGradient(const OpCall& call) { backward<true>(call); }
void rmsNormForward(const OpCall& call) { forward<false>(call); }
void rmsNormGradient(const OpCall& call) { backward<false>(call); }

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(layerNormForward);
HWY_EXPORT(layerNormGradient);
HWY_EXPORT(rmsNormForward);
HWY_EXPORT(rmsNormGradient);
HWY_EXPORT(scaleShift);

void run_layerNorm(const OpCall& call) { HWY_DYNAMIC_DISPATCH(layerNormForward)(call); }
void run_layerNormBackward(const OpCall& call) { HWY_DYNAMIC_DISPATCH(layerNormGradient)(call); }
void run_rmsNorm(const OpCall& call) { HWY_DYNAMIC_DISPATCH(rmsNormForward)(call); }
void run_rmsNormBackward(const OpCall& call) { HWY_DYNAMIC_DISPATCH(rmsNormGradient)(call); }

void run_scaleShift(const OpCall& call) { HWY_DYNAMIC_DISPATCH(scaleShift)(call); }

}  // namespace gradus::cpu
#endif
