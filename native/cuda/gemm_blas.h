// Products by cuBLASLt, where the library is there and takes them as they are.
#pragma once

#include "gemm.h"

namespace gradus::cuda {

// An operand in its common dtype, of which the columns (or, `transposed`, the rows) are contiguous; strides in
// elements.
struct BlasOperand {
  const void* data;
  bool transposed;
  int64_t stride;
  const int64_t* batch;
};

// Whether the library took the product; a and b stand for those of g, in `dtype`.
bool gemmByLibrary(const Gemm& g, const BlasOperand& a, const BlasOperand& b, DType dtype, const OpCall& call);

}  // namespace gradus::cuda
