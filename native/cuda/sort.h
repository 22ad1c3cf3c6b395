// Sorting on the device: pairs, for operators that bring equal indices together, and lines along a dim.
#pragma once

#include "launch.h"

namespace gradus::cuda {

struct Pairs {
  unsigned *keys, *values;
};

// Scratch memory for n pairs.
Pairs scratchPairs(const OpCall& call, int64_t n);

// The pairs by key, which is below `limit`; equal ones keep their order. Their memory is used on the way.
Pairs sortPairs(const OpCall& call, Pairs pairs, int64_t n, uint64_t limit);

// The first elements of each line along `dim` in their order, as many as `indices` has room for: their indices, and
// where `values` is given their values. Outputs are contiguous.
void orderLines(const OpCall& call, const TensorView& in, int dim, bool descending, const TensorView* values,
                const TensorView& indices);

}  // namespace gradus::cuda
