// Arguments of the random kernels, shared by host and device.
#pragma once

#include "cells.h"

namespace gradus::cuda {

struct PhiloxStream {
  unsigned long long key, offset;
  const PhiloxCell* cell;  // of the graph that is captured; null: none is
};

// out[i] from word i of the stream; `out` is contiguous.
struct RandomFill {
  unsigned long long count;
  void* out;
  PhiloxStream stream;
  double start, width;  // uniform: [start, start + width); normal: mean and deviation
  int aligned;          // `out` lies on a boundary of 16 bytes
};

struct RandomIntegers {
  unsigned long long count;
  char* out;
  PhiloxStream stream;
  long long low;
  unsigned long long range;
  int dtype;
  int itemSize;
  int aligned;
};

struct RandomChoices {
  unsigned long long count;
  const void* p;
  void* out;
  PhiloxStream stream;
  int aligned;  // both
};

struct Dropout {
  unsigned long long count;
  const void* x;
  const void* residual;  // of the output's dtype; null: none
  void* out;
  PhiloxStream stream;
  double scale;        // 1 / (1 - p)
  unsigned threshold;  // an element stays where its word is not less
  int aligned;         // all operands lie on boundaries of 16 bytes
};

}  // namespace gradus::cuda
