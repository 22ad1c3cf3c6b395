// Comparisons of PTX and their codes in Insn::sub, shared with the decoder.
#pragma once

#include <cstdint>

namespace cudasim {

enum Compare : uint16_t { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan };
enum Combine : uint16_t { kAlone, kAnd, kOr, kXor };

// sub: comparison | combination << 5 | flags
constexpr uint16_t kNegatedThird = 1 << 7, kFlushOperands = 1 << 8, kSecondResult = 1 << 9;

}  // namespace cudasim
