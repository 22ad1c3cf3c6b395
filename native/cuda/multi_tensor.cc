// Operators over all gradients at once: launchers of kernels/multi_tensor.cu.
#include <cmath>
#include <limits>

#include "lists.h"

namespace gradus::cuda {
namespace {

// `in` may be `out`.
void map(const TensorView* in, const OpCall& call, MapKind kind, double number, const TensorView& given = {}) {
  static Kernel kernel("multi_tensor", "gradus_multi_tensor_map");
  forLists(in, call.out, call.nOut, [&](const TensorList& list) {
    if (list.chunks == 0) return;
    ListMap arguments{list, kind, number, given.data, given.dtype == DType::kFloat64, currentDevice().failureWord()};
    launchChunks(kernel, list.chunks, arguments);
  });
}

template <class Arguments>
void launchBlock(Kernel& kernel, Arguments arguments) {
  static_assert(sizeof(Arguments) <= 4096);
  currentDevice().launch(kernel, 1, kBlock, 0, &arguments);
}

Kernel& normKernel(double p) {
  constexpr const char* family = "multi_tensor";
  static Kernel squares(family, "gradus_multi_tensor_norm_squares"), sum(family, "gradus_multi_tensor_norm_sum"),
      most(family, "gradus_multi_tensor_norm_most"), least(family, "gradus_multi_tensor_norm_least"),
      nonzero(family, "gradus_multi_tensor_norm_nonzero"), power(family, "gradus_multi_tensor_norm_power");
  if (p == 2) return squares;
  if (p == 1) return sum;
  if (p == 0) return nonzero;
  if (std::isinf(p)) return p > 0 ? most : least;
  return power;
}

}  // namespace

void run_multiTensorNorm(const OpCall& call) {
  static Kernel total("multi_tensor", "gradus_multi_tensor_norm_total");
  const double p = call.attr[0];
  const int64_t chunks = countChunks(call.in, call.nIn);
  double* shares = call.scratch<double>(std::max<int64_t>(1, chunks));
  forLists(call.in, nullptr, call.nIn, [&](const TensorList& list) {
    if (list.chunks == 0) return;
    ListNorm arguments{list, p, shares};
    launchChunks(normKernel(p), list.chunks, arguments);
  });
  const NormMerge merge = !std::isinf(p) ? kMergeSum : p > 0 ? kMergeMost : kMergeLeast;
  const NormRoot root = p == 2 ? kSquareRoot : std::isinf(p) || p == 0 || p == 1 ? kNoRoot : kPowerRoot;
  launchBlock(total, ListNormTotal{static_cast<int>(chunks), merge, root, p, shares, call.out[0].as<float>()});
}

void run_multiTensorScale(const OpCall& call) { map(call.in, call, kMapScale, call.attr[0]); }
void run_multiTensorClamp(const OpCall& call) { map(call.in, call, kMapClamp, call.attr[0]); }
void run_multiTensorClip(const OpCall& call) { map(call.in, call, kMapClip, call.attr[0], call.in[call.nOut]); }

void run_scaleByScalar(const OpCall& call) { map(call.out, call, kMapFactor, 0, call.in[0]); }

void run_multiTensorUnscale(const OpCall& call) {
  static Kernel unscale("multi_tensor", "gradus_multi_tensor_unscale");
  static Kernel total("multi_tensor", "gradus_multi_tensor_unscale_total");
  const int count = call.nIn - 1;
  const bool write = call.flag(0);
  const TensorView& scale = call.in[count];
  const int64_t chunks = countChunks(call.in, count);
  double* shares = call.scratch<double>(std::max<int64_t>(1, chunks));
  int* culprits = call.scratch<int>(std::max<int64_t>(1, chunks));
  forLists(call.in, write ? call.out : nullptr, count, [&](const TensorList& list) {
    if (list.chunks == 0) return;
    ListUnscale arguments{
        list, scale.present() ? scale.as<float>() : nullptr, shares, culprits, write, currentDevice().failureWord()};
    launchChunks(unscale, list.chunks, arguments);
  });
  const TensorView* results = call.out + call.nOut - 3;
  launchBlock(total, ListUnscaleTotal{static_cast<int>(chunks), shares, culprits, results[0].as<float>(),
                                      results[1].as<float>(), results[2].as<int>()});
}

void run_gate(const OpCall& call) { zeroBytes(call.out[0].data, sizeof(float)); }

// The usual call has no scratch, so that a step which was taken is not followed by an update that finds no memory.
void run_scalerUpdate(const OpCall& call) {
  static Kernel kernel("multi_tensor", "gradus_multi_tensor_scaler");
  const int pairs = call.nIn / 2;
  int* found = pairs > kListPairs ? call.scratch<int>(2) : nullptr;
  for (int first = 0; first == 0 || first < pairs; first += kListPairs) {
    ScalerUpdate arguments{std::min(kListPairs, pairs - first),
                           first,
                           first + kListPairs >= pairs,
                           {},
                           found,
                           call.attr[0],
                           call.attr[1],
                           call.attr[2],
                           call.out[0].as<float>(),
                           call.out[1].as<int>(),
                           call.out[2].as<float>(),
                           currentDevice().failureWord()};
    for (int i = 0; i < arguments.count; ++i) {
      const TensorView* pair = call.in + 2 * (first + i);
      arguments.pairs[i] = {pair[0].as<float>(), pair[1].as<int>()};
    }
    launchBlock(kernel, arguments);
  }
}

}  // namespace gradus::cuda
