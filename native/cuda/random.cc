// Random operators: launchers of kernels/random.cu.
#include "kernels/random.h"

#include "../core/element.h"
#include "philox.h"
#include "views.h"

namespace gradus::cuda {
namespace {

// Threads that are worth it, each of which takes so many elements at a time.
uint64_t runsOf(int64_t elements, uint64_t width) { return (static_cast<uint64_t>(elements) + width - 1) / width; }
uint64_t runsOf(int64_t elements, DType dtype) { return runsOf(elements, isHalf(dtype) ? 8 : 4); }

void fill(const OpCall& call, FloatingKernels& kernels, double start, double width) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const RandomFill arguments{
      static_cast<uint64_t>(out.numel), out.data, philoxOf(call), start, width, isWide(out.data)};
  launch(currentDevice(), kernels.of(out.dtype), runsOf(out.numel, out.dtype), arguments);
}

unsigned dropThreshold(double p) {
  const double scaled = p * 0x1p32 + 0.5;
  return scaled >= 0x1p32 ? 0xffffffffu : static_cast<unsigned>(scaled);
}

Kernel& dropoutKernel(DType from, DType to) {
  static FloatingKernels kernels[] = {{"random", "dropout_float32"},
                                      {"random", "dropout_float64"},
                                      {"random", "dropout_float16"},
                                      {"random", "dropout_bfloat16"}};
  return kernels[static_cast<int>(from)].of(to);
}

void dropout(const OpCall& call) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const TensorView x = contiguousOf(call, call.in[0]);
  const TensorView residual = call.nIn == 2 ? contiguousOf(call, call.in[1]) : TensorView{};
  const double p = call.attr[2];
  if (p >= 1) {  // a word may equal the largest threshold, so this is not a case of the formula
    return residual.present() ? copyView(call, residual, out) : fillView(call, out, 0);
  }
  const bool aligned = isWide(x.data) && isWide(residual.data) && isWide(out.data);
  const Dropout arguments{static_cast<uint64_t>(out.numel),
                          x.data,
                          residual.data,
                          out.data,
                          philoxOf(call),
                          1 / (1 - p),
                          dropThreshold(p),
                          aligned};
  const DType narrow = isHalf(out.dtype) ? out.dtype : x.dtype;
  launch(currentDevice(), dropoutKernel(x.dtype, out.dtype), runsOf(out.numel, narrow), arguments);
}

}  // namespace

void run_uniform(const OpCall& call) {
  static FloatingKernels kernels("random", "uniform");
  fill(call, kernels, call.attr[2], call.attr[3] - call.attr[2]);
}

void run_normal(const OpCall& call) {
  static FloatingKernels kernels("random", "normal");
  fill(call, kernels, call.attr[2], call.attr[3]);
}

void run_randint(const OpCall& call) {
  static Kernel narrow("random", "gradus_random_integers_narrow"), wide("random", "gradus_random_integers_wide");
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const int64_t low = call.integer(2);
  const uint64_t range = static_cast<uint64_t>(call.integer(3) - low);
  const RandomIntegers arguments{
      static_cast<uint64_t>(out.numel),      out.as<char>(),  philoxOf(call), low, range, static_cast<int>(out.dtype),
      static_cast<int>(itemSize(out.dtype)), isWide(out.data)};
  launch(currentDevice(), range > (uint64_t{1} << 24) ? wide : narrow, runsOf(out.numel, 4), arguments);
}

void run_bernoulli(const OpCall& call) {
  static FloatingKernels kernels("random", "bernoulli");
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const TensorView p = contiguousOf(call, call.in[0]);
  const RandomChoices arguments{static_cast<uint64_t>(out.numel), p.data, out.data, philoxOf(call),
                                isWide(p.data) && isWide(out.data)};
  launch(currentDevice(), kernels.of(p.dtype), runsOf(out.numel, p.dtype), arguments);
}

void run_dropout(const OpCall& call) { dropout(call); }
void run_dropoutAdd(const OpCall& call) { dropout(call); }

}  // namespace gradus::cuda
