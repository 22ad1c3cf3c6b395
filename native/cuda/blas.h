// Our own declarations of cuBLASLt: what gradus uses of it, looked up at run time. The library is optional; without it
// products are our own kernels' (gemm.cc). `npm run check:cuda` compares the declarations with NVIDIA's header where
// that is given (check/blas_abi.cc).
#pragma once

#include <cstdint>

#include "driver.h"

namespace gradus::cuda {

using BlasStatus = int;
// Opaque to us, as they are to every caller.
struct BlasContext;
struct BlasDescription;
struct BlasLayout;
struct BlasPreference;
struct BlasAlgorithm {
  uint64_t data[8];
};
struct BlasHeuristic {
  BlasAlgorithm algorithm;
  size_t workspaceBytes;
  BlasStatus state;
  float waves;
  int reserved[4];
};

constexpr BlasStatus kBlasSuccess = 0, kBlasNotSupported = 15;
constexpr int kBlasFloat32 = 0, kBlasFloat64 = 1, kBlasFloat16 = 2, kBlasBFloat16 = 14;    // cudaDataType
constexpr int kBlasInFloat32 = 68, kBlasInFloat64 = 70;                                    // how it is computed
constexpr int kBlasLayoutBatches = 5, kBlasLayoutBatchStride = 6;                          // of a layout
constexpr int kBlasTransA = 3, kBlasTransB = 4, kBlasEpilogue = 7, kBlasBias = 8;          // of a description
constexpr int kBlasAux = 11, kBlasAuxStride = 12, kBlasBiasType = 26;                      //
constexpr int kBlasWorkspaceBytes = 1, kBlasReductions = 3, kBlasAlignA = 5;               // of a preference
constexpr uint32_t kBlasReduceInComputeType = 2;                                           // sums of ranges
constexpr uint32_t kBlasPlain = 1, kBlasWithBias = 4, kBlasGelu = 32, kBlasWithAux = 128;  // epilogues
constexpr uint32_t kBlasGeluGradient = 64 | 128;

// X(name here, symbol, result, parameters)
#define GRADUS_BLAS_FUNCTIONS(X)                                                                                  \
  X(getVersion, cublasLtGetVersion, size_t, ())                                                                   \
  X(getStatusName, cublasLtGetStatusName, const char*, (BlasStatus status))                                       \
  X(create, cublasLtCreate, BlasStatus, (BlasContext * *context))                                                 \
  X(layoutCreate, cublasLtMatrixLayoutCreate, BlasStatus,                                                         \
    (BlasLayout * *layout, int type, uint64_t rows, uint64_t columns, int64_t stride))                            \
  X(layoutDestroy, cublasLtMatrixLayoutDestroy, BlasStatus, (BlasLayout * layout))                                \
  X(layoutSet, cublasLtMatrixLayoutSetAttribute, BlasStatus,                                                      \
    (BlasLayout * layout, int attribute, const void* value, size_t bytes))                                        \
  X(describe, cublasLtMatmulDescCreate, BlasStatus, (BlasDescription * *description, int compute, int scaleType)) \
  X(descriptionDestroy, cublasLtMatmulDescDestroy, BlasStatus, (BlasDescription * description))                   \
  X(descriptionSet, cublasLtMatmulDescSetAttribute, BlasStatus,                                                   \
    (BlasDescription * description, int attribute, const void* value, size_t bytes))                              \
  X(preferenceCreate, cublasLtMatmulPreferenceCreate, BlasStatus, (BlasPreference * *preference))                 \
  X(preferenceDestroy, cublasLtMatmulPreferenceDestroy, BlasStatus, (BlasPreference * preference))                \
  X(preferenceSet, cublasLtMatmulPreferenceSetAttribute, BlasStatus,                                              \
    (BlasPreference * preference, int attribute, const void* value, size_t bytes))                                \
  X(heuristic, cublasLtMatmulAlgoGetHeuristic, BlasStatus,                                                        \
    (BlasContext * context, BlasDescription * description, BlasLayout * a, BlasLayout * b, BlasLayout * c,        \
     BlasLayout * d, BlasPreference * preference, int wanted, BlasHeuristic* results, int* found))                \
  X(matmul, cublasLtMatmul, BlasStatus,                                                                           \
    (BlasContext * context, BlasDescription * description, const void* alpha, const void* a, BlasLayout* aLayout, \
     const void* b, BlasLayout* bLayout, const void* beta, const void* c, BlasLayout* cLayout, void* d,           \
     BlasLayout* dLayout, const BlasAlgorithm* algorithm, void* workspace, size_t workspaceBytes, CudaStream stream))

struct Blas {
#define GRADUS_BLAS_MEMBER(name, symbol, result, parameters) result(*name) parameters = nullptr;
  GRADUS_BLAS_FUNCTIONS(GRADUS_BLAS_MEMBER)
#undef GRADUS_BLAS_MEMBER
};

// The library, loaded once a process; null where there is none, or GRADUS_CUBLASLT=0 turns it off (another value is the
// file to load). Throws Error(kDevice), each time, where one is found that lacks a function.
const Blas* blas();
// What `gradus doctor` says of it; never throws.
std::string describeBlas();

[[noreturn]] void failBlas(BlasStatus status, const char* call);
inline void checkBlas(BlasStatus status, const char* call) {
  if (__builtin_expect(status != kBlasSuccess, 0)) failBlas(status, call);
}

}  // namespace gradus::cuda
