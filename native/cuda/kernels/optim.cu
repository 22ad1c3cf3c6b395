// Optimizer steps over all parameters at once: a gradient is unscaled and clipped as it is read, and whether anything
// changes, by how much and for the how-manieth time is known to the device alone, so nothing waits. Parameters and
// gradients are of any floating dtype, states of the type that is computed in.
//
//   gradus_optim_<adam|amsgrad|sgd|sgd_momentum|rmsprop|rmsprop_centered|rmsprop_momentum|rmsprop_both|adagrad>
//     (OptimStep): blocks of 256 threads, one chunk of a tensor a block and round
//   gradus_optim_count(OptimStep): counts up the steps after it; one block of 64
#include "optim_rules.cuh"
#include "optim_step.cuh"

namespace gradus::cuda {
namespace {

template <class C, class Rule>
__device__ void updateChunk(const OptimTensor& tensor, const Rule& rule, const Incoming<C>& incoming,
                            unsigned long long from, int n) {
  bool wide = areWide(tensor.param, tensor.grad);
#pragma unroll
  for (int s = 0; s < Rule::kStates; ++s) wide = wide && areWide(tensor.states[s], nullptr);
  forRuns(n, wide, [&](int at, int count, bool whole) {
    C p[kListLanes], g[kListLanes], states[3][kListLanes];
    read(tensor.param, tensor.paramDtype, from + at, count, whole, p);
    read(const_cast<void*>(tensor.grad), tensor.gradDtype, from + at, count, whole, g);
#pragma unroll
    for (int s = 0; s < Rule::kStates; ++s) {
      C* state = static_cast<C*>(tensor.states[s]) + from + at;
      if (whole)
        loadRun(state, states[s]);
      else
        loadSome(state, count, states[s]);
    }
#pragma unroll
    for (int k = 0; k < kListLanes; ++k) {
      C own[3];
#pragma unroll
      for (int s = 0; s < Rule::kStates; ++s) own[s] = states[s][k];
      p[k] = rule.update(p[k], g[k] * incoming.unscale * incoming.clip, own);
#pragma unroll
      for (int s = 0; s < Rule::kStates; ++s) states[s][k] = own[s];
    }
    write(tensor.param, tensor.paramDtype, from + at, count, whole, p);
#pragma unroll
    for (int s = 0; s < Rule::kStates; ++s) {
      C* state = static_cast<C*>(tensor.states[s]) + from + at;
      if (whole)
        storeRun(state, states[s]);
      else
        storeSome(state, count, states[s]);
    }
  });
}

// Which attribute has the host's count; -1: none.
constexpr int kAdamStep = 8, kSgdFirst = 6, kAdagradStep = 5, kNoStep = -1;

template <template <class> class Rule, int kStep>
__device__ void step(const OptimStep& a) {
  if (isSkipped(a)) return;
  double counted = 1;
  if constexpr (kStep >= 0) counted = a.settings[kStep];
  forChunks(a, [&](int, int i, unsigned long long from, int n) {
    // one thread makes the rule: powers of the decay rates in float64 take longer than the thread's elements
    __shared__ union Shared {
      Rule<float> narrow;
      Rule<double> wide;
      __device__ Shared() {}
    } shared;
    const OptimTensor& tensor = a.tensors[i];
    const bool isWideType = tensor.paramDtype == static_cast<int>(DType::kFloat64);
    __syncthreads();  // the last chunk's rule has been read
    if (threadIdx.x == 0) {
      const double number = numberOf(a, i, counted);
      if (isWideType)
        shared.wide = Rule<double>(Settings{a}, number);
      else
        shared.narrow = Rule<float>(Settings{a}, number);
    }
    __syncthreads();
    if (isWideType)
      updateChunk<double>(tensor, Rule<double>(shared.wide), Incoming<double>(a), from, n);
    else
      updateChunk<float>(tensor, Rule<float>(shared.narrow), Incoming<float>(a), from, n);
  });
}

template <class C>
using Adam = AdamRule<C, false>;
template <class C>
using Amsgrad = AdamRule<C, true>;
template <class C>
using Sgd = SgdRule<C, false>;
template <class C>
using SgdMomentum = SgdRule<C, true>;
template <class C>
using Rmsprop = RmspropRule<C, false, false>;
template <class C>
using RmspropCentered = RmspropRule<C, true, false>;
template <class C>
using RmspropMomentum = RmspropRule<C, false, true>;
template <class C>
using RmspropBoth = RmspropRule<C, true, true>;

}  // namespace

#define GRADUS_OPTIM(name, Rule, kStep)                                                                           \
  extern "C" __global__ void __launch_bounds__(256, 1) gradus_optim_##name(const __grid_constant__ OptimStep a) { \
    step<Rule, kStep>(a);                                                                                         \
  }

GRADUS_OPTIM(adam, Adam, kAdamStep)
GRADUS_OPTIM(amsgrad, Amsgrad, kAdamStep)
GRADUS_OPTIM(sgd, Sgd, kSgdFirst)
GRADUS_OPTIM(sgd_momentum, SgdMomentum, kSgdFirst)
GRADUS_OPTIM(rmsprop, Rmsprop, kNoStep)
GRADUS_OPTIM(rmsprop_centered, RmspropCentered, kNoStep)
GRADUS_OPTIM(rmsprop_momentum, RmspropMomentum, kNoStep)
GRADUS_OPTIM(rmsprop_both, RmspropBoth, kNoStep)
GRADUS_OPTIM(adagrad, AdagradRule, kAdagradStep)

extern "C" __global__ void __launch_bounds__(64) gradus_optim_count(const __grid_constant__ OptimStep a) {
  if (!isSkipped(a) && threadIdx.x < a.count) *a.tensors[threadIdx.x].step += 1;
}

}  // namespace gradus::cuda
