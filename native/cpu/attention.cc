// Scaled dot-product attention: parses the call, cuts it into tasks, runs them. The kernels are in attention_*-inl.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "attention_backward-inl.h"
#include "attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

size_t forwardBytes(const Attention& a, const AttentionPlan& plan) {
  return visitFloating(a.q->dtype, [&](auto e) { return ForwardScratch<Compute<decltype(e)>>(a, plan, nullptr).bytes; });
}
size_t backwardBytes(const Attention& a, const AttentionPlan& plan) {
  return visitFloating(a.q->dtype,
                       [&](auto e) { return BackwardScratch<Compute<decltype(e)>>(a, plan, nullptr).bytes; });
}
void forward(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  visitFloating(a.q->dtype, [&](auto e) { forwardTask<decltype(e)>(a, plan, task, memory); });
}
void backward(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  visitFloating(a.q->dtype, [&](auto e) { backwardTask<decltype(e)>(a, plan, task, memory); });
}
void reduce(const Attention& a, const AttentionPlan& plan, int64_t task, char* memory) {
  visitFloating(a.q->dtype, [&](auto e) { reduceTask<decltype(e)>(a, plan, task, memory); });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>

#include "parallel.h"

namespace gradus::cpu {

void run_fill(const OpCall&);

namespace {

HWY_EXPORT(forwardBytes);
HWY_EXPORT(backwardBytes);
HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(reduce);

Attention describe(const OpCall& call, const TensorView* q, const TensorView* k, const TensorView* v, int maskAt) {
  Attention a{};
  a.q = q;
  a.k = k;
  a.v = v;
  a.batch = q->size(0);
  a.heads = q->size(1);
  a.queries = q->size(2);
  a.dim = q->size(3);
  a.kvHeads = k->size(1);
  a.keys = k->size(2);
  a.valueDim = v->size(3);
  a.dimPad = roundUp(a.dim, kLaneMultiple);
  a.valuePad = roundUp(a.valueDim, kLaneMultiple);
  if (call.nIn > maskAt && call.in[maskAt].present()) {
    a.mask = &call.in[maskAt];
    for (int d = 0; d < 4; ++d) {
      const int from = d - (4 - a.mask->rank);
      a.maskStrides[d] = from < 0 || a.mask->sizes[from] == 1 ? 0 : a.mask->strides[from];
    }
  }
  a.scale = call.attr[0];
  a.causal = call.flag(1);
  a.seed = static_cast<uint64_t>(call.attr[2]);
  a.offset = static_cast<uint64_t>(call.attr[3]);
  a.dropout = call.attr[4];
  return a;
}

// Tasks cost unequally under causality and cores are shared: each thread takes the next one when it is free. What a
// task writes does not depend on who runs it.
template <class Run>
void runTasks(const Attention& a, int64_t tasks, char* scratch, size_t bytesEach, const Run& run) {
  // Waking a thread costs 5 us, and 100 us on a busy machine: small attentions stay on one.
  const double work = 4.0 * a.batch * a.heads * a.queries * a.keys * a.dim;
  const int threads = work < 1.6e7 ? 1 : static_cast<int>(std::min<int64_t>(numThreads(), tasks));
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

int64_t ceilDiv(int64_t n, int64_t by) { return (n + by - 1) / by; }

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
  Attention a = describe(call, &call.in[0], &call.in[1], &call.in[2], 3);
  const TensorView out = byHeads(call.out[0]);
  a.out = &out;
  a.logsumexp = &call.out[1];
  const int64_t heads = a.batch * a.heads, blocks = ceilDiv(a.queries, kAttentionBlock);
  if (heads == 0 || a.queries == 0) return;
  AttentionPlan plan{};
  const int64_t ranges = rangesFor(heads, blocks);
  plan.rangeSize = ceilDiv(blocks, ranges) * kAttentionBlock;
  plan.ranges = ceilDiv(a.queries, plan.rangeSize);
  const size_t bytes = HWY_DYNAMIC_DISPATCH(forwardBytes)(a, plan);
  char* scratch = call.scratch<char>(bytes * numThreads());
  runTasks(a, heads * plan.ranges, scratch, bytes,
           [&](int64_t task, char* memory) { HWY_DYNAMIC_DISPATCH(forward)(a, plan, task, memory); });
}

void run_attentionBackward(const OpCall& call) {
  Attention a = describe(call, &call.in[1], &call.in[2], &call.in[3], 6);
  a.g = &call.in[0];
  a.out = &call.in[4];
  a.logsumexp = &call.in[5];
  TensorView gradients[3];
  for (int i = 0; i < 3; ++i) gradients[i] = call.flag(5) ? byHeads(third(call.out[0], i)) : byHeads(call.out[i]);
  a.dq = &gradients[0];
  a.dk = &gradients[1];
  a.dv = &gradients[2];
  if (a.queries == 0 || a.keys == 0 || a.heads == 0 || a.batch == 0) {
    for (int i = 0; i < 3; ++i) fillZero(call.out[i]);
    return;
  }
  const int64_t kvHeads = a.batch * a.kvHeads;
  AttentionPlan plan{};
  // Each range beyond the first costs a copy of dQ: so there are at most eight, of two blocks or more.
  const int64_t most = std::min<int64_t>(8, ceilDiv(a.keys, 2 * kAttentionBlock));
  const int64_t ofRange = ceilDiv(a.keys, rangesFor(kvHeads, most));
  plan.panelKeys = std::min(kPanelKeys, roundUp(ofRange, kAttentionBlock));
  const int64_t panels = ceilDiv(a.keys, plan.panelKeys);
  plan.rangeSize = ceilDiv(ofRange, plan.panelKeys);
  plan.ranges = ceilDiv(panels, plan.rangeSize);
  const size_t bytes = HWY_DYNAMIC_DISPATCH(backwardBytes)(a, plan);
  char* scratch = call.scratch<char>(bytes * numThreads());
  if (plan.ranges > 1) {
    const size_t item = a.q->dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
    plan.partials = call.scratch<char>(plan.ranges * a.batch * a.heads * a.queries * a.dimPad * item);
  }
  runTasks(a, kvHeads * plan.ranges, scratch, bytes,
           [&](int64_t task, char* memory) { HWY_DYNAMIC_DISPATCH(backward)(a, plan, task, memory); });
  if (plan.ranges > 1) {
    runTasks(a, a.batch * a.heads * ceilDiv(a.queries, kAttentionBlock), scratch, 0,
             [&](int64_t task, char* memory) { HWY_DYNAMIC_DISPATCH(reduce)(a, plan, task, memory); });
  }
}

}  // namespace gradus::cpu
#endif  // HWY_ONCE
