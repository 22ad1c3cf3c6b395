// Random tensors and dropout, from philox (philox.h) and nothing else: an element's value depends on its place in
// row-major order, the seed and the offset, never on threads, tiles or vector width.
//
// Words are made a tile at a time in the first-level cache and then turned into values:
//   uniform    (word >> 8) 2^-24; float64 takes 53 bits of a wide word; 16-bit floats the bits they can hold, so that
//              rounding never gives 1
//   normal     Box & Muller 1958 on lane pairs: sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v)
//   randint    low + floor(word range / 2^32), a wide word and 2^64 where the range has more than 24 bits
//   dropout    kept where word >= round(p 2^32); the gradient is the same operator with the same counters, so there
//              is no mask to store
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "random.cc"
#include <hwy/foreach_target.h>

#include "philox-inl.h"
#include "rows-inl.h"
#include "views.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

constexpr int64_t kTile = 1024;
constexpr int64_t kGrain = 16;  // tiles a thread: some microseconds

Philox streamOf(const OpCall& call) {
  return {static_cast<uint64_t>(call.integer(0)), static_cast<uint64_t>(call.integer(1))};
}

// body(first element, elements) for every tile; all of them start at a multiple of 4.
template <class Body>
void forTiles(int64_t n, const Body& body) {
  parallelFor((n + kTile - 1) / kTile, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) body(t * kTile, std::min(kTile, n - t * kTile));
  });
}

struct Words {
  HWY_ALIGN uint32_t low[kTile];
  HWY_ALIGN uint32_t high[kTile];  // of the stream's second half; where asked for

  uint64_t wide(int64_t i) const { return static_cast<uint64_t>(low[i]) << 32 | high[i]; }
};

class Source {
 public:
  explicit Source(const OpCall& call)
      : first_(streamOf(call)), second_({streamOf(call).key, streamOf(call).offset, 1}) {}
  void narrow(int64_t first, int64_t count, Words& words) const { first_.fill(first, count, words.low); }
  void wide(int64_t first, int64_t count, Words& words) const {
    first_.fill(first, count, words.low);
    second_.fill(first, count, words.high);
  }

 private:
  PhiloxVector first_, second_;
};

// --- uniform -------------------------------------------------------------------------------------------------------

// The number of leading bits of a word that T holds exactly.
template <class T>
constexpr int kUniformBits = std::is_same_v<T, BFloat16>  ? 8
                             : std::is_same_v<T, Float16> ? 11
                                                          : 24;

template <class T>
void uniformTile(const Words& words, int64_t n, T* out, Compute<T> low, Compute<T> range) {
  if constexpr (std::is_same_v<T, double>) {
    for (int64_t i = 0; i < n; ++i) out[i] = low + range * (static_cast<double>(words.wide(i) >> 11) * 0x1p-53);
  } else {
    const Lanes<T> d;
    const hn::Rebind<int32_t, Lanes<T>> di;
    const hn::Rebind<uint32_t, Lanes<T>> du;
    constexpr int kBits = kUniformBits<T>;
    const auto unit = hn::Set(d, 1.0f / (1 << kBits)), start = hn::Set(d, low), width = hn::Set(d, range);
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      const auto word = hn::ShiftRight<32 - kBits>(hn::Load(du, words.low + i));
      const auto u = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, word)), unit);
      storeSome(d, hn::MulAdd(u, width, start), out + i, count);
    });
  }
}

void uniform(const OpCall& call) {
  const TensorView& out = call.out[0];
  const Source source(call);
  visitFloating(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto low = static_cast<Compute<T>>(call.attr[2]);
    const auto range = static_cast<Compute<T>>(call.attr[3] - call.attr[2]);
    forTiles(out.numel, [&](int64_t first, int64_t n) {
      Words words;
      sizeof(T) == 8 ? source.wide(first, n, words) : source.narrow(first, n, words);
      uniformTile(words, n, out.as<T>() + first, low, range);
    });
  });
}

// --- normal --------------------------------------------------------------------------------------------------------

