// The driver of all pointwise operators: picks the compute type, finds the common iteration space, runs the span.
//
// Operands of different dtypes are converted as they are read, so type promotion costs no pass of its own:
// float64 if any is, else float32 if any is floating, else int64.
#include <cmath>

#include "spans.h"
#include "tiles.h"

namespace gradus::cpu {
namespace {

enum class Kind { kFloat, kDouble, kInteger };

// One operand of a call: a tensor, or a number.
struct Operand {
  const TensorView* view;
  double number;
};

struct Work {
  SpanSet spans;
  Span<int64_t> integer;
  int64_t grain;   // elements that are worth a thread
  double scalars[2];
};

// Outputs beyond this many bytes bypass the caches: see streamCopy.
constexpr size_t kStreamBytes = 16 << 20;

constexpr int64_t kCheap = 32768, kExponential = 8192, kScalarLoop = 2048;

int64_t grainOf(Unary op) {
  switch (op) {
    case Unary::sin:
    case Unary::cos: return kScalarLoop;
    case Unary::exp:
    case Unary::expm1:
    case Unary::log:
    case Unary::log1p:
    case Unary::log2:
    case Unary::tanh:
    case Unary::sigmoid:
    case Unary::erf:
    case Unary::silu:
    case Unary::softplus:
    case Unary::geluErf:
    case Unary::geluTanh: return kExponential;
    default: return kCheap;
  }
}

int64_t grainOf(Binary op) {
  switch (op) {
    case Binary::floorDivide:
    case Binary::remainder:
    case Binary::pow: return kScalarLoop;
    case Binary::siluBackward:
    case Binary::softplusBackward:
    case Binary::geluErfBackward:
    case Binary::geluTanhBackward: return kExponential;
    default: return kCheap;
  }
}

template <class Op>
Work workOf(Op op, double p = 0, double q = 0) {
  return {spansOf(op), integerSpanOf(op), grainOf(op), {p, q}};
}

// The output decides too, unless it is a truth value: int64 / int64 is computed as the float32 that it gives.
Kind kindOf(const TensorView& out, const Operand* operands, int count) {
  bool wide = out.dtype == DType::kFloat64, floating = isFloating(out.dtype);
  for (int i = 0; i < count; ++i) {
    if (operands[i].view) {
      wide |= operands[i].view->dtype == DType::kFloat64;
      floating |= isFloating(operands[i].view->dtype);
    } else if (out.dtype == DType::kBool && !floating) {
      wide |= operands[i].number != std::floor(operands[i].number);  // 3 < 3.5
    }
  }
  return wide ? Kind::kDouble : floating ? Kind::kFloat : Kind::kInteger;
}

template <class C>
Span<C> spanFor(const Work& work) {
  if constexpr (std::is_same_v<C, float>) return work.spans.f32;
  if constexpr (std::is_same_v<C, double>) return work.spans.f64;
  if constexpr (std::is_same_v<C, int64_t>) return work.integer;
}

template <class C>
void runAs(const OpCall& call, const Operand* operands, int count, const Work& work) {
  const TensorView& out = call.out[0];
  TensorView inputs[3];
  const TensorView* views[kMaxOperands] = {&out};
  count = std::min(count, kMaxOperands - 1);
  for (int i = 0; i < count; ++i) {
    if (!operands[i].view) continue;
    inputs[i] = untransposed(*operands[i].view, out, call.workspace);
    views[i + 1] = &inputs[i];
  }
  Tiles<C> tiles{makeLoop(views, count + 1), {}, {}, count, false};
  if (tiles.loop.numel == 0) return;
  tiles.out = Access<C>(out, tiles.loop, 0);
  tiles.stream = tiles.out.linear && tiles.out.native && out.bytes() >= kStreamBytes;
  for (int i = 0; i < count; ++i) {
    if (operands[i].view) {
      tiles.in[i] = Access<C>(inputs[i], tiles.loop, i + 1);
      tiles.stream &= operands[i].view->data != out.data;  // in place the lines are in the cache already
    } else {
      tiles.in[i] = Access<C>::scalar(Narrow<C>::from(operands[i].number));
    }
  }
  const Span<C> span = spanFor<C>(work);
  GRADUS_CHECK(span, ErrorCode::kDType, "pointwise: integers are not supported here; convert to float32 first");
  tiles.run(span, work.scalars, work.grain);
}

// All operands contiguous, of one size and one dtype: nothing to find out.
template <class C>
bool runDense(const TensorView& out, const Operand* operands, int count, const Work& work) {
  if (!out.contiguous || out.bytes() >= kStreamBytes) return false;
  const C* in[3] = {};
  for (int i = 0; i < count; ++i) {
    const TensorView* view = operands[i].view;
    if (!view || !view->contiguous || view->numel != out.numel || view->dtype != out.dtype) return false;
    in[i] = view->as<const C>();
  }
  C* to = out.as<C>();
  const Span<C> span = spanFor<C>(work);
  parallelFor(out.numel, work.grain, [&](int64_t begin, int64_t end) {
    span(in[0] + begin, in[1] ? in[1] + begin : nullptr, in[2] ? in[2] + begin : nullptr, to + begin, end - begin,
         work.scalars);
  });
  return true;
}

void pointwise(const OpCall& call, const Operand* operands, int count, const Work& work) {
  const TensorView& out = call.out[0];
  if (out.dtype == DType::kFloat32 && runDense<float>(out, operands, count, work)) return;
  if (out.dtype == DType::kFloat64 && runDense<double>(out, operands, count, work)) return;
  switch (kindOf(out, operands, count)) {
    case Kind::kFloat: return runAs<float>(call, operands, count, work);
    case Kind::kDouble: return runAs<double>(call, operands, count, work);
    case Kind::kInteger: return runAs<int64_t>(call, operands, count, work);
  }
}

template <class Op>
void onTensors(const OpCall& call, Op op, double p = 0, double q = 0) {
  Operand operands[kMaxOperands - 1];
  const int count = std::min(call.nIn, kMaxOperands - 1);
  for (int i = 0; i < count; ++i) operands[i] = {&call.in[i], 0};
  pointwise(call, operands, count, workOf(op, p, q));
}

struct Pair {
  Operand operands[2];
};

// attributes: scalar, reversed
Pair pairOf(const OpCall& call) {
  const Operand first{&call.in[0], 0};
  if (call.nIn == 2) return {{first, {&call.in[1], 0}}};
  const Operand number{nullptr, call.attr[0]};
  return call.flag(1) ? Pair{{number, first}} : Pair{{first, number}};
}

void onPair(const OpCall& call, Binary op, double p = 0) {
  pointwise(call, pairOf(call).operands, 2, workOf(op, p));
}

// A comparison of 16-bit floats with a number sees the number as one of them, as PyTorch does: 0.1 equals 0.1.
void compare(const OpCall& call, Binary op) {
  Pair pair = pairOf(call);
  for (Operand& operand : pair.operands) {
    if (operand.view) continue;
    const DType dtype = call.in[0].dtype;
    const float number = static_cast<float>(operand.number);
    if (dtype == DType::kFloat16) operand.number = widen(Narrow<Float16>::from(number));
    if (dtype == DType::kBFloat16) operand.number = widen(Narrow<BFloat16>::from(number));
  }
  pointwise(call, pair.operands, 2, workOf(op));
}

bool containsZero(const TensorView& view) {
  const TensorView* views[] = {&view, &view};
  const Loop loop = makeLoop(views, 2);
  const Access<int64_t> access(view, loop, 1);
  int64_t tile[kTile];
  uint64_t raw[kTile];
  Chunk chunk{0, 0, false, {}};
  for (; chunk.at < loop.numel; chunk.at += chunk.n) {
    chunk.n = std::min(kTile, loop.numel - chunk.at);
    if (access.uniform) return access.value == 0;
    const int64_t* values = access.read(loop, 1, chunk, tile, raw);
    if (std::find(values, values + chunk.n, 0) != values + chunk.n) return true;
  }
  return false;
}

// Integers have no infinity to answer with; checked before anything is written.
void divide(const OpCall& call, Binary op) {
  const Pair pair = pairOf(call);
  if (kindOf(call.out[0], pair.operands, 2) == Kind::kInteger && call.out[0].numel > 0) {
    const Operand& divisor = pair.operands[1];
    const bool zero = divisor.view ? containsZero(*divisor.view) : std::trunc(divisor.number) == 0;
    GRADUS_CHECK(!zero, ErrorCode::kState, "%s: division of integers by zero: got a divisor of 0; mask it or use div",
                 call.name);
  }
  pointwise(call, pair.operands, 2, workOf(op));
}

}  // namespace

#define GRADUS_RUN(name, ...) \
  void run_##name(const OpCall& call) { __VA_ARGS__; }
#define GRADUS_RUN_UNARY(name) GRADUS_RUN(name, onTensors(call, Unary::name))
#define GRADUS_RUN_PAIR(name) GRADUS_RUN(name, onPair(call, Binary::name))
#define GRADUS_RUN_COMPARE(name) GRADUS_RUN(name, compare(call, Binary::name))
#define GRADUS_RUN_GRADIENT(name) GRADUS_RUN(name, onTensors(call, Binary::name))

GRADUS_RUN_UNARY(neg)
GRADUS_RUN_UNARY(abs)
GRADUS_RUN_UNARY(sign)
GRADUS_RUN_UNARY(exp)
GRADUS_RUN_UNARY(expm1)
GRADUS_RUN_UNARY(log)
GRADUS_RUN_UNARY(log1p)
GRADUS_RUN_UNARY(log2)
GRADUS_RUN_UNARY(sqrt)
GRADUS_RUN_UNARY(rsqrt)
GRADUS_RUN_UNARY(sin)
GRADUS_RUN_UNARY(cos)
GRADUS_RUN_UNARY(tanh)
GRADUS_RUN_UNARY(sigmoid)
GRADUS_RUN_UNARY(erf)
GRADUS_RUN_UNARY(square)
GRADUS_RUN_UNARY(reciprocal)
GRADUS_RUN_UNARY(round)
GRADUS_RUN_UNARY(floor)
GRADUS_RUN_UNARY(ceil)
GRADUS_RUN_UNARY(trunc)
GRADUS_RUN_UNARY(relu)
GRADUS_RUN_UNARY(silu)
GRADUS_RUN_UNARY(logicalNot)
GRADUS_RUN_UNARY(isnan)
GRADUS_RUN_UNARY(isinf)
GRADUS_RUN_UNARY(isfinite)
GRADUS_RUN(softplus, onTensors(call, Unary::softplus, call.attr[0], call.attr[1]))
GRADUS_RUN(clamp, onTensors(call, Unary::clamp, call.attr[0], call.attr[1]))
GRADUS_RUN(gelu, onTensors(call, call.flag(0) ? Unary::geluTanh : Unary::geluErf))

GRADUS_RUN_GRADIENT(tanhBackward)
GRADUS_RUN_GRADIENT(sigmoidBackward)
GRADUS_RUN_GRADIENT(reluBackward)
GRADUS_RUN_GRADIENT(siluBackward)
GRADUS_RUN_GRADIENT(signBackwardAbs)
GRADUS_RUN(softplusBackward, onTensors(call, Binary::softplusBackward, call.attr[0], call.attr[1]))
GRADUS_RUN(clampBackward, onTensors(call, Binary::clampBackward, call.attr[0], call.attr[1]))
GRADUS_RUN(geluBackward, onTensors(call, call.flag(0) ? Binary::geluTanhBackward : Binary::geluErfBackward))

GRADUS_RUN(add, onPair(call, Binary::add, call.attr[2]))
GRADUS_RUN(sub, onPair(call, Binary::add, -call.attr[2]))
GRADUS_RUN_PAIR(mul)
GRADUS_RUN_PAIR(div)
GRADUS_RUN_PAIR(maximum)
GRADUS_RUN_PAIR(minimum)
GRADUS_RUN_PAIR(logicalAnd)
GRADUS_RUN_PAIR(logicalOr)
GRADUS_RUN_PAIR(logicalXor)
GRADUS_RUN_COMPARE(eq)
GRADUS_RUN_COMPARE(ne)
GRADUS_RUN_COMPARE(lt)
GRADUS_RUN_COMPARE(le)
GRADUS_RUN_COMPARE(gt)
GRADUS_RUN_COMPARE(ge)
GRADUS_RUN(floorDivide, divide(call, Binary::floorDivide))
GRADUS_RUN(truncDivide, divide(call, Binary::truncDivide))
GRADUS_RUN(remainder, divide(call, Binary::remainder))

// PyTorch's short cuts, which also decide its values at -0 and -infinity.
GRADUS_RUN(pow, const Pair pair = pairOf(call);
           const bool number = !pair.operands[1].view && isFloating(call.out[0].dtype);
           const double exponent = pair.operands[1].number;
           if (number && exponent == 2) return onTensors(call, Unary::square);
           if (number && exponent == 3) return onTensors(call, Unary::cube);
           if (number && exponent == 0.5) return onTensors(call, Unary::sqrt);
           if (number && exponent == -0.5) return onTensors(call, Unary::rsqrt);
           if (number && exponent == -1) return onTensors(call, Unary::reciprocal);
           onPair(call, Binary::pow))

GRADUS_RUN(where, onTensors(call, Binary::where))
GRADUS_RUN(addcmul, onTensors(call, Binary::addcmul, call.attr[0]))
GRADUS_RUN(maskedFill,
           const Operand operands[] = {{&call.in[1], 0}, {nullptr, call.attr[0]}, {&call.in[0], 0}};
           pointwise(call, operands, 3, workOf(Binary::where)))

}  // namespace gradus::cpu
