// libcublasLt.so.13: heuristics and products. An algorithm holds the caller to what he promised when he asked for it:
// alignments and workspace.
#include <algorithm>
#include <cstring>

#include "lt.h"

namespace cudasim::cublas {

extern "C" {
#define CUBLAS_API(result, symbol, parameters) CUDASIM_EXPORT result symbol parameters;
#include "lt_api.def"
#undef CUBLAS_API
}

namespace {

// Split-k buffers and the like: a workspace of some size, so that callers must bring one.
constexpr uint64_t kWorkspace = 1 << 20;
// No kernel relies on more than its widest load.
constexpr uint32_t kVector = 16;
// Some kernels count the batch by a grid's third dim.
constexpr int64_t kMostBatches = 65535;

// What a kernel may take an address for: null says nothing.
uint32_t alignmentOf(uint64_t address) {
  return address == 0 ? kVector : static_cast<uint32_t>(std::min<uint64_t>(kVector, address & -address));
}

bool isKnown(uint32_t epilogue) {
  switch (epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
      return true;
  }
  return false;
}

bool needsBias(uint32_t epilogue) {
  constexpr uint32_t kBiasOrGradient = 4 | 16 | 256 | 512;
  return epilogue & kBiasOrGradient;
}

bool needsAux(uint32_t epilogue) { return epilogue & 128; }

Matrix matrixOf(const Layout& l) {
  return {0, l.type, static_cast<int64_t>(l.rows), static_cast<int64_t>(l.cols), l.ld, l.stride};
}

cublasStatus_t makeGemm(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                        cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, Gemm& gemm) {
  if (!desc || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
  const Description& how = inside<Description>(desc);
  const Layout* layouts[4] = {&inside<Layout>(a), &inside<Layout>(b), &inside<Layout>(c), &inside<Layout>(d)};
  for (const Layout* layout : layouts) {
    if (layout->order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (layout->batches != layouts[3]->batches) return CUBLAS_STATUS_INVALID_VALUE;
  }
  gemm.a = matrixOf(*layouts[0]);
  gemm.b = matrixOf(*layouts[1]);
  gemm.c = matrixOf(*layouts[2]);
  gemm.d = matrixOf(*layouts[3]);
  gemm.transA = how.transA != CUBLAS_OP_N;
  gemm.transB = how.transB != CUBLAS_OP_N;
  gemm.batches = layouts[3]->batches;
  gemm.compute = how.compute;
  gemm.scaleType = how.scaleType;
  gemm.tf32 = how.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  gemm.epilogue = static_cast<int>(how.epilogue);
  gemm.bias = how.bias;
  gemm.biasType = how.biasType < 0 ? gemm.d.type : static_cast<cudaDataType>(how.biasType);
  gemm.biasStride = how.biasStride;
  gemm.aux = how.aux;
  gemm.auxLd = how.auxLd;
  gemm.auxStride = how.auxStride;
  if (const cublasStatus_t status = checkShapes(gemm); status != CUBLAS_STATUS_SUCCESS) return status;
  if (!isKnown(how.epilogue) || gemm.batches > kMostBatches) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (how.auxType >= 0 && how.auxType != gemm.d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (needsBias(how.epilogue) && gemm.biasType != gemm.d.type && gemm.biasType != gemm.a.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  constexpr int64_t kAuxUnit = 8;  // elements
  if (needsAux(how.epilogue) && (gemm.auxLd % kAuxUnit || gemm.auxLd < gemm.d.rows)) return CUBLAS_STATUS_NOT_SUPPORTED;
  return checkTypes(gemm);
}

cublasStatus_t misuse(const char* kind, const std::string& text) {
  driver::extension::reportFinding(kind, "cublasLtMatmul: " + text);
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t checkPromises(const Gemm& gemm, const Algorithm& algorithm, const void* workspace, size_t bytes) {
  if (algorithm.mark != kAlgorithmMark) return misuse("library call", "the algorithm does not come from a heuristic");
  if (algorithm.epilogue != static_cast<uint32_t>(gemm.epilogue))
    return misuse("library call", "the algorithm was asked for with another epilogue");
  const struct {
    const char* name;
    uint64_t address;
  } matrices[4] = {{"A", gemm.a.address}, {"B", gemm.b.address}, {"C", gemm.c.address}, {"D", gemm.d.address}};
  for (int i = 0; i < 4; ++i) {
    if (i == 2 && gemm.beta == 0 && !gemm.betaAddress) continue;  // never read
    if (matrices[i].address % algorithm.alignment[i])
      return misuse("misaligned", std::string(matrices[i].name) + " is not aligned to the " +
                                      std::to_string(algorithm.alignment[i]) +
                                      " bytes that the preference promised to the heuristic");
  }
  const auto isLess = [](uint64_t address, uint32_t promised) { return address % promised != 0; };
  if (needsBias(gemm.epilogue) && isLess(gemm.bias, algorithm.biasAlignment))
    return misuse("misaligned", "the bias is not aligned as the one was that the heuristic saw");
  if (needsAux(gemm.epilogue) && isLess(gemm.aux, algorithm.auxAlignment))
    return misuse("misaligned", "the auxiliary matrix is not aligned as the one was that the heuristic saw");
  if (bytes < algorithm.workspace)
    return misuse("library call", "the algorithm needs a workspace of " + std::to_string(algorithm.workspace) +
                                      " bytes, got " + std::to_string(bytes));
  constexpr uint64_t kWorkspaceAlignment = 256;
  if (algorithm.workspace && reinterpret_cast<uint64_t>(workspace) % kWorkspaceAlignment)
    return misuse("misaligned", "the workspace is not aligned to 256 bytes");
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t checkEpiloguePointers(const Gemm& gemm) {
  if (needsBias(gemm.epilogue)) {
    if (gemm.bias == 0) return misuse("library call", "the epilogue needs a bias pointer");
    if (gemm.bias % bytesOf(gemm.biasType)) return misuse("misaligned", "the bias is not aligned to its elements");
  }
  if (needsAux(gemm.epilogue)) {
    if (gemm.aux == 0) return misuse("library call", "the epilogue needs an auxiliary matrix");
    if (gemm.aux % kVector) return misuse("misaligned", "the auxiliary matrix is not aligned to 16 bytes");
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t layoutA, cublasLtMatrixLayout_t layoutB,
                                              cublasLtMatrixLayout_t layoutC, cublasLtMatrixLayout_t layoutD,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!preference || !results || !found || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  *found = 0;
  Gemm gemm;
  if (const cublasStatus_t status = makeGemm(desc, layoutA, layoutB, layoutC, layoutD, gemm);
      status != CUBLAS_STATUS_SUCCESS)
    return status;
  const Preference& promised = inside<Preference>(preference);
  Algorithm algorithm{.mark = kAlgorithmMark,
                      .alignment = {},
                      .biasAlignment = alignmentOf(gemm.bias),
                      .auxAlignment = alignmentOf(gemm.aux),
                      .epilogue = static_cast<uint32_t>(gemm.epilogue),
                      .workspace = std::min(promised.maxWorkspace, kWorkspace)};
  std::copy(std::begin(promised.alignment), std::end(promised.alignment), algorithm.alignment);
  const Matrix* matrices[4] = {&gemm.a, &gemm.b, &gemm.c, &gemm.d};
  for (int i = 0; i < 4; ++i) {
    if (algorithm.alignment[i] < bytesOf(matrices[i]->type)) return CUBLAS_STATUS_NOT_SUPPORTED;
    algorithm.alignment[i] = std::min(algorithm.alignment[i], kVector);
  }
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = algorithm.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* A,
                              cublasLtMatrixLayout_t layoutA, const void* B, cublasLtMatrixLayout_t layoutB,
                              const void* beta, const void* C, cublasLtMatrixLayout_t layoutC, void* D,
                              cublasLtMatrixLayout_t layoutD, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspaceBytes, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
  Gemm gemm;
  if (const cublasStatus_t status = makeGemm(desc, layoutA, layoutB, layoutC, layoutD, gemm);
      status != CUBLAS_STATUS_SUCCESS)
    return status;
  gemm.a.address = reinterpret_cast<uint64_t>(A);
  gemm.b.address = reinterpret_cast<uint64_t>(B);
  gemm.c.address = reinterpret_cast<uint64_t>(C);
  gemm.d.address = reinterpret_cast<uint64_t>(D);
  if (inside<Description>(desc).pointerMode == CUBLAS_POINTER_MODE_HOST) {
    gemm.alpha = hostScalar(alpha, gemm.scaleType);
    gemm.beta = hostScalar(beta, gemm.scaleType);
  } else if (inside<Description>(desc).pointerMode == CUBLAS_POINTER_MODE_DEVICE) {
    gemm.alphaAddress = reinterpret_cast<uint64_t>(alpha);
    gemm.betaAddress = reinterpret_cast<uint64_t>(beta);
  } else {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (algo) {  // else the library asks its own heuristic, which looks at the pointers
    Algorithm algorithm;
    std::memcpy(&algorithm, algo, sizeof algorithm);
    if (const cublasStatus_t status = checkPromises(gemm, algorithm, workspace, workspaceBytes);
        status != CUBLAS_STATUS_SUCCESS)
      return status;
  }
  if (const cublasStatus_t status = checkEpiloguePointers(gemm); status != CUBLAS_STATUS_SUCCESS) return status;
  if (gemm.d.rows == 0 || gemm.d.cols == 0 || gemm.batches == 0) return CUBLAS_STATUS_SUCCESS;
  return submit("cublasLtMatmul", stream, std::move(gemm));
}

}  // namespace cudasim::cublas
