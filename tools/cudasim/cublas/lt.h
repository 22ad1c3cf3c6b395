// What lies in cuBLASLt's opaque structures. They are plain memory of the caller, who may copy them.
#pragma once

#include "gemm.h"

namespace cudasim::cublas {

struct Layout {
  cudaDataType type = CUDA_R_32F;
  cublasLtOrder_t order = CUBLASLT_ORDER_COL;
  uint64_t rows = 0, cols = 0;
  int64_t ld = 0;
  int32_t batches = 1;
  int32_t unused = 0;
  int64_t stride = 0;
};
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));

struct Description {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scaleType = CUDA_R_32F;
  int32_t pointerMode = CUBLAS_POINTER_MODE_HOST;
  int32_t transA = CUBLAS_OP_N, transB = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  uint64_t bias = 0, aux = 0;
  int64_t biasStride = 0, auxLd = 0, auxStride = 0;
  int32_t biasType = -1, auxType = -1;  // -1: the type of D
};
static_assert(sizeof(Description) <= sizeof(cublasLtMatmulDescOpaque_t));

struct Preference {
  uint32_t searchMode = 0, reductionMask = 7;
  uint64_t maxWorkspace = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D: what the caller promises
  float maxWaves = 0;
};
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));

// What a heuristic decided for: the promises that it relies on.
struct Algorithm {
  uint32_t mark;
  uint32_t alignment[4];
  uint32_t biasAlignment, auxAlignment;  // of the pointers that the description had then
  uint32_t epilogue;
  uint64_t workspace;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));
constexpr uint32_t kAlgorithmMark = 0x67726164;

template <class T, class Opaque>
T& inside(Opaque* opaque) {
  return *reinterpret_cast<T*>(opaque->data);
}

}  // namespace cudasim::cublas
