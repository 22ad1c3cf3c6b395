// Loads and stores of global, shared and parameter memory, and generic ones.
#include <cstring>

#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

template <int E>
using Element =
    std::conditional_t<E == 1, uint8_t,
                       std::conditional_t<E == 2, uint16_t, std::conditional_t<E == 4, uint32_t, uint64_t>>>;

template <int E>
uint64_t extended(Element<E> v, bool isSigned) {
  return isSigned ? static_cast<uint64_t>(static_cast<int64_t>(static_cast<std::make_signed_t<Element<E>>>(v))) : v;
}

// From memory, piece by piece, into the registers of a vector.
template <int E, int N, class Where>
void fillRows(Warp& w, const Insn& in, uint32_t lanes, const uint8_t* data, Where where) {
  const bool isSigned = in.sub & kSigned, wide = in.sub & kWideRegister;
  for (int k = 0; k < N; ++k) {
    const auto value = [&](int i) {
      Element<E> v;
      std::memcpy(&v, data + where(i) + k * E, E);
      return v;
    };
    if (E == 8 || wide) {
      uint64_t* d = w.row<uint64_t>(in.r[1 + k]);
      if (lanes == ~0u && E == 8)
        for (int i = 0; i < 32; ++i) d[i] = value(i);
      else
        eachLane(lanes, [&](int i) { d[i] = extended<E>(value(i), isSigned); });
    } else if (lanes == ~0u && E == 4) {
      uint32_t* d = w.row<uint32_t>(in.r[1 + k]);
      for (int i = 0; i < 32; ++i) d[i] = static_cast<uint32_t>(value(i));
    } else {
      uint32_t* d = w.row<uint32_t>(in.r[1 + k]);
      // 16-bit registers keep zeros above their value.
      const bool half = isSigned && E < 4 && in.count;
      eachLane(lanes, [&](int i) {
        const auto v = static_cast<uint32_t>(extended<E>(value(i), isSigned));
        d[i] = half ? v & 0xffff : v;
      });
    }
  }
}

template <int E, int N>
void takeRows(const Warp& w, const Insn& in, uint32_t lanes, uint8_t (*out)[E * N]) {
  for (int k = 0; k < N; ++k) {
    const auto put = [&](int i, auto v) {
      const auto e = static_cast<Element<E>>(v);
      std::memcpy(out[i] + k * E, &e, E);
    };
    if (E == 8 || (in.sub & kWideRegister)) {
      const uint64_t* s = w.row<uint64_t>(in.r[1 + k]);
      if (lanes == ~0u)
        for (int i = 0; i < 32; ++i) put(i, s[i]);
      else
        eachLane(lanes, [&](int i) { put(i, s[i]); });
    } else {
      const uint32_t* s = w.row<uint32_t>(in.r[1 + k]);
      if (lanes == ~0u)
        for (int i = 0; i < 32; ++i) put(i, s[i]);
      else
        eachLane(lanes, [&](int i) { put(i, s[i]); });
    }
  }
}

template <int E, int N>
void loadFrom(Warp& w, const Insn& in, const Region& region, uint32_t lanes, const uint64_t* offset) {
  constexpr int bytes = E * N;
  const Pattern& p = look(w, in, region, offset, lanes, bytes);
  count(w, region, p, false);
  checkRead(w, in, region, p, offset);
  if (p.together)
    fillRows<E, N>(w, in, lanes, region.data + offset[0], [](int i) { return static_cast<uint64_t>(i) * bytes; });
  else
    fillRows<E, N>(w, in, lanes, region.data, [&](int i) { return offset[i]; });
  // Only now: what is published before the value that was read must be seen, and other host threads go on meanwhile.
  if (region.writers && (in.sub & kIsStrong) && w.block->launch->program.hasFences)
    passOn(w, region, offset, lanes, in.sub, false);
}

template <int E, int N>
void storeTo(Warp& w, const Insn& in, const Region& region, uint32_t lanes, const uint64_t* offset) {
  alignas(64) uint8_t value[32][E * N];
  takeRows<E, N>(w, in, lanes, value);
  const Pattern& p = look(w, in, region, offset, lanes, E * N);
  count(w, region, p, true);
  checkedWrite(w, in, region, p, offset, value[0]);
}

