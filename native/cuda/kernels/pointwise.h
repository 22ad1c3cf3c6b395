// Arguments of the pointwise kernels, shared by host and device.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

constexpr int kPointwiseOperands = 4;  // 0: the output
constexpr int kPointwiseRank = 8;
constexpr int kIdentity = -1;

// Division by a size that does not change, as a multiplication: n / size = (high(n * multiplier) + n) >> shift for
// every n below 2^31 (Granlund & Montgomery 1994, figure 4.1).
struct Divider {
  unsigned size, multiplier, shift;
};

// A value in the type that is computed in.
union PointwiseNumber {
  float f32;
  double f64;
  long long i64;
};

constexpr int kPointwiseBytes = 16;  // of a unit's elements, in the type that is computed in

// Any strides and dtypes. Fewer than 2^31 elements: the host cuts larger ones.
struct PointwiseStrided {
  struct Operand {
    char* data;  // null: a number
    PointwiseNumber number;
    int dtype;
    long long strides[kPointwiseRank];  // in bytes
  };
  unsigned count;  // units
  int rank;
  int op;                         // Unary or Binary; kIdentity: the operand itself
  Divider sizes[kPointwiseRank];  // outermost first
  Operand operands[kPointwiseOperands];
  PointwiseNumber p, q;
  FailureSlot failure;  // word null: the operator cannot fail
  int inPlace;          // the output is an operand, too: after a failure it stays as it was
  // Elements of a unit, neighbours in the innermost dim: 1; or those of kPointwiseBytes, where that dim is contiguous
  // or broadcasts in every operand, and units begin on 16 bytes or on a boundary of their length. The dim's size is
  // then one in units, and so are strides; `inner` are its elements, of which the last unit may have fewer.
  int lanes;
  unsigned inner;
};

// Operands that lie like the output, in one dtype, and numbers.
struct PointwiseDense {
  unsigned long long count;
  void* out;
  const void* in[3];  // null: a number
  float numbers[3];
  float p, q;
};

constexpr int kCopyUnit = 8;  // elements of a thread: 128 bits of every dtype that training moves much of

// Rows of elements that are contiguous on both sides, and of which every unit lies on a boundary of 16 bytes, or of its
// length where that is less. Fewer than 2^31 units.
struct PointwiseCopy {
  const char* in;
  char* out;
  int inDType, outDType;
  unsigned long long inner;  // elements of a row
  unsigned count;            // units of all rows
  Divider units;             // of a row
  int rank;                  // of what lies around the rows
  Divider sizes[kPointwiseRank - 1];
  long long inStrides[kPointwiseRank - 1], outStrides[kPointwiseRank - 1];  // in bytes
};

// Every byte becomes that of `pattern` at its address modulo 8.
struct PointwiseFill {
  char* out;
  unsigned long long bytes, pattern;
};

// The formulas that have kernels for dense operands: those of a training step.
#define GRADUS_DENSE_UNARY(X) \
  X(neg)                      \
  X(abs)                      \
  X(exp)                      \
  X(log) X(sqrt) X(rsqrt) X(tanh) X(sigmoid) X(square) X(reciprocal) X(relu) X(silu) X(geluErf) X(geluTanh) X(clamp)
#define GRADUS_DENSE_BINARY(X) \
  X(add)                       \
  X(mul)                       \
  X(div)                       \
  X(maximum)                   \
  X(minimum)                   \
  X(tanhBackward)              \
  X(sigmoidBackward) X(reluBackward) X(siluBackward) X(geluErfBackward) X(geluTanhBackward) X(clampBackward)
#define GRADUS_DENSE_TRUTH(X) X(eq) X(ne) X(lt) X(le) X(gt) X(ge)
#define GRADUS_DENSE_TERNARY(X) X(addcmul)

}  // namespace gradus::cuda
