// The geometry of a reduction: the dims that stay, in the order of the output, and the dims that go.
#pragma once

#include "loop.h"

namespace gradus {

struct Geometry {
  Loop kept, reduced;  // strides[1] are the input's
  int64_t outputs, count;

  // `ordered` keeps the reduced dims in logical order; otherwise they go in the order of memory.
  Geometry(const TensorView& in, uint64_t dims, bool ordered) {
    TensorView keptShape, keptView, reducedView;
    keptShape.rank = keptView.rank = reducedView.rank = 0;
    keptShape.numel = reducedView.numel = 1;
    keptShape.contiguous = true;
    for (int d = 0; d < in.rank; ++d) {
      TensorView& view = dims >> d & 1 ? reducedView : keptView;
      view.sizes[view.rank] = in.sizes[d];
      view.strides[view.rank++] = in.strides[d];
      (dims >> d & 1 ? reducedView : keptShape).numel *= in.sizes[d];
    }
    keptShape.rank = keptView.rank;
    int64_t stride = 1;
    for (int d = keptView.rank - 1; d >= 0; --d) {
      keptShape.sizes[d] = keptView.sizes[d];
      keptShape.strides[d] = stride;
      stride *= keptView.sizes[d];
    }
    reducedView.contiguous = ordered;
    const TensorView* keptOperands[] = {&keptShape, &keptView};
    const TensorView* reducedOperands[] = {&reducedView, &reducedView};
    kept = makeLoop(keptOperands, 2);
    reduced = makeLoop(reducedOperands, 2);
    outputs = keptShape.numel;
    count = reducedView.numel;
  }

  // The outputs lie side by side in the input too: fold whole rows of them at once.
  bool byColumns() const { return kept.innerStride(1) == 1 && kept.inner() > 1; }
};

}  // namespace gradus
