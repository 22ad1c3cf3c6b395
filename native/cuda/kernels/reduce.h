// Arguments of the kernels that reduce, shared by host and device.
#pragma once

#include "../../core/folds.h"
#include "pointwise.h"

namespace gradus::cuda {

constexpr int kReducePack = 8;  // elements; on a boundary of 16 bytes, or of the pack's length where that is less

// Neighbouring outputs of a thread of `columns`, for elements of so many bytes: their packs are 16 bytes, and of
// bytes 8.
constexpr int reduceLanes(int itemSize) { return itemSize == 1 ? 8 : 16 / itemSize; }

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
  // What is folded is contiguous, and made of whole packs on their boundaries; of columns: outputs are, and so are the
  // elements that are folded into each pack of them.
  int packed;
  Divider kept[kPointwiseRank], reduced[kPointwiseRank];
  long long keptStrides[kPointwiseRank], reducedStrides[kPointwiseRank];  // of `in`, in bytes
};

}  // namespace gradus::cuda
