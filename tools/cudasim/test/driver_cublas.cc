// cuBLAS and cuBLASLt against products in double precision.
#include <algorithm>
#include <cmath>

#include "../cublas/types.h"
#include "driver_library.h"

namespace cudasim::test {

using namespace cublas;

namespace {

struct Blas {
#define CUBLAS_API(result, symbol, parameters) result(*symbol) parameters = nullptr;
#include "../cublas/api.def"
#include "../cublas/lt_api.def"
#undef CUBLAS_API
  cublasHandle_t handle = nullptr;
  cublasLtHandle_t lt = nullptr;

  explicit Blas(Cuda& cu) {
    void *blas = loadBeside(cu, "libcublas.so.13"), *light = loadBeside(cu, "libcublasLt.so.13");
#define CUBLAS_API(result, symbol, parameters) symbol = reinterpret_cast<result(*) parameters>(dlsym(library, #symbol));
    {
      void* library = blas;
#include "../cublas/api.def"
    }
    {
      void* library = light;
#include "../cublas/lt_api.def"
    }
#undef CUBLAS_API
    EXPECT_OK(cublasCreate_v2(&handle));
    EXPECT_OK(cublasLtCreate(&lt));
  }
};

// Small integers and halves: exact in every type that is tested, so products have one right answer.
std::vector<float> numbers(size_t count, int seed) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(static_cast<int>((i * 7 + seed * 3) % 11) - 5) * 0.5f;
  return values;
}

std::vector<uint16_t> asBfloat16(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float value : values) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    bits.push_back(static_cast<uint16_t>(word >> 16));
  }
  return bits;
}

// op(A) op(B), column-major, A stored m x k (or k x m) without gaps.
std::vector<double> product(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k, bool transA,
                            bool transB) {
  std::vector<double> c(m * n, 0);
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i)
      for (int p = 0; p < k; ++p)
        c[j * m + i] += double{transA ? a[i * k + p] : a[p * m + i]} * double{transB ? b[p * n + j] : b[j * k + p]};
  return c;
}

void expectClose(const std::vector<float>& got, const std::vector<double>& want, double tolerance, int line) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
  if (worst > tolerance) failure(__FILE__, line, "off by " + std::to_string(worst));
}

struct LtProblem {  // D = epilogue(A B), 8 x 6 x 5, float32
  static constexpr int m = 8, n = 6, k = 5;
  std::vector<float> a = numbers(m * k, 1), b = numbers(k * n, 2);
  CUdeviceptr devA, devB, devD;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t layoutA = nullptr, layoutB = nullptr, layoutD = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  float alpha = 1, beta = 0;
  Blas& blas;

  LtProblem(Cuda& cu, Blas& blas) : blas(blas) {
    devA = upload(cu, a);
    devB = upload(cu, b);
    devD = cu.device(m * n * 4);
    EXPECT_OK(blas.cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    EXPECT_OK(blas.cublasLtMatrixLayoutCreate(&layoutA, CUDA_R_32F, m, k, m));
    EXPECT_OK(blas.cublasLtMatrixLayoutCreate(&layoutB, CUDA_R_32F, k, n, k));
    EXPECT_OK(blas.cublasLtMatrixLayoutCreate(&layoutD, CUDA_R_32F, m, n, m));
    EXPECT_OK(blas.cublasLtMatmulPreferenceCreate(&preference));
  }
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    EXPECT_OK(blas.cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value));
  }
  void epilogue(uint32_t value) { set(CUBLASLT_MATMUL_DESC_EPILOGUE, value); }
  cublasStatus_t heuristic() {
    return blas.cublasLtMatmulAlgoGetHeuristic(blas.lt, desc, layoutA, layoutB, layoutD, layoutD, preference, 1,
                                               &result, &found);
  }
  cublasStatus_t run(CUdeviceptr atA, const cublasLtMatmulAlgo_t* algo, size_t workspaceBytes = 0,
                     CUdeviceptr workspace = 0) {
    return blas.cublasLtMatmul(blas.lt, desc, &alpha, pointer(atA), layoutA, pointer(devB), layoutB, &beta,
                               pointer(devD), layoutD, pointer(devD), layoutD, algo, pointer(workspace), workspaceBytes,
                               nullptr);
  }
};

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double geluDerivative(double x) { return (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5; }

}  // namespace

