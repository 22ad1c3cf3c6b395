// The common iteration space of operands with any strides: broadcast to the output, in the order of the output's
// memory, with as few dims as possible.
#pragma once

#include <cstdlib>
#include <utility>

#include "op.h"

namespace gradus {

constexpr int kMaxOperands = 4;

struct Loop {
  int rank = 0;  // at least 1
  int64_t numel = 0;
  int64_t sizes[kMaxRank];
  int64_t strides[kMaxOperands][kMaxRank];  // operand 0 is the output

  int64_t inner() const { return sizes[rank - 1]; }
  int64_t innerStride(int operand) const { return strides[operand][rank - 1]; }

  bool uniform(int operand) const {
    for (int d = 0; d < rank; ++d) {
      if (strides[operand][d] != 0 && sizes[d] > 1) return false;
    }
    return true;
  }
  // Element i of the iteration space is element i of the operand's memory.
  bool linear(int operand) const { return rank == 1 && (strides[operand][0] == 1 || sizes[0] == 1); }

  // Memory offset of each operand at position `at`; returns the position within the innermost dim.
  int64_t seek(int64_t at, int64_t* offsets, int operands) const {
    for (int k = 0; k < operands; ++k) offsets[k] = 0;
    int64_t within = at;
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t index = d == 0 ? at : at % sizes[d];
      if (d == rank - 1) within = index;
      for (int k = 0; k < operands; ++k) offsets[k] += index * strides[k][d];
      if (d > 0) at /= sizes[d];
    }
    return within;
  }
};

// operands[0] has the shape; absent operands (null) are uniform. Sizes are those of the rule.
inline Loop makeLoop(const TensorView* const* operands, int count) {
  Loop loop;
  const TensorView& shape = *operands[0];
  loop.numel = shape.numel;
  for (int d = 0; d < shape.rank; ++d) {
    if (shape.sizes[d] == 1) continue;
    const int at = loop.rank++;
    loop.sizes[at] = shape.sizes[d];
    for (int k = 0; k < count; ++k) {
      const int own = operands[k] ? d - shape.rank + operands[k]->rank : -1;
      loop.strides[k][at] = own >= 0 && operands[k]->sizes[own] != 1 ? operands[k]->strides[own] : 0;
    }
  }
  if (!shape.contiguous) {  // a transposed output: walk it in memory order
    for (int i = 1; i < loop.rank; ++i) {
      for (int j = i; j > 0 && std::abs(loop.strides[0][j - 1]) < std::abs(loop.strides[0][j]); --j) {
        std::swap(loop.sizes[j - 1], loop.sizes[j]);
        for (int k = 0; k < count; ++k) std::swap(loop.strides[k][j - 1], loop.strides[k][j]);
      }
    }
  }
  int last = 0;
  for (int d = 1; d < loop.rank; ++d) {
    bool merges = true;
    for (int k = 0; k < count; ++k) merges &= loop.strides[k][last] == loop.strides[k][d] * loop.sizes[d];
    if (merges) {
      loop.sizes[last] *= loop.sizes[d];
    } else {
      loop.sizes[++last] = loop.sizes[d];
    }
    for (int k = 0; k < count; ++k) loop.strides[k][last] = loop.strides[k][d];
  }
  if (loop.rank == 0) {
    loop.sizes[0] = 1;
    for (int k = 0; k < count; ++k) loop.strides[k][0] = 0;
  }
  loop.rank = last + 1;
  return loop;
}

// The view of all other dims, for walks over the lines along one.
inline TensorView without(const TensorView& view, int dim) {
  TensorView rest = view;
  rest.numel = 1;
  rest.rank = 0;
  for (int d = 0; d < view.rank; ++d) {
    if (d == dim) continue;
    rest.sizes[rest.rank] = view.sizes[d];
    rest.strides[rest.rank++] = view.strides[d];
    rest.numel *= view.sizes[d];
  }
  rest.contiguous = false;
  return rest;
}

}  // namespace gradus
