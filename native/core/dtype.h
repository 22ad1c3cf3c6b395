// Element types. The numbers are shared with lib/dtype.ts and checked when the addon loads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradus {

enum class DType : uint8_t {
  kFloat32 = 0,
  kFloat64 = 1,
  kFloat16 = 2,
  kBFloat16 = 3,
  kInt64 = 4,
  kInt32 = 5,
  kUint8 = 6,
  kBool = 7,  // one byte, 0 or 1
};
constexpr int kNumDTypes = 8;

constexpr size_t itemSize(DType t) {
  constexpr uint8_t kSizes[kNumDTypes] = {4, 8, 2, 2, 8, 4, 1, 1};
  return kSizes[static_cast<int>(t)];
}

constexpr const char* dtypeName(DType t) {
  constexpr const char* kNames[kNumDTypes] = {"float32", "float64", "float16", "bfloat16",
                                              "int64",   "int32",   "uint8",   "bool"};
  return kNames[static_cast<int>(t)];
}

constexpr bool isFloating(DType t) { return t <= DType::kBFloat16; }
constexpr bool isHalf(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }
constexpr bool isIntegral(DType t) { return t >= DType::kInt64; }  // bool included, as in PyTorch

}  // namespace gradus
