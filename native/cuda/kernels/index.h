// Arguments of the indexing kernels, shared by host and device.
#pragma once

#include "pointwise.h"

namespace gradus::cuda {

// Indices as int64, each in [0, limit); those that are not are reported and become 0.
struct IndexCheck {
  const char* index;
  int dtype;
  unsigned long long count;
  long long limit;
  long long* out;
  FailureSlot failure;
};

// out[o, i] = x[o, index[i]], rows of `units` units each; `threads` of a warp share a row.
struct IndexRows {
  const void* x;
  void* out;
  const long long* index;
  unsigned long long rows;
  long long perTable, size, units;  // rows of the output and of x in each of the tables
  int threads;
};

// Elements of an index tensor, each with its place in a tensor that the index chooses from along one dim.
struct IndexWalk {
  unsigned count;
  int rank;
  Divider sizes[kPointwiseRank];      // of the index, outermost first
  long long strides[kPointwiseRank];  // of the chosen tensor, in elements; 0 along the dim
  long long sourceStrides[kPointwiseRank];
  long long along;         // the chosen tensor's along the dim
  const long long* index;  // contiguous
};

struct IndexGather {
  IndexWalk walk;
  const void* x;
  void* out;  // contiguous, like the index
};

// keys[i]: place of element i in the output; values[i] = i.
struct IndexPlaces {
  IndexWalk walk;
  unsigned *keys, *values;
};

// Elements that go to one place lie side by side: their sum is added there, or the last of them is written.
struct IndexScatter {
  IndexWalk walk;
  const void* source;
  void* out;
  const unsigned *keys, *order;
  const FailureWord* failure;
};

// out[o, row, :] += alpha source[o, i, :] for the positions i of a row, which come sorted by row.
struct IndexAdd {
  const void* source;
  void* out;
  const unsigned *keys, *order;
  unsigned count;  // of the index
  long long outer, size, inner;
  double alpha;
  const FailureWord* failure;
};

}  // namespace gradus::cuda
