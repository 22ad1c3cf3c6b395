// Rounding directions, for decoders and handlers.
#pragma once

namespace cudasim {

enum RoundingCode { kRoundNearest = 0, kRoundZero = 1, kRoundDown = 2, kRoundUp = 3 };

}  // namespace cudasim