// cos and sin of 2 pi t, 0 <= t < 1: t = q / 4 + f with |f| <= 1/8 leaves an angle in [-pi/4, pi/4] (Taylor series:
// the next terms are below 4e-9), and q says which of the two is which and with what sign.
template <class D>
HWY_INLINE void turn(D d, vec::Of<D> t, vec::Of<D>& cosine, vec::Of<D>& sine) {
  const hn::Rebind<int32_t, D> di;
  const auto q = hn::NearestInt(hn::Mul(t, hn::Set(d, 4.0f)));
  const auto f = hn::NegMulAdd(hn::ConvertTo(d, q), hn::Set(d, 0.25f), t);
  const auto a = hn::Mul(f, hn::Set(d, 6.28318531f)), s = hn::Mul(a, a);
  auto x = hn::MulAdd(s, hn::Set(d, 2.7557319e-6f), hn::Set(d, -1.98412698e-4f));
  x = hn::MulAdd(x, s, hn::Set(d, 8.33333333e-3f));
  x = hn::MulAdd(x, s, hn::Set(d, -0.166666667f));
  const auto sinA = hn::MulAdd(hn::Mul(x, s), a, a);
  auto y = hn::MulAdd(s, hn::Set(d, -2.75573192e-7f), hn::Set(d, 2.48015873e-5f));
  y = hn::MulAdd(y, s, hn::Set(d, -1.38888889e-3f));
  y = hn::MulAdd(y, s, hn::Set(d, 4.16666667e-2f));
  y = hn::MulAdd(y, s, hn::Set(d, -0.5f));
  const auto cosA = hn::MulAdd(y, s, hn::Set(d, 1.0f));
  const auto odd = hn::RebindMask(d, hn::Eq(hn::And(q, hn::Set(di, 1)), hn::Set(di, 1)));
  const auto signSin = hn::ShiftLeft<30>(hn::And(q, hn::Set(di, 2)));
  const auto signCos = hn::ShiftLeft<30>(hn::And(hn::Add(q, hn::Set(di, 1)), hn::Set(di, 2)));
  cosine = hn::Xor(hn::IfThenElse(odd, sinA, cosA), hn::BitCast(d, signCos));
  sine = hn::Xor(hn::IfThenElse(odd, cosA, sinA), hn::BitCast(d, signSin));
}

// Whole tiles, whatever n: a pair may reach beyond an odd end.
void normalTile(const Words& words, float* values, float mean, float std) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<uint32_t, decltype(d)> du;
  const auto unit = hn::Set(d, 0x1p-24f), center = hn::Set(d, mean), scale = hn::Set(d, std);
  for (int64_t i = 0; i < kTile; i += 2 * hn::MaxLanes(d)) {
    auto even = hn::Zero(du), odd = even;
    hn::LoadInterleaved2(du, words.low + i, even, odd);
    // (word >> 8) + 1 steps of 2^-24: in (0, 1], so that the logarithm is finite
    const auto steps = hn::Add(hn::ShiftRight<8>(even), hn::Set(du, 1));
    const auto u = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, steps)), unit);
    const auto v = hn::Mul(hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<8>(odd))), unit);
    const auto radius = hn::Mul(hn::Sqrt(hn::Mul(vec::log(d, u), hn::Set(d, -2.0f))), scale);
    auto cosine = hn::Zero(d), sine = cosine;
    turn(d, v, cosine, sine);
    hn::StoreInterleaved2(hn::MulAdd(radius, cosine, center), hn::MulAdd(radius, sine, center), d, values + i);
  }
}

void normalTile(const Words& words, double* values, double mean, double std) {
  for (int64_t i = 0; i < kTile; i += 2) {
    const double u = static_cast<double>((words.wide(i) >> 11) + 1) * 0x1p-53;
    const double v = static_cast<double>(words.wide(i + 1) >> 11) * 0x1p-53;
    const double radius = std * std::sqrt(-2 * std::log(u)), angle = 6.283185307179586 * v;
    values[i] = mean + radius * std::cos(angle);
    values[i + 1] = mean + radius * std::sin(angle);
  }
}

void normal(const OpCall& call) {
  const TensorView& out = call.out[0];
  const Source source(call);
  visitFloating(out.dtype, [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    const C mean = static_cast<C>(call.attr[2]), std = static_cast<C>(call.attr[3]);
    forTiles(out.numel, [&](int64_t first, int64_t n) {
      Words words;
      HWY_ALIGN C values[kTile];
      sizeof(T) == 8 ? source.wide(first, kTile, words) : source.narrow(first, kTile, words);
      normalTile(words, values, mean, std);
      const Lanes<T> d;
      forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
        storeSome(d, vec::load(d, values + i), out.as<T>() + first + i, count);
      });
    });
  });
}

// --- integers ------------------------------------------------------------------------------------------------------

template <class T>
void integerTile(const Words& words, bool wide, int64_t low, uint64_t range, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t step = wide ? static_cast<uint64_t>(static_cast<unsigned __int128>(words.wide(i)) * range >> 64)
                               : words.low[i] * range >> 32;
    const int64_t value = low + static_cast<int64_t>(step);
    if constexpr (std::is_integral_v<T>) {
      out[i] = static_cast<T>(value);
    } else {
      out[i] = Narrow<T>::from(static_cast<Compute<T>>(value));
    }
  }
}