DRIVER_TEST("cublas: float32 products with every transposition, alpha and beta", "") {
  Blas blas(cu);
  const int m = 7, n = 5, k = 9;
  const std::vector<float> a = numbers(m * k, 1), b = numbers(k * n, 2), c = numbers(m * n, 3);
  const float alpha = 2, beta = -1;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const CUdeviceptr A = upload(cu, a), B = upload(cu, b), C = upload(cu, c);
      EXPECT_OK(blas.cublasGemmEx(blas.handle, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, m, n, k,
                                  &alpha, pointer(A), CUDA_R_32F, ta ? k : m, pointer(B), CUDA_R_32F, tb ? n : k, &beta,
                                  pointer(C), CUDA_R_32F, m, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
      std::vector<double> want = product(a, b, m, n, k, ta, tb);
      for (size_t i = 0; i < want.size(); ++i) want[i] = 2 * want[i] - c[i];
      expectClose(download<float>(cu, C, m * n), want, 0, __LINE__);
    }
  EXPECT_CLEAN();
}

DRIVER_TEST("cublas: bfloat16 batches with strides, and scalars on the device", "") {
  Blas blas(cu);
  const int m = 4, n = 3, k = 6, batches = 3;
  const std::vector<float> a = numbers(m * k * batches, 1), b = numbers(k * n, 2);
  const CUdeviceptr A = upload(cu, asBfloat16(a)), B = upload(cu, asBfloat16(b)), C = cu.device(m * n * batches * 4);
  const CUdeviceptr scalars = upload(cu, std::vector<float>{0.5f, 0});
  EXPECT_OK(blas.cublasSetPointerMode_v2(blas.handle, CUBLAS_POINTER_MODE_DEVICE));
  EXPECT_OK(blas.cublasGemmStridedBatchedEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, pointer(scalars),
                                            pointer(A), CUDA_R_16BF, m, m * k, pointer(B), CUDA_R_16BF, k, 0,
                                            pointer(scalars + 4), pointer(C), CUDA_R_32F, m, m * n, batches,
                                            CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  const std::vector<float> got = download<float>(cu, C, m * n * batches);
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<double> want = product({a.begin() + batch * m * k, a.end()}, b, m, n, k, false, false);
    for (double& value : want) value *= 0.5;
    expectClose({got.begin() + batch * m * n, got.end()}, want, 0, __LINE__);
  }
}

DRIVER_TEST("cublas: tf32 rounds its inputs, and only when it is asked for", "") {
  Blas blas(cu);
  const float fine = 1 + 0x1p-12f, one = 1, zero = 0;  // the last bit is one that tf32 does not keep
  const CUdeviceptr A = upload(cu, std::vector<float>{fine}), B = upload(cu, std::vector<float>{1}), C = cu.device(4);
  const auto run = [&] {
    EXPECT_OK(blas.cublasGemmEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, pointer(A), CUDA_R_32F, 1,
                                pointer(B), CUDA_R_32F, 1, &zero, pointer(C), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F,
                                CUBLAS_GEMM_DEFAULT));
    return download<float>(cu, C, 1)[0];
  };
  EXPECT_EQ(run(), fine);
  EXPECT_OK(blas.cublasSetMathMode(blas.handle, CUBLAS_TF32_TENSOR_OP_MATH));
  EXPECT_EQ(run(), 1.0f);
}

