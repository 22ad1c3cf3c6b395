// What an operator sees: views of its operands, its attributes and scratch memory.
//
// An operator is one row of ops.def and has two functions:
//   rule (native/core/rules/<family>.cc)  runs on the calling thread, sees metadata only (data is null), and throws
//                                         unless `run` would be memory-safe with these operands;
//   run  (native/<backend>/<family>.cc)   runs on the device's executor in stream order, with data.
// Outputs are allocated by the core before `run`; an output may be an existing tensor that is overwritten
// (in-place forms, accumulation), so `run` must not assume that outputs are contiguous unless its rule asks for it,
// nor that an output does not alias an input with the identical view (elementwise operators must work in place).
#pragma once

#include <cmath>
#include <cstring>

#include "dtype.h"
#include "error.h"

namespace gradus {

constexpr int kMaxRank = 8;
constexpr int kMaxAttrs = 64;

struct TensorView {
  void* data = nullptr;  // first element, storage offset applied; null while rules run
  int64_t numel = 0;
  int64_t sizes[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};  // in elements; may be 0 (expanded) or negative (flipped)
  DType dtype = DType::kFloat32;
  int8_t rank = -1;         // -1: an optional operand that was not given
  bool contiguous = false;  // row-major without gaps (also true for empty and one-element tensors)

  bool present() const { return rank >= 0; }
  size_t bytes() const { return static_cast<size_t>(numel) * itemSize(dtype); }
  int64_t size(int dim) const { return sizes[dim < 0 ? dim + rank : dim]; }
  int64_t stride(int dim) const { return strides[dim < 0 ? dim + rank : dim]; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// Scratch memory from the device's caching allocator; freed when the operator returns.
class Workspace {
 public:
  virtual void* take(size_t bytes) = 0;  // 64-byte aligned, uninitialized; throws kOutOfMemory
 protected:
  ~Workspace() = default;
};

struct OpCall {
  const char* name;
  const TensorView* in;
  TensorView* out;
  const double* attr;
  int nIn, nOut, nAttr;
  Workspace* workspace;  // null while rules run
  uint32_t context = 0;  // the module call that it belongs to

  bool flag(int i) const { return attr[i] != 0; }
  // 0 for what no integer can hold: attributes come from JavaScript, and a rule need not ask for a range.
  int64_t integer(int i) const { return std::abs(attr[i]) < 0x1p63 ? static_cast<int64_t>(attr[i]) : 0; }
  template <class T>
  T* scratch(size_t count) const {
    return static_cast<T*>(workspace->take(count * sizeof(T)));
  }
};

using OpFunction = void (*)(const OpCall&);

inline bool sameSizes(const TensorView& a, const TensorView& b) {
  return a.rank == b.rank && std::memcmp(a.sizes, b.sizes, sizeof(int64_t) * (a.rank > 0 ? a.rank : 0)) == 0;
}

// Whether `a` can be read as if it had b's sizes (numpy broadcasting, trailing dimensions aligned).
inline bool broadcastsTo(const TensorView& a, const TensorView& b) {
  if (a.rank > b.rank) return false;
  for (int i = 1; i <= a.rank; ++i) {
    const int64_t size = a.sizes[a.rank - i];
    if (size != 1 && size != b.sizes[b.rank - i]) return false;
  }
  return true;
}

}  // namespace gradus
