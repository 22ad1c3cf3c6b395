// Arguments of the kernels over lists of tensors, shared by host and device. Lists travel in the arguments of a launch,
// which hold 4096 bytes: longer ones take several launches.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

constexpr int kListChunk = 1 << 14;  // elements of one tensor that a block handles at a time
constexpr int kListTensors = 112;
constexpr int kListPairs = 224;

struct ListTensor {
  const void* in;
  void* out;
  unsigned long long numel;
  int dtype;
  int firstChunk;  // of this launch
};

struct TensorList {
  int count, chunks;
  int firstTensor, firstShare;  // numbers of the whole call
  ListTensor tensors[kListTensors];
};

enum MapKind : int { kMapScale, kMapClip, kMapClamp, kMapFactor };

struct ListMap {
  TensorList list;
  int kind;
  double number;      // factor, largest norm, or limit
  const void* given;  // kMapClip: the norm, float32; kMapFactor: the factor
  int wide;           // the factor is float64
  const FailureWord* failure;
};

struct ListNorm {
  TensorList list;
  double p;
  double* shares;  // of each chunk
};

enum NormRoot : int { kNoRoot, kSquareRoot, kPowerRoot };
enum NormMerge : int { kMergeSum, kMergeMost, kMergeLeast };

struct ListNormTotal {
  int shares;
  int merge, root;
  double p;
  const double* from;
  float* norm;
};

struct ListUnscale {
  TensorList list;
  const float* scale;  // null: 1
  double* shares;
  int* culprits;  // of each chunk: the tensor where it is not finite, or -1
  int write;
  const FailureWord* failure;
};

struct ListUnscaleTotal {
  int shares;
  const double* from;
  const int* culprits;
  float *foundInf, *norm;
  int* first;
};

struct ScalerPair {
  const float* foundInf;
  const int* first;
};

// Of several launches the last one updates.
struct ScalerUpdate {
  int count, firstPair, isLast;
  ScalerPair pairs[kListPairs];
  int* found;  // of earlier launches: the pair, or -1, and its tensor; null: there is one launch
  double growthFactor, backoffFactor, growthInterval;
  float* scale;
  int* tracker;
  float* status;
  const FailureWord* failure;
};

}  // namespace gradus::cuda