template <int E, int N>
void global(Warp& w, const Insn& in, uint32_t exec, uint64_t* address, bool store) {
  eachGlobal(w, in, exec, address, E * N, E * N, store,
             [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
               if (store)
                 storeTo<E, N>(w, in, region, lanes, offset);
               else
                 loadFrom<E, N>(w, in, region, lanes, offset);
             });
}

template <int E, int N>
void shared(Warp& w, const Insn& in, uint32_t exec, uint64_t* address, bool store) {
  eachShared(w, in, exec, address, E * N, store, [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
    if (store)
      storeTo<E, N>(w, in, region, lanes, offset);
    else
      loadFrom<E, N>(w, in, region, lanes, offset);
  });
}

template <int E, int N, bool Store>
void globalHandler(Warp& w, const Insn& in, uint32_t exec) {
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  global<E, N>(w, in, exec, address, Store);
}

template <int E, int N, bool Store>
void sharedHandler(Warp& w, const Insn& in, uint32_t exec) {
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  shared<E, N>(w, in, exec, address, Store);
}

// Parameters are the same for every thread; an address may still differ by lane.
template <int E, int N>
void loadParam(Warp& w, const Insn& in, uint32_t exec, uint64_t* address) {
  const std::vector<uint8_t>& params = w.block->launch->params;
  exec = dropMisaligned(w, in, exec, address, E * N);
  const uint32_t out =
      lanesWhere(exec, [&](uint32_t i) { return address[i] > params.size() || address[i] + E * N > params.size(); });
  if (out) {
    const int lane = std::countr_zero(out);
    w.fault(Fault::kOutOfBounds, in, lane,
            "reads " + std::to_string(E * N) + " bytes at parameter byte " + std::to_string(address[lane]) + " of " +
                std::to_string(params.size()),
            address[lane]);
    exec &= ~out;
  }
  fillRows<E, N>(w, in, exec, params.data(), [&](int i) { return address[i]; });
}

template <int E, int N>
void paramHandler(Warp& w, const Insn& in, uint32_t exec) {
  if (in.r[0] & kConstantRow) {  // the usual case: one address for all lanes
    const std::vector<uint8_t>& params = w.block->launch->params;
    const uint64_t at = *w.row<uint64_t>(in.r[0]) + static_cast<uint64_t>(in.imm);
    if (at % (E * N) == 0 && at <= params.size() && at + E * N <= params.size())
      return fillRows<E, N>(w, in, exec, params.data() + at, [](int) { return uint64_t{0}; });
  }
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  loadParam<E, N>(w, in, exec, address);
}

// Generic addresses: the windows by their upper byte, global memory for the rest.
template <int E, int N, bool Store>
void genericHandler(Warp& w, const Insn& in, uint32_t exec) {
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  const auto window = [&](uint64_t which) {
    return lanesWhere(exec, [&](uint32_t i) { return (address[i] & kWindowMask) == which; });
  };
  const uint32_t inShared = window(kSharedWindow), inLocal = window(kLocalWindow), inParam = window(kParamWindow);
  const uint32_t inGlobal = exec & ~(inShared | inLocal | inParam);
  if (inGlobal) {
    uint64_t copy[32];
    std::memcpy(copy, address, sizeof copy);
    global<E, N>(w, in, inGlobal, copy, Store);
  }
  for (uint64_t& a : address) a &= ~kWindowMask;
  if (inShared) shared<E, N>(w, in, inShared, address, Store);
  if (inLocal) accessLocal(w, in, inLocal, address, E, N, Store);
  if (inParam) {
    if (Store)
      w.fault(Fault::kReadOnly, in, std::countr_zero(inParam), "writes a parameter of the kernel");
    else
      loadParam<E, N>(w, in, inParam, address);
  }
}

template <int E, int N>
void sizes(Registry& r) {
  const std::string size = "." + std::to_string(E) + "." + std::to_string(N);
  r.add("@ld.global" + size, &globalHandler<E, N, false>);
  r.add("@st.global" + size, &globalHandler<E, N, true>);
  r.add("@ld.shared" + size, &sharedHandler<E, N, false>);
  r.add("@st.shared" + size, &sharedHandler<E, N, true>);
  r.add("@ld.generic" + size, &genericHandler<E, N, false>);
  r.add("@st.generic" + size, &genericHandler<E, N, true>);
  r.add("@ld.param" + size, &paramHandler<E, N>);
}

}  // namespace

void registerMemory(Registry& r) {
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
