// Optimizer steps over all parameters in one pass. A step moves 28 bytes a parameter (AdamW in float32) and computes
// next to nothing, so work is split by elements and not by tensors: every thread streams the same share of memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optim.cc"
#include <hwy/foreach_target.h>

#include "optim-inl.h"
#include "parallel.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

constexpr int64_t kGrain = 1 << 17;  // elements that make waking a thread worth it: 50 us or more

// body(tensor, from, to) for the ranges of elements of `count` tensors, split evenly among threads in whole cache
// lines.
template <class Body>
void forElements(const TensorView* tensors, int count, const Body& body) {
  int64_t total = 0;
  for (int i = 0; i < count; ++i) total += tensors[i].numel;
  constexpr int64_t line = 64;
  parallelFor((total + line - 1) / line, kGrain / line, [&](int64_t first, int64_t last) {
    const int64_t begin = first * line, end = std::min(total, last * line);
    int64_t start = 0;
    for (int i = 0; i < count && start < end; ++i) {
      const int64_t from = std::max(begin, start) - start, to = std::min(end - start, tensors[i].numel);
      if (from < to) body(i, from, to);
      start += tensors[i].numel;
    }
  });
}

// Parameters and gradients in any floating dtype; states in the compute type.
template <template <class D> class Rule, class Settings>
void step(const OpCall& call, const Settings& settings) {
  const int count = static_cast<int>(call.attr[0]);
  const TensorView *grads = call.in + count, *params = call.out;
  forElements(params, count, [&](int i, int64_t from, int64_t to) {
    visitFloating(params[i].dtype, [&](auto pType) {
      using P = decltype(pType);
      using T = Compute<P>;
      using D = hn::ScalableTag<T>;
      const Rule<D> rule(settings);
      T* states[4] = {};
      for (int s = 0; s < Rule<D>::kStates; ++s) states[s] = params[(s + 1) * count + i].template as<T>() + from;
      const auto run = [&](auto gType) {
        using G = decltype(gType);
        updateSpan(D(), rule, params[i].as<P>() + from, grads[i].as<G>() + from, states, to - from);
      };
      if constexpr (sizeof(T) == 8)
        run(double{});
      else if (grads[i].dtype == params[i].dtype)
        run(P{});
      else
        run(float{});
    });
  });
}

template <class D>
using Adam = AdamRule<D, false>;
template <class D>
using Amsgrad = AdamRule<D, true>;
template <class D>
using Sgd = SgdRule<D, false>;
template <class D>
using SgdMomentum = SgdRule<D, true>;
template <class D>
using Rmsprop = RmspropRule<D, false, false>;
template <class D>
using RmspropCentered = RmspropRule<D, true, false>;
template <class D>
using RmspropMomentum = RmspropRule<D, false, true>;
template <class D>
using RmspropCenteredMomentum = RmspropRule<D, true, true>;

void adamw(const OpCall& call) {
  const AdamSettings settings(call);
  settings.amsgrad ? step<Amsgrad>(call, settings) : step<Adam>(call, settings);
}

void sgd(const OpCall& call) {
  const SgdSettings settings(call);
  settings.momentum != 0 ? step<SgdMomentum>(call, settings) : step<Sgd>(call, settings);
}

void rmsprop(const OpCall& call) {
  const RmspropSettings settings(call);
  if (settings.momentum > 0) {
    settings.centered ? step<RmspropCenteredMomentum>(call, settings) : step<RmspropMomentum>(call, settings);
  } else {
    settings.centered ? step<RmspropCentered>(call, settings) : step<Rmsprop>(call, settings);
  }
}

void adagrad(const OpCall& call) { step<AdagradRule>(call, AdagradSettings(call)); }

// --- all elements of all tensors -------------------------------------------------------------------------------------

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

// --- norm
// --------------------------------------------------------------------------------------------------------------

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

// Chunks do not depend on the threads, and their shares are added in order: the same bits for any number of threads.
void norm(const OpCall& call) {
  const double p = call.attr[0];
  int64_t chunks = 0;
  for (int i = 0; i < call.nIn; ++i) chunks += (call.in[i].numel + kChunk - 1) / kChunk;
  double* shares = call.scratch<double>(std::max<int64_t>(1, chunks));
  parallelFor(chunks, kGrain / kChunk, [&](int64_t begin, int64_t end) {
    int64_t start = 0;
    for (int i = 0; i < call.nIn && start < end; ++i) {
      const TensorView& tensor = call.in[i];
      const int64_t count = (tensor.numel + kChunk - 1) / kChunk;
      for (int64_t at = std::max(begin, start); at < std::min(end, start + count); ++at) {
        const int64_t from = (at - start) * kChunk;
        shares[at] = chunkShare(tensor, from, std::min(kChunk, tensor.numel - from), p);
      }
      start += count;
    }
  });
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

}  // namespace
}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(adamw);
HWY_EXPORT(sgd);
HWY_EXPORT(rmsprop);
HWY_EXPORT(adagrad);
HWY_EXPORT(scale);
HWY_EXPORT(clampAll);
HWY_EXPORT(norm);

void run_adamw(const OpCall& call) { HWY_DYNAMIC_DISPATCH(adamw)(call); }
void run_sgd(const OpCall& call) { HWY_DYNAMIC_DISPATCH(sgd)(call); }
void run_rmsprop(const OpCall& call) { HWY_DYNAMIC_DISPATCH(rmsprop)(call); }
void run_adagrad(const OpCall& call) { HWY_DYNAMIC_DISPATCH(adagrad)(call); }
void run_multiTensorNorm(const OpCall& call) { HWY_DYNAMIC_DISPATCH(norm)(call); }
void run_multiTensorScale(const OpCall& call) { HWY_DYNAMIC_DISPATCH(scale)(call, call.nOut, call.attr[0]); }
void run_multiTensorClamp(const OpCall& call) { HWY_DYNAMIC_DISPATCH(clampAll)(call, call.nOut, call.attr[0]); }

void run_multiTensorClip(const OpCall& call) {
  // In float32, as PyTorch computes it. A NaN norm scales by NaN; an infinite one by 0, so that finite elements become
  // 0 and infinite ones NaN.
  const float norm = *call.in[call.nOut].as<float>();
  const float factor = static_cast<float>(call.attr[0]) / (norm + 1e-6f);
  if (factor >= 1) return;
  HWY_DYNAMIC_DISPATCH(scale)(call, call.nOut, factor);
}

}  // namespace gradus::cpu
#endif
