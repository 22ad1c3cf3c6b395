// The leaves of reductions: see folds.h.
#include "folds.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "folds.cc"
#include <hwy/foreach_target.h>
#include "simd.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {
namespace {

struct Plus {
  template <class D, class V>
  static HWY_INLINE V fold(D, V a, V b) {
    return hn::Add(a, b);
  }
};
struct Times {
  template <class D, class V>
  static HWY_INLINE V fold(D, V a, V b) {
    return hn::Mul(a, b);
  }
};
struct Larger {
  template <class D, class V>
  static HWY_INLINE V fold(D, V a, V b) {
    return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Gt(a, b), a, b));
  }
};
struct Smaller {
  template <class D, class V>
  static HWY_INLINE V fold(D, V a, V b) {
    return hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::Lt(a, b), a, b));
  }
};

#define GRADUS_MAP(name, ...)                                       \
  struct name {                                                     \
    template <class D, class V>                                     \
    static HWY_INLINE V map([[maybe_unused]] D d, V x, [[maybe_unused]] V param) { \
      __VA_ARGS__                                                   \
    }                                                               \
  };

GRADUS_MAP(Itself, return x;)
GRADUS_MAP(Square, return hn::Mul(x, x);)
GRADUS_MAP(CenteredSquare, const V c = hn::Sub(x, param); return hn::Mul(c, c);)
GRADUS_MAP(Exponential, return vec::exp(d, hn::Sub(x, param));)
GRADUS_MAP(Absolute, return hn::Abs(x);)
GRADUS_MAP(Power, const auto p = hn::GetLane(param);
           return vec::mapLanes(d, x, [p](auto v) { return std::pow(std::abs(v), p); });)
GRADUS_MAP(Nonzero, return hn::IfThenZeroElse(hn::Eq(x, hn::Zero(d)), hn::Set(d, hn::TFromD<D>(1)));)
#undef GRADUS_MAP

template <class C, class Map, class Rule>
C foldRow(const C* x, int64_t n, C scalar) {
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto param = hn::Set(d, scalar);
  C edge[hn::MaxLanes(d)];
  int64_t i = 0, held = 0;
  if (n >= lanes) {
    auto a = Map::map(d, hn::LoadU(d, x), param);
    i = lanes;
    if (n >= 4 * lanes) {  // four chains hide the latency of an addition
      auto b = Map::map(d, hn::LoadU(d, x + lanes), param);
      auto c = Map::map(d, hn::LoadU(d, x + 2 * lanes), param);
      auto e = Map::map(d, hn::LoadU(d, x + 3 * lanes), param);
      for (i = 4 * lanes; i + 4 * lanes <= n; i += 4 * lanes) {
        a = Rule::fold(d, a, Map::map(d, hn::LoadU(d, x + i), param));
        b = Rule::fold(d, b, Map::map(d, hn::LoadU(d, x + i + lanes), param));
        c = Rule::fold(d, c, Map::map(d, hn::LoadU(d, x + i + 2 * lanes), param));
        e = Rule::fold(d, e, Map::map(d, hn::LoadU(d, x + i + 3 * lanes), param));
      }
      a = Rule::fold(d, Rule::fold(d, a, b), Rule::fold(d, c, e));
    }
    for (; i + lanes <= n; i += lanes) a = Rule::fold(d, a, Map::map(d, hn::LoadU(d, x + i), param));
    hn::StoreU(a, d, edge);
    held = lanes;
  }
  const hn::CappedTag<C, 1> d1;
  auto total = hn::Zero(d1);
  if (held) {  // halves, so that the tree of lanes is balanced
    for (; held > 1; held /= 2) {
      for (int64_t j = 0; j < held / 2; ++j) {
        const auto folded = Rule::fold(d1, hn::LoadU(d1, edge + j), hn::LoadU(d1, edge + j + held / 2));
        hn::StoreU(folded, d1, edge + j);
      }
    }
    total = hn::LoadU(d1, edge);
  } else {
    total = Map::map(d1, hn::LoadU(d1, x), hn::Set(d1, scalar));
    i = 1;
  }
  for (; i < n; ++i) total = Rule::fold(d1, total, Map::map(d1, hn::LoadU(d1, x + i), hn::Set(d1, scalar)));
  return hn::GetLane(total);
}

