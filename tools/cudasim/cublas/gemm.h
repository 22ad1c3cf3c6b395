// The product itself, in simulated memory: D = epilogue(alpha op(A) op(B) + beta C), column by column as BLAS has it.
#pragma once

#include <string>
#include <vector>

#include "../driver/extension.h"
#include "types.h"

namespace cudasim::cublas {

struct Matrix {
  uint64_t address = 0;
  cudaDataType type = CUDA_R_32F;
  int64_t rows = 0, cols = 0, ld = 0;
  int64_t stride = 0;  // elements between the matrices of a batch
};

struct Gemm {
  Matrix a, b, c, d;  // as they lie in memory, before op
  bool transA = false, transB = false;
  int64_t batches = 1;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  bool tf32 = false;  // inputs are rounded as tensor cores do
  // Numbers of the scale type: given, or read from the device when the product runs.
  double alpha = 1, beta = 0;
  uint64_t alphaAddress = 0, betaAddress = 0;
  cudaDataType scaleType = CUDA_R_32F;

  int epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  uint64_t bias = 0, aux = 0;
  cudaDataType biasType = CUDA_R_32F;
  int64_t biasStride = 0, auxLd = 0, auxStride = 0;
};

// The types that go together; CUBLAS_STATUS_NOT_SUPPORTED for others.
cublasStatus_t checkTypes(const Gemm& gemm);
// Sizes and leading dimensions.
cublasStatus_t checkShapes(const Gemm& gemm);
double hostScalar(const void* value, cudaDataType type);
void run(driver::Task& task, const Gemm& gemm);

const char* statusName(cublasStatus_t status);
const char* statusText(cublasStatus_t status);
// Queues the product; a launch that the driver refuses is CUBLAS_STATUS_EXECUTION_FAILED.
cublasStatus_t submit(const char* name, cudaStream_t stream, Gemm gemm);

}  // namespace cudasim::cublas
