// The driver of all pointwise operators: picks the compute type, finds the common iteration space, runs the span.
#include <cmath>

#include "../core/data_errors.h"
#include "../core/pointwise_operands.h"
#include "spans.h"
#include "tiles.h"

namespace gradus::cpu {
namespace {

struct Work {
  SpanSet spans;
  Span<int64_t> integer;
  int64_t grain;  // elements that are worth a thread
  double scalars[2];
};

// Outputs beyond this many bytes bypass the caches: see streamCopy.
constexpr size_t kStreamBytes = 16 << 20;

constexpr int64_t kCheap = 32768, kExponential = 8192, kScalarLoop = 2048;

int64_t grainOf(Unary op) {
  switch (op) {
    case Unary::sin:
    case Unary::cos:
      return kScalarLoop;
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
    case Unary::geluTanh:
      return kExponential;
    default:
      return kCheap;
  }
}

int64_t grainOf(Binary op) {
  switch (op) {
    case Binary::floorDivide:
    case Binary::remainder:
    case Binary::pow:
      return kScalarLoop;
    case Binary::siluBackward:
    case Binary::softplusBackward:
    case Binary::geluErfBackward:
    case Binary::geluTanhBackward:
      return kExponential;
    default:
      return kCheap;
  }
}

template <class Op>
Work workOf(Op op, double p, double q) {
  return {spansOf(op), integerSpanOf(op), grainOf(op), {p, q}};
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

void runWork(const OpCall& call, const Operand* operands, int count, const Work& work) {
  const TensorView& out = call.out[0];
  if (out.dtype == DType::kFloat32 && runDense<float>(out, operands, count, work)) return;
  if (out.dtype == DType::kFloat64 && runDense<double>(out, operands, count, work)) return;
  switch (kindOf(out, operands, count)) {
    case Kind::kFloat:
      return runAs<float>(call, operands, count, work);
    case Kind::kDouble:
      return runAs<double>(call, operands, count, work);
    case Kind::kInteger:
      return runAs<int64_t>(call, operands, count, work);
  }
}

template <class Op>
void pointwise(const OpCall& call, const Operand* operands, int count, Op op, double p, double q) {
  runWork(call, operands, count, workOf(op, p, q));
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

// Checked before anything is written.
void refuseZero(const OpCall& call, const Operand& divisor) {
  const bool zero = divisor.view ? containsZero(*divisor.view) : std::trunc(divisor.number) == 0;
  if (zero) throw divisionByZero(call.name);
}

}  // namespace

#include "../core/pointwise_calls.h"

}  // namespace gradus::cpu
