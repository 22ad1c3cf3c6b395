// Arguments of the kernels that reduce, shared by host and device.
#pragma once

#include "../../core/folds.h"
#include "pointwise.h"

namespace gradus::cuda {

constexpr int kReducePack = 8;  // elements; on a boundary of 16 bytes, or of the pack's length where that is less

// One pass of a reduction. Fewer than 2^31 outputs, and as many elements behind each.
struct ReducePass {
  const char* in;
  int dtype;
  int fold;    // Fold
  int finish;  // Finish
  unsigned outputs;
  unsigned count;  // elements behind each output
  unsigned parts;  // that these are folded in, each to a value of its own in `partial`
  void* partial;   // [parts, outputs] in the accumulator's type; null: one part, finished at once
  double scalar, attribute;
  const double* params;  // [outputs], in place of the scalar; null: none
  double* results;       // [outputs], params of the next pass; null: into `out`
  char* out;
  int outDType;
  long long outSize;          // of an element
  int keptRank, reducedRank;  // outermost first
  int packed;                 // what is folded is contiguous, and made of whole packs on their boundaries
  Divider kept[kPointwiseRank], reduced[kPointwiseRank];
  long long keptStrides[kPointwiseRank], reducedStrides[kPointwiseRank];  // of `in`, in bytes
};

}  // namespace gradus::cuda
