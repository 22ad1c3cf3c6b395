// What kernels and host share of late failures.
#pragma once

namespace gradus::cuda {

// In device memory. A kernel that finds something wrong in its data sets it; while it is set, kernels that write in
// place leave their targets as they are.
struct FailureWord {
  unsigned serial;           // of the first operation that failed, from 1; 0: none
  unsigned kind;             // FailureKind
  long long value;           // what was found, an integer or the bits of a float64
  unsigned long long order;  // ~place: of what an operation finds, the first place stays
  unsigned lock;
  unsigned clears;  // how often the host has cleared it: a replayed graph reports a number again
};

// What was found, and what its place is.
enum FailureKind : unsigned {
  kIndexOutOfRange = 1,   // of the index
  kTargetOutOfRange = 2,  // row
  kDivisionByZero = 3,
  // of multinomial; the places of a row of n weights are row * (n + 2) + { column, n: its sum, n + 1: its count }
  kUnusableWeight = 4,
  kUnusableSum = 5,
  kTooFewWeights = 6,
  // of attention; the places of n offsets are { the offset, n: the last one differs from the number of tokens }, first
  // those of the queries
  kNotCumulative = 7,
  kNotAddingUp = 8,
  kLengthOutOfRange = 9,  // batch entry
};

// What a kernel gets: the word, and the number of its operation.
struct FailureSlot {
  FailureWord* word;
  unsigned serial;
};

}  // namespace gradus::cuda
