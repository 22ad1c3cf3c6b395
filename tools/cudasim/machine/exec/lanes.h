// Handlers that do the same to each lane. A functor says what; the loops here say for which lanes.
#pragma once

#include <type_traits>

#include "../run/warp.h"
#include "numerics.h"
#include "registry.h"

namespace cudasim {
namespace CUDASIM_ISA {

// How values lie in rows: 64-bit types in 64-bit cells, the others zero-extended in 32-bit cells.
template <class T>
using Cell = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
T unpack(Cell<T> cell) {
  if constexpr (sizeof(T) == sizeof(Cell<T>)) {
    return std::bit_cast<T>(cell);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<T>(static_cast<uint16_t>(cell));
  } else {
    return std::bit_cast<T>(static_cast<uint8_t>(cell));
  }
}

template <class T>
Cell<T> pack(T value) {
  if constexpr (sizeof(T) == sizeof(Cell<T>)) {
    return std::bit_cast<Cell<T>>(value);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<uint16_t>(value);
  } else {
    return std::bit_cast<uint8_t>(value);
  }
}

template <class F>
void eachLane(uint32_t exec, F f) {
  for (; exec; exec &= exec - 1) f(std::countr_zero(exec));
}

template <class T>
void storeLanes(Cell<T>* to, const Cell<T>* from, uint32_t exec) {
#pragma GCC ivdep
  for (int i = 0; i < 32; ++i) to[i] = exec >> i & 1 ? from[i] : to[i];
}

// A source may share its row with the destination, cell by cell; GCC's ivdep says that cells do not depend on each
// other.
template <class F, class D, class... S>
void runLanes(Warp& w, const Insn& in, uint32_t exec) {
  Cell<D>* const d = w.row<Cell<D>>(in.r[0]);
  const auto loop = [&](auto... s) {
    if (exec == ~0u) {
#pragma GCC ivdep
      for (int i = 0; i < 32; ++i) d[i] = pack<D>(F{}(unpack<S>(s[i])...));
    } else {
#pragma GCC ivdep
      for (int i = 0; i < 32; ++i) {
        const Cell<D> r = pack<D>(F{}(unpack<S>(s[i])...));
        d[i] = exec >> i & 1 ? r : d[i];
      }
    }
  };
  int slot = 0;
  const auto next = [&]<class T>(T*) { return static_cast<const Cell<T>*>(w.row<Cell<T>>(in.r[++slot])); };
  struct Sources {
    decltype(loop)& f;
    Sources(decltype(loop)& f, const Cell<S>*... s) : f(f) { f(s...); }
  };
  Sources{loop, next(static_cast<S*>(nullptr))...};  // braces: evaluated from left to right
}

template <class T>
constexpr char letter() {
  return sizeof(T) == 8 ? 'd' : sizeof(T) == 4 ? 'w' : 'h';
}

template <class D, class... S, class F>
void add(Registry& registry, const std::string& name, F) {
  std::string signature(1, static_cast<char>(letter<D>() - 'a' + 'A'));
  ((signature += letter<S>()), ...);
  registry.add(name, &runLanes<F, D, S...>, signature);
}

// The slow way, for operations that a lane does with branches or library calls: only active lanes are computed.
template <class F, class D, class... S>
void runEach(Warp& w, const Insn& in, uint32_t exec) {
  Cell<D>* const d = w.row<Cell<D>>(in.r[0]);
  for (uint32_t m = exec; m; m &= m - 1) {
    const int i = std::countr_zero(m);
    int slot = 0;
    const auto next = [&]<class T>(T*) { return unpack<T>(w.row<Cell<T>>(in.r[++slot])[i]); };
    struct Call {
      D result;
      Call(S... s) : result(F{}(s...)) {}
    };
    d[i] = pack<D>(Call{next(static_cast<S*>(nullptr))...}.result);
  }
}

template <class D, class... S, class F>
void addEach(Registry& registry, const std::string& name, F) {
  std::string signature(1, static_cast<char>(letter<D>() - 'a' + 'A'));
  ((signature += letter<S>()), ...);
  registry.add(name, &runEach<F, D, S...>, signature);
}

void registerInteger(Registry&);
void registerBits(Registry&);
void registerFloat(Registry&);
void registerDouble(Registry&);
void registerApprox(Registry&);
void registerHalf(Registry&);
void registerCompare(Registry&);
void registerConvert(Registry&);
void registerControl(Registry&);
void registerMemory(Registry&);
void registerLocal(Registry&);
void registerAtomic(Registry&);
void registerAsync(Registry&);
void registerExchange(Registry&);
void registerMatrix(Registry&);

}  // namespace CUDASIM_ISA
}  // namespace cudasim
