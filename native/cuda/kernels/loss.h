// Arguments of the cross entropy kernels, shared by host and device.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

struct LossOperand {
  const char* data;  // null: not there
  int dtype;
  long long stride;  // in bytes
};

struct LossRows {
  LossOperand target;
  LossOperand weight;         // of classes
  const double* weightTotal;  // with a weight and smoothing
  long long ignoreIndex;
  double smoothing;
  long long rows, classes;
  FailureSlot failure;
};

struct CrossEntropy {
  LossRows of;
  const void* logits;
  long long rowStride;  // in elements; classes are neighbours
  int threads;          // that share a row
  int packed;           // rows begin on 128 bits and have whole packs
  void* logsumexp;      // [rows], in the type that is computed in
  double* losses;       // forward: [rows]
  LossOperand g;        // backward: of each row, or of all with a stride of 0
  LossOperand divisor;
  void* gradient;  // [rows, classes]
  int inPlace;     // the gradient overwrites the logits: after a failure they stay as they were
};

struct LossTotal {
  LossRows of;
  const double* losses;
  char* loss;
  int lossDType;
  long long lossStride;  // in bytes, without reduction
  char* divisor;
  int divisorDType;
  int reduction;  // 0 none, 1 mean, 2 sum
};

}  // namespace gradus::cuda
