// From addresses to memory: which lanes lie in which region, and how their pieces lie to each other.
#pragma once

#include <algorithm>
#include <cstring>

#include "access.h"
#include "race.h"

namespace cudasim {
namespace CUDASIM_ISA {

inline void addresses(const Warp& w, const Insn& in, int slot, bool narrow, int64_t displacement, uint64_t* out) {
  if (narrow) {
    const uint32_t* row = w.row<uint32_t>(in.r[slot]);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<uint32_t>(row[i] + static_cast<uint32_t>(displacement));
  } else {
    const uint64_t* row = w.row<uint64_t>(in.r[slot]);
    for (int i = 0; i < 32; ++i) out[i] = row[i] + static_cast<uint64_t>(displacement);
  }
}

// Lanes of `lanes` for which f holds.
template <class F>
uint32_t lanesWhere(uint32_t lanes, F f) {
  uint32_t result = 0;
  for (uint32_t i = 0; i < 32; ++i) result |= (f(i) ? 1u : 0u) << i;
  return result & lanes;
}

inline uint32_t dropMisaligned(const Warp& w, const Insn& in, uint32_t lanes, const uint64_t* address, uint32_t bytes) {
  uint64_t low = 0;
  for (uint32_t i = 0; i < 32; ++i) low |= lanes >> i & 1 ? address[i] : 0;
  if (!(low & (bytes - 1))) return lanes;
  const uint32_t bad = lanesWhere(lanes, [&](uint32_t i) { return (address[i] & (bytes - 1)) != 0; });
  const int lane = std::countr_zero(bad);
  w.fault(Fault::kMisaligned, in, lane,
          "address " + std::to_string(address[lane]) + " is no multiple of the " + std::to_string(bytes) +
              " bytes of the access",
          address[lane]);
  return lanes & ~bad;
}

inline Site& site(const Warp& w, const Insn& in) { return w.worker->sites[in.reconverge]; }

// Pieces of 1 to 16 bytes, mostly of a size that one instruction moves.
inline void copyPiece(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  switch (bytes) {
    case 1:
      *to = *from;
      return;
    case 2:
      std::memcpy(to, from, 2);
      return;
    case 4:
      std::memcpy(to, from, 4);
      return;
    case 8:
      std::memcpy(to, from, 8);
      return;
    case 16:
      std::memcpy(to, from, 16);
      return;
    default:
      std::memcpy(to, from, bytes);
  }
}

inline void markPiece(uint8_t* valid, uint8_t value, uint32_t bytes) {
  const uint64_t word = value * uint64_t{0x0101010101010101}, words[2] = {word, word};
  copyPiece(valid, reinterpret_cast<const uint8_t*>(words), bytes);
}

// Calls f(region, lanes, offsets) for the lanes in each allocation; address becomes the offset.
template <class F>
void eachGlobal(Warp& w, const Insn& in, uint32_t lanes, uint64_t* address, uint32_t bytes, uint32_t align, bool store,
                F f) {
  LaunchState& launch = *w.block->launch;
  lanes = dropMisaligned(w, in, lanes, address, align);
  Site& s = site(w, in);
  while (lanes) {
    Allocation* a = s.allocation;
    const auto inside = [&]() -> uint32_t {
      if (!a || !a->live || a->bytes < bytes) return 0;
      const uint64_t start = a->address, last = a->bytes - bytes;
      return lanesWhere(lanes, [&](uint32_t i) { return address[i] - start <= last; });
    };
    uint32_t here = inside();
    if (!here) {
      const int first = std::countr_zero(lanes);
      a = launch.lookup(address[first]);
      here = inside();
      if (!(here >> first & 1)) {
        w.badAddress(in, first, address[first], bytes, store);
        lanes &= ~(1u << first);
        continue;
      }
      s.allocation = a;
      s.shadow = nullptr;
    }
    lanes &= ~here;
    if (store && a->readOnly) {
      w.fault(Fault::kReadOnly, in, std::countr_zero(here), "writes constant '" + a->label + "'",
              address[std::countr_zero(here)]);
      continue;
    }
    Region region{.data = a->data,
                  .valid = a->valid,
                  .size = a->bytes,
                  .address = a->address,
                  .shift = launch.program.globalShift,
                  .global = true};
    if (launch.options.checkRaces) {
      RaceShadow* shadow = s.allocation == a ? s.shadow : nullptr;
      if (!shadow) shadow = s.shadow = &a->raceShadow(region.shift);
      region.writers = shadow->writers;
      region.readers = shadow->readers;
      if (launch.options.touched)
        eachLane(here, [&](int i) { shadow->touched[(address[i] - a->address) / kTouchedBytes] = launch.firstRun; });
    }
    uint64_t offset[32];
    for (int i = 0; i < 32; ++i) offset[i] = address[i] - a->address;
    f(region, here, offset);
  }
}

template <class F>
void eachShared(Warp& w, const Insn& in, uint32_t lanes, uint64_t* address, uint32_t bytes, bool store, F f) {
  lanes = dropMisaligned(w, in, lanes, address, bytes);
  const Region& region = w.block->shared;
  const uint32_t out =
      lanesWhere(lanes, [&](uint32_t i) { return address[i] + bytes > region.size || address[i] > region.size; });
  if (out) {
    const int lane = std::countr_zero(out);
    w.fault(Fault::kOutOfBounds, in, lane,
            std::string(store ? "writes " : "reads ") + std::to_string(bytes) + " bytes at shared address " +
                std::to_string(address[lane]) + ", past the block's " +
                std::to_string(w.block->launch->kernel.staticShared + w.block->launch->launch.dynamicShared) + " bytes",
            address[lane]);
    lanes &= ~out;
  }
  if (lanes) f(region, lanes, address);
}

// The pattern of the access; it holds until the instruction's next access to the same kind of memory.
const Pattern& look(Warp& w, const Insn& in, const Region& region, const uint64_t* offset, uint32_t lanes,
                    uint32_t bytes);
// Bytes, requests, sectors and wavefronts.
void count(Warp& w, const Region& region, const Pattern& p, bool store);

inline Strength strengthOf(uint16_t sub, const Region& region) {
  if (!(sub & kIsStrong)) return Strength::kWeak;
  return (sub & kDeviceScope) || !region.global ? Strength::kDevice : Strength::kBlock;
}

// Checks of a read: written, in time, in order.
void checkRead(Warp& w, const Insn& in, const Region& region, const Pattern& p, const uint64_t* offset);
// Writes with the same checks; lane i's bytes are at value + i * bytes.
void checkedWrite(Warp& w, const Insn& in, const Region& region, const Pattern& p, const uint64_t* offset,
                  const uint8_t* value);
// Strong accesses hand on what fences have made known.
void passOn(Warp& w, const Region& region, const uint64_t* offset, uint32_t lanes, uint16_t sub, bool store);

// Of generic and of local instructions.
void accessLocal(Warp& w, const Insn& in, uint32_t exec, const uint64_t* address, int element, int count, bool store);

}  // namespace CUDASIM_ISA
}  // namespace cudasim
