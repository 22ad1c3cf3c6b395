// Pointwise kernels work on spans: short runs of elements of one compute type (float, double or int64). Everything
// else - dtypes, strides, broadcasting, scalars, threads - is the driver's (pointwise.cc), once for all operators.
#pragma once

#include <cstdint>

#include "../core/op.h"
#include "../core/pointwise_ops.h"

namespace gradus::cpu {

// Elements of a tile: four operands of doubles stay in the first-level cache.
constexpr int64_t kTile = 512;

// Operands beyond the operator's own are ignored; `s` are its scalar attributes. `out` may be one of the operands.
template <class C>
using Span = void (*)(const C* a, const C* b, const C* c, C* out, int64_t n, const double* s);

struct SpanSet {
  Span<float> f32;
  Span<double> f64;
};

const SpanSet& spansOf(Unary op);
const SpanSet& spansOf(Binary op);
Span<int64_t> integerSpanOf(Unary op);  // null where integers make no sense
Span<int64_t> integerSpanOf(Binary op);

// Conversions between a dtype in memory and a compute type.
template <class C>
using Loader = void (*)(const void* from, C* to, int64_t n);
template <class C>
using Storer = void (*)(const C* from, void* to, int64_t n);

template <class C>
Loader<C> loaderOf(DType dtype);
template <class C>
Storer<C> storerOf(DType dtype);

// What convert.cc has vector code for.
struct HalfConversions {
  Loader<float> loadFloat16, loadBFloat16;
  Storer<float> storeFloat16, storeBFloat16;
  void (*stream)(const void* from, void* to, int64_t bytes);
  void (*streamTwice)(const void* from, void* first, void* second, int64_t bytes);
};

// Copies with stores that go around the caches: an output much larger than them would only evict what is in use, and
// an ordinary store first reads the line that it overwrites.
void streamCopy(const void* from, void* to, int64_t bytes);
void streamCopyTwice(const void* from, void* first, void* second, int64_t bytes);  // both of 64-byte alignment
void streamEnd();  // after the last of a thread: makes its stores visible in order

}  // namespace gradus::cpu
