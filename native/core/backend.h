// The table of operators, and what the CPU backend's library offers to the core. It is loaded at run time so that
// libgomp, which reads its settings once when it loads, sees the ones that suit a guest in somebody's process (load()
// in backend.cc).
#pragma once

#include "op.h"

namespace gradus {

enum class OpId : uint16_t {
#define GRADUS_OP(name, fewest, most, outputs, attributes) name,
#include "../ops.def"
#undef GRADUS_OP
  kCount
};
constexpr int kNumOps = static_cast<int>(OpId::kCount);

// The first section of ops.def: its work is bounded by the outputs, and small outputs take no second thread.
constexpr bool isPointwise(int op) { return op <= static_cast<int>(OpId::addcmul); }

struct OpInfo {
  const char* name;
  const char* attributes;
  int fewestInputs, mostInputs, outputs, attributeCount;
  OpFunction rule;
};

const OpInfo& opInfo(int id);

struct Backend {
  int version;                // kBackendVersion of the core it was built with
  const OpFunction* kernels;  // kNumOps of them
  void (*begin)();            // before each kernel, on the executor: what was set since then is in force now
  int (*numThreads)();
  void (*setNumThreads)(int);
  const char* (*describe)();  // one JSON object: SIMD target, library versions
};
constexpr int kBackendVersion = 2;

// Loads gradus_cpu.so from beside the addon, once a process. Throws Error(kNative) with what the loader said.
const Backend& cpuBackend();

}  // namespace gradus
