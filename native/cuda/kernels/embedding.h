// Arguments of the kernels of an embedding's gradient, shared by host and device.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

// keys[i] = index[i], values[i] = i. Positions that have no row get the key `rows`: those of `skipped`, and those that
// are out of range, which are reported.
struct IndexKeys {
  const char* index;
  int dtype;
  unsigned count, rows;
  long long skipped;
  unsigned *keys, *values;
  FailureSlot failure;
};

struct EmbeddingSum {
  const void* g;
  void* table;
  const unsigned *keys, *order;  // positions by index
  unsigned count, rows;
  long long width;
  int accumulate, aligned;
  const FailureWord* failure;
};

}  // namespace gradus::cuda