DRIVER_TEST("cublas: bad sizes, types and handles are refused", "") {
  Blas blas(cu);
  const float one = 1;
  const CUdeviceptr A = upload(cu, numbers(16, 1));
  const auto run = [&](int lda, cudaDataType typeC, cublasHandle_t handle) {
    return blas.cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 2, 2, &one, pointer(A), CUDA_R_32F, lda, pointer(A),
                             CUDA_R_32F, 2, &one, pointer(A), typeC, 4, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_STATUS(run(3, CUDA_R_32F, blas.handle), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_STATUS(run(4, CUDA_R_16F, blas.handle), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_STATUS(run(4, CUDA_R_32F, nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(std::string(blas.cublasGetStatusName(CUBLAS_STATUS_NOT_SUPPORTED)), "CUBLAS_STATUS_NOT_SUPPORTED");
}

DRIVER_TEST("cublas: a product is queued, and reads what is there when it runs", "") {
  Blas blas(cu);
  CUstream stream = cu.stream();
  EXPECT_OK(blas.cublasSetStream_v2(blas.handle, stream));
  const float one = 1, zero = 0;
  const CUdeviceptr A = cu.device(4), B = cu.device(4), C = cu.device(4);
  uint32_t* host = cu.pinned(1);
  EXPECT_OK(cu.cuMemsetD32Async(A, 0x40000000, 1, stream));  // 2.0f
  EXPECT_OK(cu.cuMemsetD32Async(B, 0x40400000, 1, stream));  // 3.0f
  EXPECT_OK(blas.cublasGemmEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, pointer(A), CUDA_R_32F, 1,
                              pointer(B), CUDA_R_32F, 1, &zero, pointer(C), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT));
  EXPECT_OK(cu.cuMemcpyDtoHAsync_v2(host, C, 4, stream));
  EXPECT_EQ(*host, 0u);
  EXPECT_OK(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(*host, 0x40c00000u);  // 6.0f
  // Another stream that writes an input while the product may read it.
  EXPECT_OK(blas.cublasGemmEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, pointer(A), CUDA_R_32F, 1,
                              pointer(B), CUDA_R_32F, 1, &zero, pointer(C), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT));
  EXPECT_OK(cu.cuMemsetD32Async(A, 0, 1, cu.stream()));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

DRIVER_TEST("cublas: unwritten inputs and short buffers are found", "CUDASIM_DEVICES=2") {
  for (const bool isShort : {false, true}) {
    cu.use(isShort);
    Blas blas(cu);
    const float one = 1, zero = 0;
    const CUdeviceptr A = cu.device(isShort ? 32 : 64), B = upload(cu, numbers(16, 1)), C = cu.device(64);
    if (isShort) EXPECT_OK(cu.cuMemsetD8_v2(A, 0, 32));
    EXPECT_OK(blas.cublasGemmEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, pointer(A), CUDA_R_32F, 4,
                                pointer(B), CUDA_R_32F, 4, &zero, pointer(C), CUDA_R_32F, 4, CUBLAS_COMPUTE_32F,
                                CUBLAS_GEMM_DEFAULT));
    EXPECT_STATUS(cu.cuCtxSynchronize(), isShort ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_ERROR_LAUNCH_FAILED);
  }
  EXPECT_FOUND("nobody has written");
  EXPECT_FOUND("out of bounds");
}

DRIVER_TEST("cublas: a handle of another device is found", "CUDASIM_DEVICES=2") {
  Blas blas(cu);
  cu.use(1);
  const float one = 1;
  const CUdeviceptr A = upload(cu, numbers(4, 1));
  EXPECT_STATUS(
      blas.cublasGemmEx(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, pointer(A), CUDA_R_32F, 1, pointer(A),
                        CUDA_R_32F, 1, &one, pointer(A), CUDA_R_32F, 1, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_FOUND("wrong context: cublasGemm");
}

DRIVER_TEST("cublasLt: bias and gelu, with the input of gelu kept", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  const std::vector<float> bias = numbers(p.m, 4);
  const CUdeviceptr devBias = upload(cu, bias), aux = cu.device(p.m * p.n * 4);
  p.epilogue(CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, devBias);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t{p.m});
  EXPECT_OK(p.heuristic());
  EXPECT_EQ(p.found, 1);
  EXPECT_OK(p.run(p.devA, &p.result.algo));
  std::vector<double> x = product(p.a, p.b, p.m, p.n, p.k, false, false), y = x;
  for (size_t i = 0; i < x.size(); ++i) y[i] = gelu(x[i] += bias[i % p.m]);
  expectClose(download<float>(cu, aux, x.size()), x, 0, __LINE__);
  expectClose(download<float>(cu, p.devD, y.size()), y, 2e-5, __LINE__);
  EXPECT_CLEAN();
}

DRIVER_TEST("cublasLt: the derivative of gelu, and the gradient of the bias", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  const std::vector<float> x = numbers(p.m * p.n, 5);
  const CUdeviceptr gradient = cu.device(p.m * 4), aux = upload(cu, x);
  p.epilogue(CUBLASLT_EPILOGUE_DGELU_BGRAD);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, gradient);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t{p.m});
  EXPECT_OK(p.run(p.devA, nullptr));
  std::vector<double> d = product(p.a, p.b, p.m, p.n, p.k, false, false), sum(p.m, 0);
  for (size_t i = 0; i < d.size(); ++i) sum[i % p.m] += d[i] *= geluDerivative(x[i]);
  expectClose(download<float>(cu, p.devD, d.size()), d, 1e-4, __LINE__);
  expectClose(download<float>(cu, gradient, p.m), sum, 3e-4, __LINE__);
}

DRIVER_TEST("cublasLt: bias gradients of the inputs sum over k", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  const CUdeviceptr gradient = cu.device(p.m * 4);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, gradient);
  p.epilogue(CUBLASLT_EPILOGUE_BGRADA);
  EXPECT_OK(p.run(p.devA, nullptr));
  std::vector<double> ofA(p.m, 0), ofB(p.n, 0);
  for (int q = 0; q < p.k; ++q) {
    for (int i = 0; i < p.m; ++i) ofA[i] += p.a[q * p.m + i];
    for (int j = 0; j < p.n; ++j) ofB[j] += p.b[j * p.k + q];
  }
  expectClose(download<float>(cu, gradient, p.m), ofA, 0, __LINE__);
  p.epilogue(CUBLASLT_EPILOGUE_BGRADB);
  EXPECT_OK(p.run(p.devA, nullptr));
  expectClose(download<float>(cu, gradient, p.n), ofB, 0, __LINE__);
}

DRIVER_TEST("cublasLt: promises to the heuristic are kept or found", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  uint64_t bytes = 1 << 16;
  EXPECT_OK(blas.cublasLtMatmulPreferenceSetAttribute(p.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                                      sizeof bytes));
  EXPECT_OK(p.heuristic());
  EXPECT_EQ(p.result.workspaceSize, bytes);
  const CUdeviceptr workspace = cu.device(bytes);
  EXPECT_OK(p.run(p.devA, &p.result.algo, bytes, workspace));
  EXPECT_CLEAN();
  EXPECT_STATUS(p.run(p.devA, &p.result.algo, bytes - 1, workspace), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_FOUND("needs a workspace");
  EXPECT_STATUS(p.run(p.devA + 4, &p.result.algo, bytes, workspace), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_FOUND("misaligned: cublasLtMatmul: A is not aligned");
  p.epilogue(CUBLASLT_EPILOGUE_GELU);
  EXPECT_STATUS(p.run(p.devA, &p.result.algo, bytes, workspace), CUBLAS_STATUS_INVALID_VALUE);
}

DRIVER_TEST("cublasLt: an algorithm relies on how the bias was aligned that the heuristic saw", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  const CUdeviceptr bias = upload(cu, numbers(p.m + 1, 4));
  p.epilogue(CUBLASLT_EPILOGUE_BIAS);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias + 4);
  EXPECT_OK(p.heuristic());
  EXPECT_OK(p.run(p.devA, &p.result.algo));
  EXPECT_CLEAN();
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  EXPECT_OK(p.heuristic());
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias + 4);
  EXPECT_STATUS(p.run(p.devA, &p.result.algo), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_FOUND("misaligned: cublasLtMatmul: the bias is not aligned as the one was");
}

DRIVER_TEST("cublasLt: combinations that the library lacks are not supported", "") {
  Blas blas(cu);
  LtProblem p(cu, blas);
  p.epilogue(CUBLASLT_EPILOGUE_DGELU | CUBLASLT_EPILOGUE_BIAS);
  EXPECT_STATUS(p.heuristic(), CUBLAS_STATUS_NOT_SUPPORTED);
  p.epilogue(CUBLASLT_EPILOGUE_GELU_AUX);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t{p.m + 1});
  EXPECT_STATUS(p.heuristic(), CUBLAS_STATUS_NOT_SUPPORTED);
  p.epilogue(CUBLASLT_EPILOGUE_BIAS);
  EXPECT_OK(p.heuristic());
  EXPECT_STATUS(p.run(p.devA, nullptr), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_FOUND("the epilogue needs a bias pointer");
  const uint32_t wrongSize = 1;
  EXPECT_STATUS(blas.cublasLtMatmulDescSetAttribute(p.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &wrongSize, 4),
                CUBLAS_STATUS_INVALID_VALUE);
}

}  // namespace cudasim::test