template <class C, class Map, class Rule>
void foldColumns(const C* x, C* folded, int64_t n, const C* param) {
  const hn::ScalableTag<C> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto mapped = Map::map(d, hn::LoadU(d, x + i), hn::LoadU(d, param + i));
    hn::StoreU(Rule::fold(d, hn::LoadU(d, folded + i), mapped), d, folded + i);
  }
  if (i == n) return;
  const auto mapped = Map::map(d, vec::loadTail(d, x + i, n - i), vec::loadTail(d, param + i, n - i));
  vec::storeTail(d, Rule::fold(d, vec::loadTail(d, folded + i, n - i), mapped), folded + i, n - i);
}

template <class C>
constexpr FoldSet<C> kFolds[] = {
    {foldRow<C, Itself, Plus>, foldColumns<C, Itself, Plus>},
    {foldRow<C, Square, Plus>, foldColumns<C, Square, Plus>},
    {foldRow<C, CenteredSquare, Plus>, foldColumns<C, CenteredSquare, Plus>},
    {foldRow<C, Exponential, Plus>, foldColumns<C, Exponential, Plus>},
    {foldRow<C, Absolute, Plus>, foldColumns<C, Absolute, Plus>},
    {foldRow<C, Power, Plus>, foldColumns<C, Power, Plus>},
    {foldRow<C, Nonzero, Plus>, foldColumns<C, Nonzero, Plus>},
    {foldRow<C, Itself, Times>, foldColumns<C, Itself, Times>},
    {foldRow<C, Itself, Larger>, foldColumns<C, Itself, Larger>},
    {foldRow<C, Itself, Smaller>, foldColumns<C, Itself, Smaller>},
    {foldRow<C, Absolute, Larger>, foldColumns<C, Absolute, Larger>},
    {foldRow<C, Absolute, Smaller>, foldColumns<C, Absolute, Smaller>},
    {foldRow<C, Nonzero, Larger>, foldColumns<C, Nonzero, Larger>},
    {foldRow<C, Nonzero, Smaller>, foldColumns<C, Nonzero, Smaller>},
};

}  // namespace

const FoldSet<float>* floatFolds() { return kFolds<float>; }
const FoldSet<double>* doubleFolds() { return kFolds<double>; }

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {
HWY_EXPORT(floatFolds);
HWY_EXPORT(doubleFolds);

namespace {

template <Fold fold, bool kTruth>
int64_t integerRow(const int64_t* x, int64_t n, int64_t) {
  int64_t total = identityOf<int64_t>(fold);
  for (int64_t i = 0; i < n; ++i) total = combine(fold, total, kTruth ? int64_t{x[i] != 0} : x[i]);
  return total;
}

template <Fold fold, bool kTruth>
void integerColumns(const int64_t* x, int64_t* folded, int64_t n, const int64_t*) {
  for (int64_t i = 0; i < n; ++i) folded[i] = combine(fold, folded[i], kTruth ? int64_t{x[i] != 0} : x[i]);
}

template <Fold fold, bool kTruth = false>
constexpr FoldSet<int64_t> kIntegerFold{integerRow<fold, kTruth>, integerColumns<fold, kTruth>};

}  // namespace

template <>
FoldSet<float> foldsOf<float>(Fold fold) {
  static const FoldSet<float>* const folds = HWY_DYNAMIC_DISPATCH(floatFolds)();
  return folds[static_cast<int>(fold)];
}

template <>
FoldSet<double> foldsOf<double>(Fold fold) {
  static const FoldSet<double>* const folds = HWY_DYNAMIC_DISPATCH(doubleFolds)();
  return folds[static_cast<int>(fold)];
}

template <>
FoldSet<int64_t> foldsOf<int64_t>(Fold fold) {
  switch (fold) {
    case Fold::kSum: return kIntegerFold<Fold::kSum>;
    case Fold::kProduct: return kIntegerFold<Fold::kProduct>;
    case Fold::kMaximum: return kIntegerFold<Fold::kMaximum>;
    case Fold::kMinimum: return kIntegerFold<Fold::kMinimum>;
    case Fold::kAny: return kIntegerFold<Fold::kAny, true>;
    case Fold::kAll: return kIntegerFold<Fold::kAll, true>;
    default: return {nullptr, nullptr};
  }
}

}  // namespace gradus::cpu
#endif
