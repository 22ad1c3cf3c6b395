// Arguments of the matrix products, shared by host and device.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

constexpr int kGemmBatchRank = 6;

// An operand of which one dim is contiguous; which one, the kernel's name says.
struct GemmMatrix {
  const void* data;
  long long stride;  // of the other dim, in elements
  long long batch[kGemmBatchRank];
  int vectors;  // whether every row begins on 16 bytes
};

// How many rows of a product exist is only known on the device: *count - first of them, at least 0 and at most as many
// as the arguments say. They are rows of C, whose tiles beyond the end stay as they are, or (`inSum`) what is summed
// over.
struct GemmLive {
  const int* count = nullptr;  // null: all
  int first = 0;
  bool inSum = false;
};

// C = (alpha factor A B + bias) * activation'(x) + beta C
struct GemmArguments {
  int m, n, k;
  int rank, sizes[kGemmBatchRank];  // of the batch, outermost first
  GemmMatrix a, b;
  void* c;
  long long cRow, cCol, cBatch[kGemmBatchRank];
  int cDType;
  double alpha, beta;
  const double* factor;  // on the device, of alpha; null: 1
  const void* bias;      // [n], or null
  int biasDType;
  int activation;          // 0: none, 1: gelu by tanh, 2: gelu by erf
  const void* gradientAt;  // x of activation'(x), or null; its columns are contiguous
  long long gradientRow;
  int gradientDType;
  void* activated;  // activation(x), without gradientAt activation(C), of C's dtype; or null
  long long activatedRow;
  const FailureWord* failure;  // null: C is not read
  // Whether rows of C, and of what comes with it, are contiguous and begin on 16 bytes.
  int wide;
  // The sum's dim is cut into ranges of depthOfSplit, a block each, whose sums go to C + split * splitStride as they
  // are; gradus_gemm_join_* puts them together and has the arguments that stand for the product itself.
  int splits, depthOfSplit;
  long long splitStride;
  GemmLive live;
};

// Products on tensor cores: threads of a block, of the sum's dim in a step, and steps in shared memory; its bytes.
constexpr int kGemmMmaThreads = 128, kGemmMmaDepth = 32, kGemmMmaStages = 3;
constexpr int gemmMmaBytes(int rows, int cols) { return 2 * kGemmMmaStages * kGemmMmaDepth * (rows + cols); }

// The second step of a product that was cut: sums [splits][batch][m][n] in the compute type.
struct GemmJoin {
  GemmArguments product;
  const void* sums;
  long long groups;  // of neighbouring columns, of all rows and batch entries
};

struct GemmIntegers {
  int m, n, k;
  int rank, sizes[kGemmBatchRank];
  const void *a, *b;
  void* c;
  long long aRow, aCol, bRow, bCol, cRow, cCol;
  long long aBatch[kGemmBatchRank], bBatch[kGemmBatchRank], cBatch[kGemmBatchRank];
  unsigned long long count;  // of results
};

// Sums of the columns of a matrix of any strides. Very long ones take two steps: ranges of rows first, then those.
struct ColumnSums {
  const void* from;  // second step: the sums of the ranges, [ranges, columns]
  long long row, col;
  int dtype;
  int columns;
  int packed;  // columns are contiguous, and rows begin on 16 bytes and have whole neighbours
  long long rows, rowsOfRange;
  void* to;  // first step: [ranges, columns]
  int toDType;
  long long toStride;
  int accumulate;
  const FailureWord* failure;
};

}  // namespace gradus::cuda
