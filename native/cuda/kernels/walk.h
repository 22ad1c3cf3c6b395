// Where an index of some dims stands in memory.
#pragma once

namespace gradus::cuda {

struct Walk {
  int rank;  // at least 1
  long long sizes[8];
  long long strides[8];  // in bytes
};

}  // namespace gradus::cuda
