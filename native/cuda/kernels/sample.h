// Arguments of the sampling kernels, shared by host and device.
#pragma once

#include "failure_word.h"
#include "random.h"

namespace gradus::cuda {

constexpr int kShuffleThreads = 1024;

struct SampleShuffle {
  PhiloxStream stream;
  long long* out;
  unsigned count;
  unsigned* reserved;  // [count]: who of those that wait comes first, or 0
};

// Draws from rows of weights.
struct SampleRows {
  const char* weights;  // contiguous [rows, choices]
  int dtype, itemSize;
  long long rows, choices, samples;
  PhiloxStream stream;
  long long* out;  // with replacement: [rows, samples]
  double* keys;    // without: [rows, choices], of which the smallest are drawn
  FailureSlot failure;
};

}  // namespace gradus::cuda
