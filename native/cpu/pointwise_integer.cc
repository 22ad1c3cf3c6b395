// Integer spans: int32, uint8 and bool compute in int64 and wrap when they are stored, like PyTorch's own types.
// Arithmetic is done on unsigned numbers, where overflow is defined.
#include <limits>

#include "../core/element.h"
#include "spans.h"

namespace gradus::cpu {
namespace {

using Unsigned = uint64_t;
constexpr int64_t kLowest = std::numeric_limits<int64_t>::min(), kHighest = std::numeric_limits<int64_t>::max();

int64_t wrap(Unsigned x) { return static_cast<int64_t>(x); }
Unsigned raw(int64_t x) { return static_cast<Unsigned>(x); }

// The driver refuses a zero divisor before anything is written; -1 is apart because kLowest / -1 overflows.
int64_t truncated(int64_t a, int64_t b) { return b == -1 ? wrap(0 - raw(a)) : b == 0 ? 0 : a / b; }
int64_t remainderOf(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}
int64_t floored(int64_t a, int64_t b) {
  const int64_t quotient = truncated(a, b);
  return b != 0 && b != -1 && a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t power(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
  Unsigned result = 1;
  for (Unsigned square = raw(base); exponent; exponent >>= 1, square *= square) {
    if (exponent & 1) result *= square;
  }
  return wrap(result);
}

int64_t signOf(int64_t a) { return a < 0 ? -1 : a != 0; }
int64_t greater(int64_t a, int64_t b) { return b < a; }

template <auto formula>
void unary(const int64_t* a, const int64_t*, const int64_t*, int64_t* out, int64_t n, const double*) {
  for (int64_t i = 0; i < n; ++i) out[i] = formula(a[i]);
}

template <auto formula>
void binary(const int64_t* a, const int64_t* b, const int64_t*, int64_t* out, int64_t n, const double*) {
  for (int64_t i = 0; i < n; ++i) out[i] = formula(a[i], b[i]);
}

void clamp(const int64_t* a, const int64_t*, const int64_t*, int64_t* out, int64_t n, const double* s) {
  const int64_t low = toInteger(s[0]), high = toInteger(s[1]);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t raised = a[i] < low ? low : a[i];
    out[i] = raised > high ? high : raised;
  }
}

void add(const int64_t* a, const int64_t* b, const int64_t*, int64_t* out, int64_t n, const double* s) {
  const Unsigned alpha = raw(toInteger(s[0]));
  for (int64_t i = 0; i < n; ++i) out[i] = wrap(raw(a[i]) + alpha * raw(b[i]));
}

void addcmul(const int64_t* a, const int64_t* b, const int64_t* c, int64_t* out, int64_t n, const double* s) {
  const Unsigned value = raw(toInteger(s[0]));
  for (int64_t i = 0; i < n; ++i) out[i] = wrap(raw(a[i]) + value * raw(b[i]) * raw(c[i]));
}

void where(const int64_t* a, const int64_t* b, const int64_t* c, int64_t* out, int64_t n, const double*) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] ? b[i] : c[i];
}

constexpr auto identity = [](int64_t a) { return a; };

}  // namespace

Span<int64_t> integerSpanOf(Unary op) {
  switch (op) {
    case Unary::neg: return unary<[](int64_t a) { return wrap(0 - raw(a)); }>;
    case Unary::abs: return unary<[](int64_t a) { return a < 0 ? wrap(0 - raw(a)) : a; }>;
    case Unary::sign: return unary<signOf>;
    case Unary::square: return unary<[](int64_t a) { return wrap(raw(a) * raw(a)); }>;
    case Unary::relu: return unary<[](int64_t a) { return a < 0 ? int64_t{0} : a; }>;
    case Unary::round:
    case Unary::floor:
    case Unary::ceil:
    case Unary::trunc: return unary<identity>;
    case Unary::logicalNot: return unary<[](int64_t a) { return int64_t{a == 0}; }>;
    case Unary::isnan:
    case Unary::isinf: return unary<[](int64_t) { return int64_t{0}; }>;
    case Unary::isfinite: return unary<[](int64_t) { return int64_t{1}; }>;
    case Unary::clamp: return clamp;
    default: return nullptr;
  }
}

Span<int64_t> integerSpanOf(Binary op) {
  using I = int64_t;
  switch (op) {
    case Binary::add: return add;
    case Binary::mul: return binary<[](I a, I b) { return wrap(raw(a) * raw(b)); }>;
    case Binary::floorDivide: return binary<floored>;
    case Binary::truncDivide: return binary<truncated>;
    case Binary::remainder: return binary<remainderOf>;
    case Binary::pow: return binary<power>;
    case Binary::maximum: return binary<[](I a, I b) { return a < b ? b : a; }>;
    case Binary::minimum: return binary<[](I a, I b) { return b < a ? b : a; }>;
    case Binary::eq: return binary<[](I a, I b) { return I{a == b}; }>;
    case Binary::ne: return binary<[](I a, I b) { return I{a != b}; }>;
    case Binary::lt: return binary<[](I a, I b) { return I{a < b}; }>;
    case Binary::le: return binary<[](I a, I b) { return I{a <= b}; }>;
    case Binary::gt: return binary<greater>;
    case Binary::ge: return binary<[](I a, I b) { return I{a >= b}; }>;
    case Binary::logicalAnd: return binary<[](I a, I b) { return I{a && b}; }>;
    case Binary::logicalOr: return binary<[](I a, I b) { return I{a || b}; }>;
    case Binary::logicalXor: return binary<[](I a, I b) { return I{!a != !b}; }>;
    case Binary::where: return where;
    case Binary::addcmul: return addcmul;
    default: return nullptr;
  }
}

}  // namespace gradus::cpu
