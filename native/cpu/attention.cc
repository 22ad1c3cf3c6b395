// Scaled dot-product attention: parses the call, cuts it into tasks, runs them. The kernels are in attention_*-inl.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "attention_statistics-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

// Calls what(pairs, element) for the operands' dtype and way of multiplying.
template <class What>
auto visitKernel(const Attention& a, const What& what) {
#if GRADUS_PAIRS
  if (a.pairs) return what(std::true_type(), BFloat16());
#endif
  return visitFloating(a.q->dtype, [&](auto e) { return what(std::false_type(), e); });
}

size_t forwardBytes(const Attention& a, const AttentionPlan& plan) {
  return visitKernel(a, [&](auto pairs, auto e) {
    return ForwardScratch<decltype(pairs)::value, Compute<decltype(e)>>(a, plan, nullptr).bytes;
  });
}
size_t backwardBytes(const Attention& a, const AttentionPlan& plan) {
  return visitKernel(a, [&](auto pairs, auto e) {
    return BackwardScratch<decltype(pairs)::value, Compute<decltype(e)>>(a, plan, nullptr).bytes;
  });
}
size_t statisticsBytes(const Attention& a) {
  return visitKernel(a, [&](auto pairs, auto e) {
    return StatisticsScratch<decltype(pairs)::value, Compute<decltype(e)>>(a, nullptr).bytes;
  });
}
void forward(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  visitKernel(a, [&](auto pairs, auto e) { forwardTask<decltype(pairs)::value, decltype(e)>(a, plan, task, memory); });
}
void backward(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  visitKernel(a, [&](auto pairs, auto e) { backwardTask<decltype(pairs)::value, decltype(e)>(a, plan, task, memory); });
}
void statistics(const Attention& a, int64_t task, char* memory) {
  visitKernel(a, [&](auto pairs, auto e) { statisticsTask<decltype(pairs)::value, decltype(e)>(a, task, memory); });
}
void weights(const Attention& a, int64_t task, char* memory) {
  visitKernel(a, [&](auto pairs, auto e) { weightsTask<decltype(pairs)::value, decltype(e)>(a, task, memory); });
}
void reduce(const Attention& a, const AttentionPlan& plan, int64_t task) {
  visitFloating(a.q->dtype, [&](auto e) { reduceTask<decltype(e)>(a, plan, task); });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>

#include "attention_call.h"
#include "parallel.h"

namespace gradus::cpu {

void run_fill(const OpCall&);

namespace {

HWY_EXPORT(forwardBytes);
HWY_EXPORT(backwardBytes);
HWY_EXPORT(statisticsBytes);
HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(statistics);
HWY_EXPORT(weights);
HWY_EXPORT(reduce);

// Tasks cost unequally under causality and cores are shared: each thread takes the next one when it is free. What a
// task writes does not depend on who runs it.
template <class Run>
void runTasks(const Attention& a, int64_t tasks, char* scratch, size_t bytesEach, const Run& run) {
  // Waking a thread costs 5 us, and 100 us on a busy machine: small attentions stay on one.
  const int threads = 4 * a.scores * a.dim < 1.6e7 ? 1 : static_cast<int>(std::min<int64_t>(numThreads(), tasks));
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) run(task, scratch);
    return;
  }
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
  {
    char* own = scratch + omp_get_thread_num() * bytesEach;
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) run(task, own);
  }
}

// Ranges a head is cut into so that every thread has a few tasks; heads that divide evenly stay whole.
int64_t rangesFor(int64_t heads, int64_t most) {
  const int64_t threads = numThreads(), enough = 4 * threads;
  if (threads == 1 || heads >= enough || heads % threads == 0) return 1;
  return std::max<int64_t>(1, std::min(most, (enough + heads - 1) / heads));
}

bool isSparse(const Attention& a) { return a.blockMask || (a.left < kUnbounded && a.right < kUnbounded); }

// [B, T, H, D] as [B, H, T, D].
TensorView byHeads(TensorView x) {
  std::swap(x.sizes[1], x.sizes[2]);
  std::swap(x.strides[1], x.strides[2]);
  x.contiguous = false;
  return x;
}

// One of the three [B, T, H, D] in [B, T, 3, H, D].
TensorView third(TensorView x, int i) {
  x.data = x.as<char>() + i * x.strides[2] * static_cast<int64_t>(itemSize(x.dtype));
  std::copy(x.sizes + 3, x.sizes + 5, x.sizes + 2);
  std::copy(x.strides + 3, x.strides + 5, x.strides + 2);
  x.rank = 4;
  x.numel /= 3;
  x.contiguous = false;
  return x;
}

void fillZero(const TensorView& x) {
  OpCall call{};
  const double zero = 0;
  TensorView out = x;
  call.name = "fill";
  call.out = &out;
  call.nOut = call.nAttr = 1;
  call.attr = &zero;
  run_fill(call);
}

}  // namespace

