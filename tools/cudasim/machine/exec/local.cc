// Local memory. Words of the 32 lanes lie side by side, as on the hardware. Only its own thread can reach it, so there
// are no races.
#include <cstring>

#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

void accessLocal(Warp& w, const Insn& in, uint32_t exec, const uint64_t* address, int element, int count, bool store) {
  const Program& program = w.block->launch->program;
  const auto bytes = static_cast<uint32_t>(element * count);
  exec = dropMisaligned(w, in, exec, address, bytes);
  const bool checks = w.block->launch->options.checkInitialized, isSigned = in.sub & kSigned;
  eachLane(exec, [&](int i) {
    const auto at = [&](uint64_t byte) { return (byte / 4 * 32 + static_cast<uint64_t>(i)) * 4 + byte % 4; };
    bool outside = address[i] > program.localEnd || address[i] + bytes > program.localEnd, unwritten = false;
    for (uint32_t b = 0; !outside && b < bytes; ++b) {
      uint8_t& valid = w.localValid[at(address[i] + b)];
      outside |= valid == kRedZone;
      unwritten |= valid == kUnwritten;
      if (store && !outside) valid = kWritten;
    }
    const std::string what = std::string(store ? "writes " : "reads ") + std::to_string(bytes) +
                             " bytes at local address " + std::to_string(address[i]);
    if (outside) return w.fault(Fault::kOutOfBounds, in, i, what + ", in no variable", address[i]);
    if (!store && unwritten && checks)
      w.fault(Fault::kUninitializedLocal, in, i, what + ", which this thread has not written", address[i]);
    for (int k = 0; k < count; ++k) {
      uint64_t value = 0;
      uint8_t raw[8];
      const bool wide = element == 8 || (in.sub & kWideRegister);
      const uint64_t from = address[i] + static_cast<uint64_t>(k * element);
      if (store) {
        value = wide ? w.row<uint64_t>(in.r[1 + k])[i] : w.row<uint32_t>(in.r[1 + k])[i];
        std::memcpy(raw, &value, 8);
        for (int b = 0; b < element; ++b) w.local[at(from + static_cast<uint64_t>(b))] = raw[b];
        continue;
      }
      for (int b = 0; b < element; ++b) value |= uint64_t{w.local[at(from + static_cast<uint64_t>(b))]} << 8 * b;
      if (isSigned && element < 8 && value >> (8 * element - 1) & 1) value |= ~uint64_t{0} << 8 * element;
      if (wide)
        w.row<uint64_t>(in.r[1 + k])[i] = value;
      else
        w.row<uint32_t>(in.r[1 + k])[i] = in.count ? static_cast<uint16_t>(value) : static_cast<uint32_t>(value);
    }
  });
}

namespace {

template <int E, int N, bool Store>
void handler(Warp& w, const Insn& in, uint32_t exec) {
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  accessLocal(w, in, exec, address, E, N, Store);
}

template <int E, int N>
void sizes(Registry& r) {
  const std::string size = "." + std::to_string(E) + "." + std::to_string(N);
  r.add("@ld.local" + size, &handler<E, N, false>);
  r.add("@st.local" + size, &handler<E, N, true>);
}

}  // namespace

void registerLocal(Registry& r) {
  sizes<1, 1>(r);
  sizes<1, 2>(r);
  sizes<1, 4>(r);
  sizes<2, 1>(r);
  sizes<2, 2>(r);
  sizes<2, 4>(r);
  sizes<4, 1>(r);
  sizes<4, 2>(r);
  sizes<4, 4>(r);
  sizes<8, 1>(r);
  sizes<8, 2>(r);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
