// Permutations and draws from weights: launchers of kernels/sample.cu.
#include "kernels/sample.h"

#include "philox.h"
#include "rows.h"
#include "sort.h"

namespace gradus::cuda {
void run_randperm(const OpCall& call) {
  static Kernel positions("sample", "gradus_sample_positions"), shuffle("sample", "gradus_sample_shuffle");
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  GRADUS_CHECK(out.numel < int64_t{1} << 31, ErrorCode::kShape,
               "randperm: too many elements for cuda: got %lld, expected fewer than 2^31",
               static_cast<long long>(out.numel));
  SampleShuffle arguments{philoxOf(call), out.as<long long>(), static_cast<unsigned>(out.numel),
                          call.scratch<unsigned>(static_cast<size_t>(out.numel))};
  launch(currentDevice(), positions, arguments.count, arguments);
  currentDevice().launch(shuffle, 1, kShuffleThreads, 0, &arguments);
}

// With replacement, sample s of row r uses the wide word r k + s; without, choice j of row r uses r n + j.
void run_multinomial(const OpCall& call) {
  static Kernel draw("sample", "gradus_sample_draw"), makeKeys("sample", "gradus_sample_keys");
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const TensorView weights = contiguousOf(call, call.in[0]);
  SampleRows arguments{};
  arguments.weights = weights.as<char>();
  arguments.dtype = static_cast<int>(weights.dtype);
  arguments.itemSize = static_cast<int>(itemSize(weights.dtype));
  arguments.choices = weights.size(-1);
  arguments.samples = out.size(-1);
  arguments.rows = out.numel / arguments.samples;
  arguments.stream = philoxOf(call);
  arguments.out = out.as<long long>();
  arguments.failure = currentDevice().failureSlot(call.name, arguments.choices, arguments.samples);
  if (call.flag(2)) return launchRounds(draw, arguments.rows, arguments);
  arguments.keys = call.scratch<double>(static_cast<size_t>(weights.numel));
  launchRounds(makeKeys, arguments.rows, arguments);
  orderLines(call, contiguousLike(weights, DType::kFloat64, arguments.keys), weights.rank - 1, false, nullptr, out);
}

}  // namespace gradus::cuda
