// Modifiers of cvt in Insn::sub, shared with the decoder.
#pragma once

#include <cstdint>

namespace cudasim {

// sub: rounding (of numerics.h) | flags
constexpr uint16_t kConvertRound = 3, kConvertIntegral = 1 << 2, kConvertFtz = 1 << 3, kConvertSat = 1 << 4,
                   kConvertRelu = 1 << 5, kConvertSignExtend = 1 << 6, kConvertWideDest = 1 << 7;

}  // namespace cudasim
