// Operands as a kernel wants them: contiguous, of one dtype, indices checked. What already is so is used in place.
#pragma once

#include "../core/op.h"
#include "parallel.h"

namespace gradus::cpu {

void run_copy(const OpCall&);
void run_fill(const OpCall&);

// Copies between views of the same sizes, whatever their strides and dtypes.
inline void copyView(const OpCall& call, const TensorView& from, TensorView to) {
  run_copy({call.name, &from, &to, nullptr, 1, 1, 0, call.workspace});
}

inline void fillView(const OpCall& call, TensorView to, double value) {
  run_fill({call.name, nullptr, &to, &value, 0, 1, 1, call.workspace});
}

inline TensorView contiguousLike(const TensorView& x, DType dtype, void* data) {
  TensorView view = x;
  view.data = data;
  view.dtype = dtype;
  view.contiguous = true;
  int64_t stride = 1;
  for (int d = x.rank - 1; d >= 0; --d) {
    view.strides[d] = stride;
    stride *= x.sizes[d] > 0 ? x.sizes[d] : 1;
  }
  return view;
}

// The operand itself, or a copy in scratch memory.
inline TensorView contiguousAs(const OpCall& call, const TensorView& x, DType dtype) {
  if (!x.present() || (x.contiguous && x.dtype == dtype)) return x;
  const size_t bytes = static_cast<size_t>(x.numel) * itemSize(dtype);
  const TensorView view = contiguousLike(x, dtype, call.workspace->take(bytes));
  copyView(call, x, view);
  return view;
}

inline TensorView contiguousOf(const OpCall& call, const TensorView& x) { return contiguousAs(call, x, x.dtype); }

// Row-major view around one dim: element (o, i, n) of [outer, size, inner] stands at (o * size + i) * inner + n.
struct Around {
  int64_t outer = 1, size = 1, inner = 1;
  Around(const TensorView& x, int dim) {
    for (int d = 0; d < x.rank; ++d) (d < dim ? outer : d == dim ? size : inner) *= x.sizes[d];
  }
};

// Indices as contiguous int64, each of them in [0, limit); throws before the caller has written anything.
const int64_t* checkedIndices(const OpCall& call, const TensorView& index, int64_t limit);

}  // namespace gradus::cpu
