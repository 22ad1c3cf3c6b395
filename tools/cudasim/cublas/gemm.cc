#include "gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../driver/number.h"

namespace cudasim::cublas {

using driver::Task;

namespace {

// An array of one of the types, as `Real`.
template <class Real>
void decode(const std::byte* from, cudaDataType type, Real* to, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (type == CUDA_R_64F) {
      double value;
      std::memcpy(&value, from + i * 8, 8);
      to[i] = static_cast<Real>(value);
    } else if (type == CUDA_R_32F) {
      float value;
      std::memcpy(&value, from + i * 4, 4);
      to[i] = static_cast<Real>(value);
    } else {
      uint16_t bits;
      std::memcpy(&bits, from + i * 2, 2);
      to[i] = static_cast<Real>(type == CUDA_R_16F ? driver::fromFloat16(bits) : driver::fromBfloat16(bits));
    }
  }
}

template <class Real>
void encode(const Real* from, cudaDataType type, std::byte* to, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (type == CUDA_R_64F) {
      const auto value = static_cast<double>(from[i]);
      std::memcpy(to + i * 8, &value, 8);
    } else if (type == CUDA_R_32F) {
      const auto value = static_cast<float>(from[i]);
      std::memcpy(to + i * 4, &value, 4);
    } else {
      const auto value = static_cast<float>(from[i]);
      const uint16_t bits = type == CUDA_R_16F ? driver::toFloat16(value) : driver::toBfloat16(value);
      std::memcpy(to + i * 2, &bits, 2);
    }
  }
}

template <class Real>
std::vector<Real> readVector(Task& task, uint64_t address, cudaDataType type, size_t count) {
  std::vector<std::byte> bytes(count * bytesOf(type));
  task.read(address, bytes.data(), bytes.size());
  std::vector<Real> values(count);
  decode(bytes.data(), type, values.data(), count);
  return values;
}

template <class Real>
void writeVector(Task& task, uint64_t address, cudaDataType type, const Real* values, size_t count) {
  std::vector<std::byte> bytes(count * bytesOf(type));
  encode(values, type, bytes.data(), count);
  task.write(address, bytes.data(), bytes.size());
}

// Columns without the gaps that a leading dimension leaves: those bytes are nobody's business.
template <class Real>
std::vector<Real> readMatrix(Task& task, const Matrix& m, int64_t batch) {
  const size_t size = bytesOf(m.type), column = m.rows * size;
  const uint64_t first = m.address + batch * m.stride * static_cast<int64_t>(size);
  std::vector<std::byte> bytes(column * m.cols);
  if (m.ld == m.rows)
    task.read(first, bytes.data(), bytes.size());
  else
    for (int64_t j = 0; j < m.cols; ++j) task.read(first + j * m.ld * size, bytes.data() + j * column, column);
  std::vector<Real> values(m.rows * m.cols);
  decode(bytes.data(), m.type, values.data(), values.size());
  return values;
}

template <class Real>
void writeMatrix(Task& task, const Matrix& m, int64_t batch, const std::vector<Real>& values) {
  const size_t size = bytesOf(m.type), column = m.rows * size;
  const uint64_t first = m.address + batch * m.stride * static_cast<int64_t>(size);
  std::vector<std::byte> bytes(column * m.cols);
  encode(values.data(), m.type, bytes.data(), values.size());
  if (m.ld == m.rows)
    task.write(first, bytes.data(), bytes.size());
  else
    for (int64_t j = 0; j < m.cols; ++j) task.write(first + j * m.ld * size, bytes.data() + j * column, column);
}

template <class Real>
std::vector<Real> transposed(const std::vector<Real>& m, int64_t rows, int64_t cols) {
  std::vector<Real> t(m.size());
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t i = 0; i < rows; ++i) t[i * cols + j] = m[j * rows + i];
  return t;
}

void roundInputs(const Gemm& gemm, std::vector<float>& values) {
  if (gemm.compute == CUBLAS_COMPUTE_32F_FAST_16F)
    for (float& v : values) v = driver::fromFloat16(driver::toFloat16(v));
  else if (gemm.compute == CUBLAS_COMPUTE_32F_FAST_16BF)
    for (float& v : values) v = driver::fromBfloat16(driver::toBfloat16(v));
  else if (gemm.tf32)
    for (float& v : values) v = driver::toTf32(v);
}
void roundInputs(const Gemm&, std::vector<double>&) {}

// The tanh form, which is what cuBLASLt computes.
template <class Real>
Real gelu(Real x) {
  constexpr Real kScale = 0.7978845608028654, kCubic = 0.044715;
  return Real(0.5) * x * (1 + std::tanh(kScale * (x + kCubic * x * x * x)));
}

