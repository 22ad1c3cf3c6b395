// What each pointwise operator computes: its formula, its operands (tensors or numbers) and its scalars. A backend
// includes this file in its own namespace's pointwise.cc, after it has declared, for Op = Unary and Binary,
//
//   template <class Op> void pointwise(const OpCall&, const Operand*, int count, Op, double p, double q);
//   void refuseZero(const OpCall&, const Operand& divisor);  // of integers: throws, or leaves it to the kernel
//
// and pointwise_operands.h and element.h. It defines the operators' functions.

namespace {

template <class Op>
void onTensors(const OpCall& call, Op op, double p = 0, double q = 0) {
  Operand operands[kMaxOperands - 1];
  const int count = std::min(call.nIn, kMaxOperands - 1);
  for (int i = 0; i < count; ++i) operands[i] = {&call.in[i], 0};
  pointwise(call, operands, count, op, p, q);
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
  pointwise(call, pairOf(call).operands, 2, op, p, 0);
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
  pointwise(call, pair.operands, 2, op, 0, 0);
}

// Integers have no infinity to answer with.
void divide(const OpCall& call, Binary op) {
  const Pair pair = pairOf(call);
  if (kindOf(call.out[0], pair.operands, 2) == Kind::kInteger && call.out[0].numel > 0) {
    refuseZero(call, pair.operands[1]);
  }
  pointwise(call, pair.operands, 2, op, 0, 0);
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
           pointwise(call, operands, 3, Binary::where, 0, 0))
