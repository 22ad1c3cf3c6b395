// libcublas.so.13: handles, and the two products that gradus asks it for.
#include <memory>
#include <mutex>
#include <set>

#include "gemm.h"

namespace cudasim::cublas {

extern "C" {
#define CUBLAS_API(result, symbol, parameters) CUDASIM_EXPORT result symbol parameters;
#include "api.def"
#undef CUBLAS_API
}

namespace {

constexpr int kVersion = 130101;  // of the wheel that the declarations are compared with

struct Handle {
  int device = 0;
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointerMode = CUBLAS_POINTER_MODE_HOST;
  cublasAtomicsMode_t atomics = CUBLAS_ATOMICS_NOT_ALLOWED;
  void* workspace = nullptr;
  size_t workspaceBytes = 0;
};

std::mutex handlesMutex;
std::set<Handle*>& handles() {
  static auto* const live = new std::set<Handle*>;
  return *live;
}

Handle* find(cublasHandle_t handle) {
  const std::lock_guard lock(handlesMutex);
  const auto found = handles().find(reinterpret_cast<Handle*>(handle));
  return found == handles().end() ? nullptr : *found;
}

template <class Body>
cublasStatus_t with(cublasHandle_t handle, Body body) {
  Handle* found = find(handle);
  return found ? body(*found) : CUBLAS_STATUS_NOT_INITIALIZED;
}

template <class T>
cublasStatus_t get(cublasHandle_t handle, T Handle::*member, T* value) {
  return with(handle, [&](Handle& h) {
    if (!value) return CUBLAS_STATUS_INVALID_VALUE;
    *value = h.*member;
    return CUBLAS_STATUS_SUCCESS;
  });
}

template <class T>
cublasStatus_t set(cublasHandle_t handle, T Handle::*member, T value, bool isValid) {
  return with(handle, [&](Handle& h) {
    if (!isValid) return CUBLAS_STATUS_INVALID_VALUE;
    h.*member = value;
    return CUBLAS_STATUS_SUCCESS;
  });
}

cudaDataType scaleOf(cublasComputeType_t compute) {
  switch (compute) {
    case CUBLAS_COMPUTE_16F:
    case CUBLAS_COMPUTE_16F_PEDANTIC:
      return CUDA_R_16F;
    case CUBLAS_COMPUTE_64F:
    case CUBLAS_COMPUTE_64F_PEDANTIC:
      return CUDA_R_64F;
    default:
      return CUDA_R_32F;
  }
}

uint64_t address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

cublasStatus_t launch(const char* name, cublasHandle_t handle, Gemm gemm, const void* alpha, const void* beta) {
  return with(handle, [&](Handle& h) {
    if (!alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
    if (driver::extension::currentDevice() != h.device) {
      driver::extension::reportFinding(
          "wrong context", std::string(name) + ": the handle belongs to device " + std::to_string(h.device) +
                               ", device " + std::to_string(driver::extension::currentDevice()) + " is current");
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    gemm.scaleType = scaleOf(gemm.compute);
    gemm.tf32 = gemm.a.type == CUDA_R_32F &&
                (gemm.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                 (gemm.compute == CUBLAS_COMPUTE_32F && (h.math & 15) == CUBLAS_TF32_TENSOR_OP_MATH));
    for (const cublasStatus_t status : {checkShapes(gemm), checkTypes(gemm)})
      if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (gemm.d.rows == 0 || gemm.d.cols == 0 || gemm.batches == 0) return CUBLAS_STATUS_SUCCESS;
    if (h.pointerMode == CUBLAS_POINTER_MODE_DEVICE) {
      gemm.alphaAddress = address(alpha);
      gemm.betaAddress = address(beta);
    } else {
      gemm.alpha = hostScalar(alpha, gemm.scaleType);
      gemm.beta = hostScalar(beta, gemm.scaleType);
    }
    return submit(name, h.stream, std::move(gemm));
  });
}

Matrix matrix(const void* data, cudaDataType type, bool transposed, int64_t rows, int64_t cols, int ld,
              int64_t stride) {
  return {address(data), type, transposed ? cols : rows, transposed ? rows : cols, ld, stride};
}

}  // namespace

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  const int device = driver::extension::currentDevice();
  if (device < 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  auto made = std::make_unique<Handle>();
  made->device = device;
  *handle = reinterpret_cast<cublasHandle_t>(made.get());
  const std::lock_guard lock(handlesMutex);
  handles().insert(made.release());
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  Handle* found = find(handle);
  if (!found) return CUBLAS_STATUS_NOT_INITIALIZED;
  const std::lock_guard lock(handlesMutex);
  handles().erase(found);
  delete found;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  if (!version) return CUBLAS_STATUS_INVALID_VALUE;
  *version = kVersion;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusName(cublasStatus_t status) { return statusName(status); }
const char* cublasGetStatusString(cublasStatus_t status) { return statusText(status); }

// A new stream goes back to the library's own workspace.
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return with(handle, [&](Handle& h) {
    h.stream = stream;
    h.workspace = nullptr;
    h.workspaceBytes = 0;
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return get(handle, &Handle::stream, stream);
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  constexpr uint64_t kAlignment = 256;
  return with(handle, [&](Handle& h) {
    if (address(workspace) % kAlignment || (!workspace && bytes)) return CUBLAS_STATUS_INVALID_VALUE;
    h.workspace = workspace;
    h.workspaceBytes = bytes;
    return CUBLAS_STATUS_SUCCESS;
  });
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  const int base = mode & 15;
  return set(handle, &Handle::math, mode, base >= CUBLAS_DEFAULT_MATH && base <= CUBLAS_TF32_TENSOR_OP_MATH);
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) { return get(handle, &Handle::math, mode); }

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return set(handle, &Handle::pointerMode, mode,
             mode == CUBLAS_POINTER_MODE_HOST || mode == CUBLAS_POINTER_MODE_DEVICE);
}

cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
  return get(handle, &Handle::pointerMode, mode);
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t mode) {
  return set(handle, &Handle::atomics, mode, mode == CUBLAS_ATOMICS_ALLOWED || mode == CUBLAS_ATOMICS_NOT_ALLOWED);
}

cublasStatus_t cublasGetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t* mode) {
  return get(handle, &Handle::atomics, mode);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transA, cublasOperation_t transB,
                                          int m, int n, int k, const void* alpha, const void* A, cudaDataType typeA,
                                          int lda, long long int strideA, const void* B, cudaDataType typeB, int ldb,
                                          long long int strideB, const void* beta, void* C, cudaDataType typeC, int ldc,
                                          long long int strideC, int batchCount, cublasComputeType_t computeType,
                                          cublasGemmAlgo_t) {
  if (transA > CUBLAS_OP_C || transB > CUBLAS_OP_C) return CUBLAS_STATUS_INVALID_VALUE;
  Gemm gemm;
  gemm.transA = transA != CUBLAS_OP_N;  // real numbers: the conjugate is the number
  gemm.transB = transB != CUBLAS_OP_N;
  gemm.a = matrix(A, typeA, gemm.transA, m, k, lda, strideA);
  gemm.b = matrix(B, typeB, gemm.transB, k, n, ldb, strideB);
  gemm.c = gemm.d = matrix(C, typeC, false, m, n, ldc, strideC);
  gemm.batches = batchCount;
  gemm.compute = computeType;
  return launch("cublasGemmStridedBatchedEx", handle, std::move(gemm), alpha, beta);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transA, cublasOperation_t transB, int m, int n,
                            int k, const void* alpha, const void* A, cudaDataType typeA, int lda, const void* B,
                            cudaDataType typeB, int ldb, const void* beta, void* C, cudaDataType typeC, int ldc,
                            cublasComputeType_t computeType, cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx(handle, transA, transB, m, n, k, alpha, A, typeA, lda, 0, B, typeB, ldb, 0, beta, C,
                                    typeC, ldc, 0, 1, computeType, algo);
}

}  // namespace cudasim::cublas