template <class Real>
Real geluDerivative(Real x) {
  constexpr Real kScale = 0.7978845608028654, kCubic = 0.044715;
  const Real t = std::tanh(kScale * (x + kCubic * x * x * x));
  return Real(0.5) * (1 + t) + Real(0.5) * x * (1 - t * t) * kScale * (1 + 3 * kCubic * x * x);
}

template <class Real>
struct Product {
  Task& task;
  const Gemm& gemm;
  const int64_t m, n, k, batch;

  void run(Real alpha, Real beta) {
    std::vector<Real> a = readMatrix<Real>(task, gemm.a, batch), b = readMatrix<Real>(task, gemm.b, batch);
    roundInputs(gemm, a);
    roundInputs(gemm, b);
    if (gemm.transA) a = transposed(a, gemm.a.rows, gemm.a.cols);
    if (gemm.transB) b = transposed(b, gemm.b.rows, gemm.b.cols);
    std::vector<Real> d(m * n, 0);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t p = 0; p < k; ++p) {
        const Real factor = b[j * k + p];
        const Real* column = &a[p * m];
        Real* sum = &d[j * m];
        for (int64_t i = 0; i < m; ++i) sum[i] += column[i] * factor;
      }
    std::vector<Real> c;
    if (beta != 0) c = readMatrix<Real>(task, gemm.c, batch);  // with beta 0, C may hold anything
    for (size_t i = 0; i < d.size(); ++i) d[i] = alpha * d[i] + (beta != 0 ? beta * c[i] : 0);
    finish(d);
    if (gemm.epilogue == CUBLASLT_EPILOGUE_BGRADA) sumOverK(a, m, 1, m);
    if (gemm.epilogue == CUBLASLT_EPILOGUE_BGRADB) sumOverK(b, n, k, 1);
    writeMatrix(task, gemm.d, batch, d);
  }

 private:
  uint64_t biasAddress() const {
    return gemm.bias + batch * gemm.biasStride * static_cast<int64_t>(bytesOf(gemm.biasType));
  }
  Matrix aux() const { return {gemm.aux, gemm.d.type, m, n, gemm.auxLd, gemm.auxStride}; }

  void finish(std::vector<Real>& d) {
    const int e = gemm.epilogue;
    constexpr int kBias = CUBLASLT_EPILOGUE_BIAS, kRelu = CUBLASLT_EPILOGUE_RELU, kGelu = CUBLASLT_EPILOGUE_GELU;
    constexpr int kAux = 128, kDerivative = 64, kBiasGradient = 16;
    if (e & kBias) {
      const std::vector<Real> bias = readVector<Real>(task, biasAddress(), gemm.biasType, m);
      for (int64_t i = 0; i < m * n; ++i) d[i] += bias[i % m];
    }
    if ((e & kAux) && !(e & kDerivative)) writeMatrix(task, aux(), batch, d);
    if (e & kRelu)
      for (Real& v : d) v = std::max(v, Real(0));
    if (e & kGelu)
      for (Real& v : d) v = gelu(v);
    if (e & kDerivative) {
      const std::vector<Real> x = readMatrix<Real>(task, aux(), batch);
      for (int64_t i = 0; i < m * n; ++i) d[i] *= geluDerivative(x[i]);
    }
    if (e & kBiasGradient) {
      std::vector<Real> sum(m, 0);
      for (int64_t i = 0; i < m * n; ++i) sum[i % m] += d[i];
      writeVector(task, biasAddress(), gemm.biasType, sum.data(), m);
    }
  }

  // Row sums of op(A), column sums of op(B).
  void sumOverK(const std::vector<Real>& matrix, int64_t count, int64_t step, int64_t stepOfK) {
    std::vector<Real> sum(count, 0);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t p = 0; p < k; ++p) sum[i] += matrix[i * step + p * stepOfK];
    writeVector(task, biasAddress(), gemm.biasType, sum.data(), count);
  }
};

template <class Real>
void runAll(Task& task, const Gemm& gemm) {
  const auto scalar = [&](uint64_t address, double given) {
    return address ? readVector<Real>(task, address, gemm.scaleType, 1)[0] : static_cast<Real>(given);
  };
  const Real alpha = scalar(gemm.alphaAddress, gemm.alpha), beta = scalar(gemm.betaAddress, gemm.beta);
  const int64_t k = gemm.transA ? gemm.a.rows : gemm.a.cols;
  for (int64_t batch = 0; batch < gemm.batches; ++batch)
    Product<Real>{task, gemm, gemm.d.rows, gemm.d.cols, k, batch}.run(alpha, beta);
}

}  // namespace

