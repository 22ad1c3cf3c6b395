// C = (alpha A B + bias) * activation'(x) + beta C of matrices in device memory, any strides, any floating dtype, for
// every entry of a batch. A twin of native/cpu/gemm.h; what differs: batches are part of a product, because a grid
// holds all of them, and activations of operands and sums of rows are kernels of their own.
#pragma once

#include "../core/op.h"
#include "kernels/gemm.h"

namespace gradus::cuda {

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf };

struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rowStride = 0, colStride = 0;
  int64_t batch[kGemmBatchRank] = {};  // strides; 0 where the operand is broadcast
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  int rank = 0;  // of the batch
  int64_t sizes[kGemmBatchRank] = {};
  // Sums are float32 for operands of up to 32 bits. Where one of A, B and C has 16, both operands are rounded to it.
  GemmOperand a, b;
  void* c = nullptr;
  DType cDType = DType::kFloat32;
  int64_t cRowStride = 0, cColStride = 0, cBatch[kGemmBatchRank] = {};
  double alpha = 1, beta = 0;
  const double* factor = nullptr;  // in device memory: alpha is multiplied by it
  const void* bias = nullptr;      // [n], added to every row
  DType biasDType = DType::kFloat32;
  // Rows of the next two are contiguous; neither comes with a batch.
  const void* gradientAt = nullptr;  // C = (A B) * activation'(x): the gradient of an activation's input
  int64_t gradientRowStride = 0;
  DType gradientDType = DType::kFloat32;
  Activation activation = Activation::kNone;
  void* activated = nullptr;  // activation(x), or without gradientAt activation(C); dtype of C; null: not wanted
  int64_t activatedRowStride = 0;
  GemmLive live;
};

void gemm(const Gemm& g, const OpCall& call);

// A matrix as an operand of a product.
struct Columns {
  const void* data;
  DType dtype;
  int64_t rows, cols, rowStride, colStride;
};

// to [cols] = the sums of x over its rows, added to what is there when `accumulate`; in a fixed order.
void columnSums(const Columns& x, const TensorView& to, bool accumulate, const OpCall& call);

}  // namespace gradus::cuda
