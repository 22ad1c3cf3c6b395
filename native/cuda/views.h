// Operands as a kernel wants them: contiguous, of one dtype, on wide boundaries. What already is so is used in place.
#pragma once

#include "launch.h"

namespace gradus::cuda {

void run_copy(const OpCall&);
void run_fill(const OpCall&);

// Copies between views of the same sizes, whatever their strides and dtypes.
inline void copyView(const OpCall& call, const TensorView& from, TensorView to) {
  run_copy({call.name, &from, &to, nullptr, 1, 1, 0, call.workspace});
}

inline void fillView(const OpCall& call, TensorView to, double value) {
  run_fill({call.name, nullptr, &to, &value, 0, 1, 1, call.workspace});
}

inline TensorView contiguousLike(const TensorView& x, DType dtype, void* data) {
  TensorView view = x;
  view.data = data;
  view.dtype = dtype;
  view.contiguous = true;
  int64_t stride = 1;
  for (int d = x.rank - 1; d >= 0; --d) {
    view.strides[d] = stride;
    stride *= x.sizes[d] > 0 ? x.sizes[d] : 1;
  }
  return view;
}

// The operand itself, or a copy in scratch memory.
inline TensorView contiguousAs(const OpCall& call, const TensorView& x, DType dtype) {
  if (!x.present() || (x.contiguous && x.dtype == dtype)) return x;
  const size_t bytes = static_cast<size_t>(x.numel) * itemSize(dtype);
  const TensorView view = contiguousLike(x, dtype, call.workspace->take(bytes));
  copyView(call, x, view);
  return view;
}

inline TensorView contiguousOf(const OpCall& call, const TensorView& x) { return contiguousAs(call, x, x.dtype); }

// Accesses of 128 bits need it.
inline bool isWide(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

inline Address addressOf(const void* data) { return reinterpret_cast<Address>(data); }

inline void zeroBytes(void* data, size_t bytes) {
  if (bytes == 0) return;
  check(driver().memsetD8Async(addressOf(data), 0, bytes, currentDevice().opened.queue), "cuMemsetD8Async");
}

inline std::string kernelName(const char* family, const std::string& what) {
  return std::string("gradus_") + family + "_" + what;
}

// One kernel for each floating dtype: gradus_<family>_<what>_<dtype>.
class FloatingKernels {
 public:
  FloatingKernels(const char* family, const std::string& what)
      : kernels_{{family, kernelName(family, what + "_float32")},
                 {family, kernelName(family, what + "_float64")},
                 {family, kernelName(family, what + "_float16")},
                 {family, kernelName(family, what + "_bfloat16")}} {}
  Kernel& of(DType dtype) { return kernels_[static_cast<int>(dtype)]; }

 private:
  Kernel kernels_[4];
};

// One kernel for each type that is computed in: gradus_<family>_<what>_<f32|f64|i64>.
class ComputeKernels {
 public:
  ComputeKernels(const char* family, const std::string& what)
      : kernels_{{family, kernelName(family, what + "_f32")},
                 {family, kernelName(family, what + "_f64")},
                 {family, kernelName(family, what + "_i64")}} {}
  Kernel& of(DType dtype) { return kernels_[dtype == DType::kFloat64 ? 1 : isFloating(dtype) ? 0 : 2]; }

 private:
  Kernel kernels_[3];
};

}  // namespace gradus::cuda
