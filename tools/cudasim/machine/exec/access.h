// Modifiers of memory instructions in Insn::sub, shared by decoders and handlers.
#pragma once

#include <cstdint>

namespace cudasim {

constexpr uint16_t kAddress32 = 1 << 0;    // the address register has 32 bits
constexpr uint16_t kIsStrong = 1 << 1;     // volatile, relaxed, acquire, release, atomic
constexpr uint16_t kNonCoherent = 1 << 2;  // ld.global.nc
constexpr uint16_t kIsAcquire = 1 << 3, kIsRelease = 1 << 4;
constexpr uint16_t kDeviceScope = 1 << 5;    // gpu or sys
constexpr uint16_t kSigned = 1 << 6;         // loads narrower than their register extend the sign
constexpr uint16_t kWideRegister = 1 << 7;   // 64-bit register for a narrower element
constexpr uint16_t kNoResult = 1 << 8;       // red
constexpr uint16_t kSourceSize = 1 << 9;     // cp.async: r[2] says how many bytes to read
constexpr uint16_t kIgnoreSource = 1 << 10;  // cp.async: predicate r[3] says to read nothing
constexpr uint16_t kTranspose = 1 << 11;     // ldmatrix

}  // namespace cudasim