void integers(const OpCall& call) {
  const TensorView& out = call.out[0];
  const Source source(call);
  const int64_t low = call.integer(2);
  const uint64_t range = static_cast<uint64_t>(call.integer(3) - low);
  const bool wide = range > (uint64_t{1} << 24);
  const auto fill = [&](auto tag) {
    using T = decltype(tag);
    forTiles(out.numel, [&](int64_t first, int64_t n) {
      Words words;
      wide ? source.wide(first, n, words) : source.narrow(first, n, words);
      integerTile(words, wide, low, range, out.as<T>() + first, n);
    });
  };
  visitAny(out.dtype, fill);
}

void bernoulli(const OpCall& call) {
  const TensorView p = contiguousOf(call, call.in[0]);
  const Source source(call);
  visitFloating(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    using C = Compute<T>;
    forTiles(p.numel, [&](int64_t first, int64_t n) {
      Words words;
      source.narrow(first, n, words);
      for (int64_t i = 0; i < n; ++i) {
        const C u = static_cast<C>(words.low[i] >> 8) * C(0x1p-24);
        call.out[0].as<T>()[first + i] = Narrow<T>::from(C(u < widen(p.as<T>()[first + i])));
      }
    });
  });
}

// --- dropout -------------------------------------------------------------------------------------------------------

// v where its word is at least the threshold, else 0.
template <class D>
HWY_INLINE vec::Of<D> kept(D d, vec::Of<D> v, const uint32_t* words, uint32_t threshold) {
  const hn::Rebind<uint32_t, D> d32;
  if constexpr (vec::kDouble<D>) {
    const hn::Rebind<uint64_t, D> d64;
    const auto word = hn::PromoteTo(d64, hn::LoadU(d32, words));
    return hn::IfThenZeroElse(hn::RebindMask(d, hn::Lt(word, hn::Set(d64, threshold))), v);
  } else {
    return hn::IfThenZeroElse(hn::RebindMask(d, hn::Lt(hn::Load(d32, words), hn::Set(d32, threshold))), v);
  }
}

// to = x where it is kept, scaled, else 0; plus the residual where there is one.
template <class T, class S>
void dropElements(const OpCall& call, const T* x, const S* residual, S* out, int64_t numel) {
  const PhiloxVector source(streamOf(call));
  const double p = call.attr[2];
  const uint32_t threshold = dropThreshold(p);
  const Lanes<T> d;
  const auto scale = hn::Set(d, static_cast<Compute<T>>(1 / (1 - p)));
  const bool stream = streamsRows(out, numel / kTile, kTile, sizeof(S)) && numel % kTile == 0;
  forTiles(numel, [&](int64_t first, int64_t n) {
    HWY_ALIGN uint32_t words[kTile];
    if (threshold > 0) source.fill(first, n, words);
    const T* from = x + first;
    const S* base = residual ? residual + first : nullptr;
    S* to = out + first;
    forVectors(d, n, [&](int64_t i, int64_t count) GRADUS_INLINE_BODY {
      auto v = loadSome(d, from + i, count);
      if (threshold > 0) v = kept(d, hn::Mul(v, scale), words + i, threshold);
      putSome(d, base ? hn::Add(v, loadSome(d, base + i, count)) : v, to + i, count, stream);
    });
    hwy::FlushStream();
  });
}

void dropout(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  const TensorView residual = call.nIn == 2 ? contiguousOf(call, call.in[1]) : TensorView{};
  const double p = call.attr[2];
  if (p >= 1) {  // a word may equal the largest threshold, so this is not a case of the formula
    return residual.present() ? copyView(call, residual, call.out[0]) : fillView(call, call.out[0], 0);
  }
  visitFloating(x.dtype, [&](auto from) {
    visitFloating(call.out[0].dtype, [&](auto to) {
      using T = decltype(from);
      using S = decltype(to);
      if constexpr (std::is_same_v<Compute<T>, Compute<S>>) {
        dropElements(call, x.as<T>(), residual.as<S>(), call.out[0].as<S>(), x.numel);
      }
    });
  });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(uniform);
HWY_EXPORT(normal);
HWY_EXPORT(integers);
HWY_EXPORT(bernoulli);
HWY_EXPORT(dropout);

void run_uniform(const OpCall& call) { HWY_DYNAMIC_DISPATCH(uniform)(call); }
void run_normal(const OpCall& call) { HWY_DYNAMIC_DISPATCH(normal)(call); }
void run_randint(const OpCall& call) { HWY_DYNAMIC_DISPATCH(integers)(call); }
void run_bernoulli(const OpCall& call) { HWY_DYNAMIC_DISPATCH(bernoulli)(call); }
void run_dropout(const OpCall& call) { HWY_DYNAMIC_DISPATCH(dropout)(call); }
void run_dropoutAdd(const OpCall& call) { HWY_DYNAMIC_DISPATCH(dropout)(call); }

}  // namespace gradus::cpu
#endif