void run_attention(const OpCall& call) {
  Attention a = describeAttention(call, &call.in[0], &call.in[1], &call.in[2], 3);
  const TensorView out = byHeads(call.out[0]);
  a.out = &out;
  a.logsumexp = &call.out[1];
  const int64_t heads = static_cast<int64_t>(a.segments.size()) * a.heads;
  if (heads == 0 || a.longestQueries == 0) return;
  AttentionPlan plan{};
  const int64_t blocks = ceilDiv(a.longestQueries, kAttentionBlock);
  plan.rangeSize = ceilDiv(blocks, rangesFor(heads, blocks)) * kAttentionBlock;
  plan.ranges = ceilDiv(a.longestQueries, plan.rangeSize);
  const size_t bytes = HWY_DYNAMIC_DISPATCH(forwardBytes)(a, plan);
  char* scratch = call.scratch<char>(bytes * numThreads());
  runTasks(a, heads * plan.ranges, scratch, bytes, [&](int64_t task, char* memory) {
    HWY_DYNAMIC_DISPATCH(forward)(a, plan, task, memory);
  });
}

void run_attentionBackward(const OpCall& call) {
  Attention a = describeAttention(call, &call.in[1], &call.in[2], &call.in[3], 6);
  a.g = &call.in[0];
  a.out = &call.in[4];
  a.logsumexp = &call.in[5];
  TensorView gradients[3];
  const int64_t layout = call.integer(9);  // 0: [B, T, H, D] each, 1: [B, T, 3, H, D], 2: [B, H, T, D] each
  for (int i = 0; i < 3; ++i) {
    gradients[i] = layout == 2 ? call.out[i] : byHeads(layout == 1 ? third(call.out[0], i) : call.out[i]);
  }
  a.dq = &gradients[0];
  a.dk = &gradients[1];
  a.dv = &gradients[2];
  const int64_t sequences = static_cast<int64_t>(a.segments.size()), kvHeads = sequences * a.kvHeads;
  bool shorter = false;  // keys of a batch entry that lie beyond its length belong to no task
  for (const Segment& segment : a.segments) shorter |= call.in[1].size(0) == sequences && segment.keys < a.keys;
  if (shorter || a.longestQueries == 0 || a.longestKeys == 0 || kvHeads == 0) {
    for (const TensorView& gradient : gradients) fillZero(gradient);
    if (a.longestQueries == 0 || a.longestKeys == 0 || kvHeads == 0) return;
  }
  AttentionPlan plan{};
  // Each range costs a copy of dQ: so there are at most eight, of two blocks or more.
  const int64_t most = std::min<int64_t>(8, ceilDiv(a.longestKeys, 2 * kAttentionBlock));
  const int64_t ofRange = ceilDiv(a.longestKeys, rangesFor(kvHeads, most));
  // Where a query sees few keys of a panel, loading the queries again for each would take longer than their tiles.
  plan.sparse = isSparse(a);
  const int64_t panelKeys = plan.sparse ? a.longestKeys : kPanelKeys;
  plan.panelKeys = roundUp(std::min(panelKeys, ofRange), kAttentionBlock);
  plan.rangeSize = ceilDiv(ofRange, plan.panelKeys);
  plan.ranges = ceilDiv(ceilDiv(a.longestKeys, plan.panelKeys), plan.rangeSize);
  const size_t bytes = HWY_DYNAMIC_DISPATCH(backwardBytes)(a, plan);
  char* scratch = call.scratch<char>(bytes * numThreads());
  if (plan.ranges > 1) {
    const size_t item = a.q->dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
    plan.partials = call.scratch<char>(plan.ranges * a.batch * a.heads * a.paddedQueries * a.dimPad * item);
  }
  runTasks(a, kvHeads * plan.ranges, scratch, bytes, [&](int64_t task, char* memory) {
    HWY_DYNAMIC_DISPATCH(backward)(a, plan, task, memory);
  });
  if (plan.ranges > 1) {
    runTasks(a, sequences * a.heads * ceilDiv(a.longestQueries, kAttentionBlock), scratch, 0, [&](int64_t task, char*) {
      HWY_DYNAMIC_DISPATCH(reduce)(a, plan, task);
    });
  }
}

void run_attentionStatistics(const OpCall& call) {
  Attention a = describeAttention(call, &call.in[0], &call.in[1], &call.in[1], 3);
  a.logsumexp = &call.in[2];
  a.entropy = &call.out[0];
  a.received = &call.out[1];
  fillZero(call.out[1]);  // also keys beyond the length of their batch entry
  const size_t bytes = HWY_DYNAMIC_DISPATCH(statisticsBytes)(a);
  char* scratch = call.scratch<char>(bytes * numThreads());
  runTasks(a, static_cast<int64_t>(a.segments.size()) * a.heads, scratch, bytes, [&](int64_t task, char* memory) {
    HWY_DYNAMIC_DISPATCH(statistics)(a, task, memory);
  });
}

void run_attentionWeights(const OpCall& call) {
  Attention a = describeAttention(call, &call.in[0], &call.in[1], &call.in[1], 3);
  a.logsumexp = &call.in[2];
  a.weights = &call.out[0];
  fillZero(call.out[0]);
  const size_t bytes = HWY_DYNAMIC_DISPATCH(statisticsBytes)(a);
  char* scratch = call.scratch<char>(bytes * numThreads());
  runTasks(a, static_cast<int64_t>(a.segments.size()) * a.heads, scratch, bytes, [&](int64_t task, char* memory) {
    HWY_DYNAMIC_DISPATCH(weights)(a, task, memory);
  });
}

}  // namespace gradus::cpu
#endif  // HWY_ONCE
