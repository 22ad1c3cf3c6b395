// Entry point of the CPU backend: the table of its kernels.
#include "../core/backend.h"

#include <dnnl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>

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

// A kernel asks for its scratch memory and starts its threads by the same number, so that one may not change on the
// way: what JavaScript wants comes into force between two kernels.
std::atomic<int> wanted{0};   // 0 until lib/native.ts has set it
std::atomic<int> inForce{0};  // 0: none yet

// OpenMP's setting is the calling thread's own, and oneDNN reads it: so it is applied on every executor. They run one
// kernel at a time.
void begin() {
  thread_local int applied = 0;
  const int n = wanted.load(std::memory_order_relaxed);
  if (n == 0) return;
  if (n != applied) omp_set_num_threads(applied = n);
  if (n != inForce.load(std::memory_order_relaxed)) inForce.store(n, std::memory_order_relaxed);
}

int wantedThreads() { return wanted.load(std::memory_order_relaxed); }
void setWantedThreads(int n) { wanted.store(n, std::memory_order_relaxed); }

std::string description() {
  char text[256];
  const dnnl_version_t* v = dnnl_version();
  const int64_t targets = hwy::SupportedTargets();
  snprintf(text, sizeof text, "{\"simd\":\"%s\",\"onednn\":\"%d.%d.%d\",\"openmp\":%d}",
           hwy::TargetName(targets & -targets), v->major, v->minor, v->patch, _OPENMP);
  return text;
}

const char* describe() {
  static const std::string text = description();
  return text.c_str();
}

}  // namespace

int numThreads() { return std::max(1, inForce.load(std::memory_order_relaxed)); }

}  // namespace gradus::cpu

extern "C" GRADUS_API const gradus::Backend* gradusCpuBackend() {
  using namespace gradus;
  static const Backend backend{kBackendVersion,    cpu::kKernels,         cpu::begin,
                               cpu::wantedThreads, cpu::setWantedThreads, cpu::describe};
  return &backend;
}
