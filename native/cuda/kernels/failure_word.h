// What kernels and host share of late failures.
#pragma once

namespace gradus::cuda {

// In device memory. The first kernel that finds something wrong in its data sets it; while it is set, kernels that
// write in place leave their targets as they are.
struct FailureWord {
  unsigned serial;  // of the failed operation, from 1; 0: none
  unsigned kind;    // FailureKind
  long long value;  // what was found
};

enum FailureKind : unsigned {
  kIndexOutOfRange = 1,
  kDivisionByZero = 2,
  kUnusableWeight = 3,  // value: its place
  kUnusableSum = 4,     // of weights; value: the row
  kTooFewWeights = 5,   // above 0; value: how many
};

// What a kernel gets: the word, and the number of its operation.
struct FailureSlot {
  FailureWord* word;
  unsigned serial;
};

}  // namespace gradus::cuda
