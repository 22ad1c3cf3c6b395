// Arguments of the optimizer kernels, shared by host and device.
#pragma once

#include "multi_tensor.h"

namespace gradus::cuda {

constexpr int kOptimTensors = 55;
constexpr int kOptimSettings = 9;

struct OptimTensor {
  void* param;
  const void* grad;
  void* states[4];
  float* step;  // null: the host counts
  unsigned long long numel;
  int firstChunk;
  signed char paramDtype, gradDtype;
};

// What all steps have: gradients are divided by *scale, clipped to maxNorm by *norm, and where *foundInf is not 0
// nothing changes. Null: not given.
struct OptimStep {
  int count, chunks;
  const float *scale, *foundInf, *norm;
  const FailureWord* failure;
  double maxNorm;
  double settings[kOptimSettings];  // the algorithm's attributes, as in ops.def
  const double* rate;               // in place of the first, the learning rate; null: none
  OptimTensor tensors[kOptimTensors];
};

// Values in 8 bits and the largest magnitude of each block of them; see kernels/dynamic_map.cuh.
struct QuantizedBlocks {
  float* values;
  unsigned char* codes;
  float* magnitudes;
  unsigned long long count;
  int isSigned;
};

}  // namespace gradus::cuda