double hostScalar(const void* value, cudaDataType type) {
  double scalar = 0;
  decode(static_cast<const std::byte*>(value), type, &scalar, 1);
  return scalar;
}

void run(Task& task, const Gemm& gemm) {
  if (gemm.compute == CUBLAS_COMPUTE_64F || gemm.compute == CUBLAS_COMPUTE_64F_PEDANTIC)
    runAll<double>(task, gemm);
  else
    runAll<float>(task, gemm);
}

cublasStatus_t checkTypes(const Gemm& g) {
  const auto all = [&](cudaDataType ab, cudaDataType cd) {
    return g.a.type == ab && g.b.type == ab && g.c.type == cd && g.d.type == cd;
  };
  const auto when = [](bool condition) { return condition ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED; };
  switch (g.compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      return when(g.scaleType == CUDA_R_32F &&
                  (all(CUDA_R_32F, CUDA_R_32F) || all(CUDA_R_16F, CUDA_R_16F) || all(CUDA_R_16F, CUDA_R_32F) ||
                   all(CUDA_R_16BF, CUDA_R_16BF) || all(CUDA_R_16BF, CUDA_R_32F)));
    case CUBLAS_COMPUTE_32F_FAST_16F:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      return when(g.scaleType == CUDA_R_32F && all(CUDA_R_32F, CUDA_R_32F));
    case CUBLAS_COMPUTE_16F:
    case CUBLAS_COMPUTE_16F_PEDANTIC:
      return when(g.scaleType == CUDA_R_16F && all(CUDA_R_16F, CUDA_R_16F));
    case CUBLAS_COMPUTE_64F:
    case CUBLAS_COMPUTE_64F_PEDANTIC:
      return when(g.scaleType == CUDA_R_64F && all(CUDA_R_64F, CUDA_R_64F));
  }
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t checkShapes(const Gemm& g) {
  const auto shape = [](const Matrix& x, bool transposed) {
    return transposed ? std::pair(x.cols, x.rows) : std::pair(x.rows, x.cols);
  };
  const auto [m, ka] = shape(g.a, g.transA);
  const auto [kb, n] = shape(g.b, g.transB);
  bool fits = m == g.d.rows && n == g.d.cols && ka == kb && g.c.rows == g.d.rows && g.c.cols == g.d.cols;
  for (const Matrix* x : {&g.a, &g.b, &g.c, &g.d})
    fits &= x->rows >= 0 && x->cols >= 0 && x->ld >= std::max<int64_t>(1, x->rows);
  return fits && g.batches >= 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t submit(const char* name, cudaStream_t stream, Gemm gemm) {
  for (const Matrix* x : {&gemm.a, &gemm.b, &gemm.d})
    if (x->address % bytesOf(x->type)) {
      driver::extension::reportFinding("misaligned", std::string(name) + ": a matrix is not aligned to its elements");
      return CUBLAS_STATUS_INVALID_VALUE;
    }
  const abi::CUresult status =
      driver::extension::submitTask(stream, name, [gemm = std::move(gemm)](Task& task) { run(task, gemm); });
  return status == abi::CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

const char* statusName(cublasStatus_t status) {
  switch (status) {
#define STATUS(name) \
  case name:         \
    return #name
    STATUS(CUBLAS_STATUS_SUCCESS);
    STATUS(CUBLAS_STATUS_NOT_INITIALIZED);
    STATUS(CUBLAS_STATUS_ALLOC_FAILED);
    STATUS(CUBLAS_STATUS_INVALID_VALUE);
    STATUS(CUBLAS_STATUS_ARCH_MISMATCH);
    STATUS(CUBLAS_STATUS_MAPPING_ERROR);
    STATUS(CUBLAS_STATUS_EXECUTION_FAILED);
    STATUS(CUBLAS_STATUS_INTERNAL_ERROR);
    STATUS(CUBLAS_STATUS_NOT_SUPPORTED);
    STATUS(CUBLAS_STATUS_LICENSE_ERROR);
#undef STATUS
  }
  return "unrecognized status";
}

const char* statusText(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value was used as an argument";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "an absent device architectural feature is required";
    case CUBLAS_STATUS_MAPPING_ERROR:
      return "an access to GPU memory space failed";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality is not supported";
    case CUBLAS_STATUS_LICENSE_ERROR:
      return "the license check failed";
  }
  return "unrecognized status";
}

}  // namespace cudasim::cublas
