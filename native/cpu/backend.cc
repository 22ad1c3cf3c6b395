// Entry point of the CPU backend: the table of its kernels.
#include "../core/backend.h"

#include <dnnl.h>
#include <hwy/highway.h>

#include <atomic>
#include <cstdio>

#include "parallel.h"

namespace gradus::cpu {

#define GRADUS_OP(name, fewest, most, outputs, attributes) void run_##name(const OpCall&);
#include "../ops.def"
#undef GRADUS_OP

namespace {

constexpr OpFunction kKernels[] = {
#define GRADUS_OP(name, fewest, most, outputs, attributes) run_##name,
#include "../ops.def"
#undef GRADUS_OP
};

std::atomic<int> threads{0};  // 0 until lib/native.ts has set it

const char* describe() {
  static char text[256];
  const dnnl_version_t* v = dnnl_version();
  const int64_t targets = hwy::SupportedTargets();
  snprintf(text, sizeof text, "{\"simd\":\"%s\",\"onednn\":\"%d.%d.%d\",\"openmp\":%d}",
           hwy::TargetName(targets & -targets), v->major, v->minor, v->patch, _OPENMP);
  return text;
}

}  // namespace

// OpenMP's setting is the calling thread's own, and oneDNN reads it: so it is applied where kernels run.
int numThreads() {
  static thread_local int applied = 0;
  const int n = threads.load(std::memory_order_relaxed);
  if (applied != n) {
    omp_set_num_threads(n);
    applied = n;
  }
  return n;
}

void setNumThreads(int n) { threads.store(n, std::memory_order_relaxed); }

}  // namespace gradus::cpu

extern "C" GRADUS_API const gradus::Backend* gradusCpuBackend() {
  using namespace gradus;
  static const Backend backend{kBackendVersion, cpu::kKernels, cpu::numThreads, cpu::setNumThreads, cpu::describe};
  return &backend;
}
