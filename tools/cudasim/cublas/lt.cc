// libcublasLt.so.13: descriptors.
#include "lt.h"

#include <cstring>
#include <new>

namespace cudasim::cublas {

extern "C" {
#define CUBLAS_API(result, symbol, parameters) CUDASIM_EXPORT result symbol parameters;
#include "lt_api.def"
#undef CUBLAS_API
}

namespace {

constexpr size_t kVersion = 130101;

template <class T, class Opaque>
cublasStatus_t create(Opaque** handle, T value) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new (std::nothrow) Opaque{};
  if (!*handle) return CUBLAS_STATUS_ALLOC_FAILED;
  new ((*handle)->data) T(value);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Opaque>
cublasStatus_t destroy(Opaque* handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

// The bytes of an attribute: every one has a size that the caller must give exactly.
struct Field {
  void* data = nullptr;
  size_t bytes = 0;
};

template <class T>
Field field(T& member) {
  return {&member, sizeof member};
}

Field fieldOf(Layout& l, cublasLtMatrixLayoutAttribute_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return field(l.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return field(l.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return field(l.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return field(l.cols);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return field(l.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return field(l.batches);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return field(l.stride);
  }
  return {};
}

Field fieldOf(Description& d, cublasLtMatmulDescAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
      return field(d.compute);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
      return field(d.scaleType);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return field(d.pointerMode);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return field(d.transA);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return field(d.transB);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return field(d.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return field(d.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
      return field(d.biasStride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      return field(d.aux);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      return field(d.auxLd);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
      return field(d.auxStride);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
      return field(d.auxType);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return field(d.biasType);
  }
  return {};
}

Field fieldOf(Preference& p, cublasLtMatmulPreferenceAttributes_t attribute) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
      return field(p.searchMode);
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return field(p.maxWorkspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return field(p.reductionMask);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return field(p.alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES]);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT:
      return field(p.maxWaves);
  }
  return {};
}

template <class T, class Opaque, class Attribute>
cublasStatus_t setAttribute(Opaque* handle, Attribute attribute, const void* value, size_t bytes) {
  if (!handle || !value) return CUBLAS_STATUS_INVALID_VALUE;
  const Field at = fieldOf(inside<T>(handle), attribute);
  if (!at.data || at.bytes != bytes) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(at.data, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T, class Opaque, class Attribute>
cublasStatus_t getAttribute(Opaque* handle, Attribute attribute, void* value, size_t bytes, size_t* written) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  const Field at = fieldOf(inside<T>(handle), attribute);
  if (!at.data || (value ? at.bytes != bytes : !written)) return CUBLAS_STATUS_INVALID_VALUE;
  if (value) std::memcpy(value, at.data, bytes);
  if (written) *written = at.bytes;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  if (driver::extension::currentDevice() < 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));  // nothing to keep, but something to give back
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

size_t cublasLtGetVersion() { return kVersion; }
const char* cublasLtGetStatusName(cublasStatus_t status) { return statusName(status); }
const char* cublasLtGetStatusString(cublasStatus_t status) { return statusText(status); }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  return create(layout, Layout{.type = type, .rows = rows, .cols = columns, .ld = ld});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  return setAttribute<Layout>(layout, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, void* value, size_t bytes,
                                                size_t* written) {
  return getAttribute<Layout>(layout, attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t computeType,
                                        cudaDataType scaleType) {
  return create(desc, Description{.compute = computeType, .scaleType = scaleType});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  return setAttribute<Description>(desc, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              void* value, size_t bytes, size_t* written) {
  return getAttribute<Description>(desc, attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create(preference, Preference{});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  return setAttribute<Preference>(preference, attribute, value, bytes);
}

}  // namespace cudasim::cublas
