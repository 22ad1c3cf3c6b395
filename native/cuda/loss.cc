// Cross entropy with class targets.
#include "kernels/loss.h"

#include "rows.h"

namespace gradus::cuda {

void run_sum(const OpCall&);

namespace {

LossOperand operandOf(const TensorView& x) {
  const int64_t stride = x.rank == 0 ? 0 : x.strides[0] * static_cast<int64_t>(itemSize(x.dtype));
  return {x.as<char>(), static_cast<int>(x.dtype), stride};
}

// The sum of the class weights in scratch memory, and made in float64 whatever their dtype: it is multiplied by every
// row's logsumexp.
const double* totalOf(const OpCall& call, const TensorView& weight) {
  const TensorView wide = contiguousAs(call, weight, DType::kFloat64);
  TensorView total;
  total.dtype = DType::kFloat64;
  total.contiguous = true;
  total.rank = 0;
  total.numel = 1;
  total.data = call.scratch<double>(1);
  const double dims = 1;
  run_sum({call.name, &wide, &total, &dims, 1, 1, 1, call.workspace});
  return total.as<double>();
}

LossRows rowsOf(const OpCall& call, const TensorView& logits, const TensorView& target, int weight) {
  LossRows rows{};
  rows.target = operandOf(target);
  rows.ignoreIndex = call.integer(0);
  rows.smoothing = call.attr[1];
  rows.rows = logits.size(0);
  rows.classes = logits.size(1);
  rows.failure = currentDevice().failureSlot(call.name, rows.classes, rows.ignoreIndex);
  if (call.nIn > weight && call.in[weight].present()) {
    rows.weight = operandOf(call.in[weight]);
    if (rows.smoothing > 0) rows.weightTotal = totalOf(call, call.in[weight]);
  }
  return rows;
}

// Logits whose classes are neighbours; how many threads share a row of them.
void setLogits(CrossEntropy& arguments, const TensorView& logits) {
  const int64_t lanes = 16 / static_cast<int64_t>(itemSize(logits.dtype));
  arguments.logits = logits.data;
  arguments.rowStride = logits.strides[0];
  arguments.packed = logits.size(1) % lanes == 0 && (logits.strides[0] % lanes == 0 || logits.size(0) == 1) &&
                     isWide(logits.data) && isWide(arguments.gradient);
  arguments.threads = threadsFor(logits.size(1), arguments.packed ? 4 * lanes : 8);
}

TensorView neighbouring(const OpCall& call, const TensorView& logits) {
  return logits.strides[1] == 1 || logits.size(1) == 1 ? logits : contiguousOf(call, logits);
}

int64_t blocksOf(const CrossEntropy& arguments) {
  const int64_t groups = kBlock / arguments.threads;
  return (arguments.of.rows + groups - 1) / groups;
}

}  // namespace

void run_crossEntropy(const OpCall& call) {
  static FloatingKernels kernels("loss", "crossEntropy");
  static Kernel totals("loss", "gradus_loss_total");
  const TensorView logits = neighbouring(call, call.in[0]);
  const TensorView &loss = call.out[0], &divisor = call.out[2];
  CrossEntropy arguments{};
  arguments.of = rowsOf(call, logits, call.in[1], 2);
  setLogits(arguments, logits);
  arguments.logsumexp = call.out[1].data;
  arguments.losses = call.scratch<double>(std::max<int64_t>(1, arguments.of.rows));
  if (arguments.of.rows > 0) launchRounds(kernels.of(logits.dtype), blocksOf(arguments), arguments);
  const LossTotal total{arguments.of,
                        arguments.losses,
                        loss.as<char>(),
                        static_cast<int>(loss.dtype),
                        operandOf(loss).stride,
                        divisor.as<char>(),
                        static_cast<int>(divisor.dtype),
                        static_cast<int>(call.integer(2))};
  launchRounds(totals, 1, total);
}

void run_crossEntropyBackward(const OpCall& call) {
  static FloatingKernels kernels("loss", "crossEntropyBackward");
  static Kernel check("loss", "gradus_loss_check");
  const TensorView logits = neighbouring(call, call.in[1]);
  if (logits.numel == 0) return;
  CrossEntropy arguments{};
  arguments.of = rowsOf(call, logits, call.in[2], 5);
  arguments.gradient = call.out[0].data;
  setLogits(arguments, logits);
  arguments.logsumexp = call.in[3].data;
  arguments.g = operandOf(call.in[0]);
  arguments.divisor = operandOf(call.in[4]);
  arguments.inPlace = arguments.gradient == arguments.logits;
  if (arguments.inPlace) {
    currentDevice().looksFirst();
    launchRounds(check, (arguments.of.rows + kBlock - 1) / kBlock, arguments.of);
  }
  launchRounds(kernels.of(logits.dtype), blocksOf(arguments), arguments);
}

}  // namespace gradus::cuda
