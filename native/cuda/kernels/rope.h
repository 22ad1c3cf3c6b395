// Arguments of the rotary embedding, shared by host and device.
#pragma once

#include "pointwise.h"

namespace gradus::cuda {

enum RopeOperand : int { kRopeX, kRopeCos, kRopeSin, kRopeOut, kRopeOperands };

struct RopeRotate {
  unsigned count;  // units of all rows
  Divider units;   // of a row: two runs of features each
  int half;        // pairs of a row
  int rank;        // of what lies around a row
  Divider sizes[kPointwiseRank];
  struct Operand {
    void* data;
    long long strides[kPointwiseRank];  // in elements; 0 where it broadcasts
    long long along;                    // from feature to feature
  } operands[kRopeOperands];
  int tableDType;
  int interleaved, inverse;
  int packed;  // runs are of 128 bits of x
};

}  // namespace gradus::cuda
