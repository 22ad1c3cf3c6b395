// Compares our declarations of cuBLASLt with NVIDIA's header, where that is given:
//   cmake -DCUBLAS_INCLUDE=.../nvidia/cu13/include build && npm run check:cuda
#include <cublasLt.h>

#include <cstddef>

#include "../blas.h"
#include "plain.h"

namespace gradus::cuda {

// What is opaque to us has names of ours.
template <>
struct PlainOf<cublasLtContext> {
  using Type = BlasContext;
};
template <>
struct PlainOf<cublasLtMatmulDescOpaque_t> {
  using Type = BlasDescription;
};
template <>
struct PlainOf<cublasLtMatrixLayoutOpaque_t> {
  using Type = BlasLayout;
};
template <>
struct PlainOf<cublasLtMatmulPreferenceOpaque_t> {
  using Type = BlasPreference;
};
template <>
struct PlainOf<cublasLtMatmulHeuristicResult_t> {
  using Type = BlasHeuristic;
};
template <>
struct PlainOf<const cublasLtMatmulAlgo_t> {
  using Type = const BlasAlgorithm;
};

namespace {

#define GRADUS_COMPARE(name, symbol, result, parameters) \
  static_assert(std::is_same_v<Plain<decltype(::symbol)>*, decltype(Blas::name)>, #symbol " differs");
GRADUS_BLAS_FUNCTIONS(GRADUS_COMPARE)

static_assert(sizeof(BlasAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(BlasHeuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
#define GRADUS_PLACE(ours, theirs) \
  static_assert(offsetof(BlasHeuristic, ours) == offsetof(cublasLtMatmulHeuristicResult_t, theirs))
GRADUS_PLACE(algorithm, algo);
GRADUS_PLACE(workspaceBytes, workspaceSize);
GRADUS_PLACE(state, state);
GRADUS_PLACE(waves, wavesCount);

static_assert(kBlasSuccess == CUBLAS_STATUS_SUCCESS && kBlasNotSupported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(kBlasFloat32 == CUDA_R_32F && kBlasFloat64 == CUDA_R_64F && kBlasFloat16 == CUDA_R_16F &&
              kBlasBFloat16 == CUDA_R_16BF);
static_assert(kBlasInFloat32 == CUBLAS_COMPUTE_32F && kBlasInFloat64 == CUBLAS_COMPUTE_64F);
static_assert(kBlasLayoutBatches == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT &&
              kBlasLayoutBatchStride == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
static_assert(kBlasTransA == CUBLASLT_MATMUL_DESC_TRANSA && kBlasTransB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(CUBLAS_OP_N == 0 && CUBLAS_OP_T == 1);
static_assert(kBlasEpilogue == CUBLASLT_MATMUL_DESC_EPILOGUE && kBlasBias == CUBLASLT_MATMUL_DESC_BIAS_POINTER &&
              kBlasBiasType == CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
static_assert(kBlasAux == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER &&
              kBlasAuxStride == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD);
static_assert(kBlasWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
              kBlasReductions == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
              kBlasReduceInComputeType == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
static_assert(kBlasAlignA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
              kBlasAlignA + 1 == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
              kBlasAlignA + 2 == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
              kBlasAlignA + 3 == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kBlasPlain == CUBLASLT_EPILOGUE_DEFAULT && kBlasWithBias == CUBLASLT_EPILOGUE_BIAS);
static_assert((kBlasGelu | kBlasWithAux) == CUBLASLT_EPILOGUE_GELU_AUX &&
              (kBlasGelu | kBlasWithAux | kBlasWithBias) == CUBLASLT_EPILOGUE_GELU_AUX_BIAS &&
              kBlasGeluGradient == CUBLASLT_EPILOGUE_DGELU);

}  // namespace
}  // namespace gradus::cuda
