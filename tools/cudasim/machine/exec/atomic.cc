// Atomics. Lanes go one after the other; blocks run on several host threads, so global memory is changed by
// compare-and-swap.
#include <atomic>
#include <cstring>

#include "reach.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

struct And {
  template <class T>
  T operator()(T old, T b, T) const {
    return old & b;
  }
};
struct Or {
  template <class T>
  T operator()(T old, T b, T) const {
    return old | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T old, T b, T) const {
    return old ^ b;
  }
};
struct Exchange {
  template <class T>
  T operator()(T, T b, T) const {
    return b;
  }
};
struct CompareSwap {
  template <class T>
  T operator()(T old, T b, T c) const {
    return old == b ? c : old;
  }
};
struct Min {
  template <class T>
  T operator()(T old, T b, T) const {
    return b < old ? b : old;
  }
};
struct Max {
  template <class T>
  T operator()(T old, T b, T) const {
    return old < b ? b : old;
  }
};
struct Increment {
  uint32_t operator()(uint32_t old, uint32_t b, uint32_t) const { return old >= b ? 0 : old + 1; }
};
struct Decrement {
  uint32_t operator()(uint32_t old, uint32_t b, uint32_t) const { return old == 0 || old > b ? b : old - 1; }
};
struct Add {
  template <class T>
  T operator()(T old, T b, T) const {
    if constexpr (std::is_same_v<T, F16> || std::is_same_v<T, BF16>)
      return narrow<T>(toFloat(old) + toFloat(b));
    else if constexpr (std::is_same_v<T, F16x2> || std::is_same_v<T, BF16x2>)
      return join((*this)(low(old), low(b), low(b)), (*this)(high(old), high(b), high(b)));
    else if constexpr (std::is_same_v<T, float>)
      return canonical(old + b);
    else if constexpr (std::is_same_v<T, double>)
      return old + b;
    else
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(old) + static_cast<std::make_unsigned_t<T>>(b));
  }
};
// On global memory float32 sums flush denormals; on shared memory they keep them.
struct FlushingAdd {
  float operator()(float old, float b, float) const { return canonical(flush(flush(old) + flush(b))); }
};

template <class T>
using Raw = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;

template <class Op, class T>
void update(Warp& w, const Insn& in, const Region& region, uint32_t lanes, const uint64_t* offset) {
  const Strength strength = strengthOf(in.sub, region);
  const RaceView view(w, region, strength);
  const bool passes = w.block->launch->program.hasFences;
  const uint16_t sub = in.sub;
  if (passes && (sub & kIsRelease)) w.fence(lanes, sub & kDeviceScope);
  SyncTable& table = region.global ? w.block->launch->sync : w.block->sync;
  const Cell<T>*b = w.row<Cell<T>>(in.r[2]), *c = std::is_same_v<Op, CompareSwap> ? w.row<Cell<T>>(in.r[3]) : b;
  Cell<T>* d = sub & kNoResult ? nullptr : w.row<Cell<T>>(in.r[1]);
  w.worker->counters.atomics += static_cast<uint64_t>(std::popcount(lanes));
  eachLane(lanes, [&](int i) {
    const uint64_t at = offset[i], me = view.lane(static_cast<uint64_t>(i));
    if (region.valid) {
      uint8_t wrong = 0, blocked = 0;
      for (size_t k = 0; k < sizeof(T); ++k)
        wrong |= region.valid[at + k] ^ kWritten, blocked |= region.valid[at + k] & 2;
      if (wrong && !std::is_same_v<Op, Exchange>)
        w.badBytes(in, region, at, sizeof(T), i, false);
      else if (blocked)
        w.badBytes(in, region, at, sizeof(T), i, true);
      std::memset(region.valid + at, kWritten, sizeof(T));
    }
    if (region.writers) {
      for (uint64_t k = 0; k < granules(region, sizeof(T)); ++k) {
        const uint64_t g = (at >> region.shift) + k;
        if (!(view.writerFine(region.writers[g], me) && view.readerFine(region.readers[g], me)))
          w.mayWrite(in, region, g, i, strength, false);
        region.writers[g] = me | view.strong;
      }
    }
    // This write publishes what fences have made known, and what others published before it is known after it; in this
    // order, as other host threads go on meanwhile.
    if (passes) w.publish(i, table, region.address + at, sub & kDeviceScope);
    auto* place = reinterpret_cast<Raw<T>*>(region.data + at);
    const std::atomic_ref<Raw<T>> memory(*place);
    Raw<T> old = memory.load(std::memory_order_relaxed), next;
    do next = std::bit_cast<Raw<T>>(Op{}(std::bit_cast<T>(old), unpack<T>(b[i]), unpack<T>(c[i])));
    while (!memory.compare_exchange_weak(old, next, std::memory_order_acq_rel));
    if (passes && !(sub & kNoResult)) w.acquire(i, table, region.address + at);
    if (d) d[i] = old;
  });
}

template <class Op, class T>
void inGlobal(Warp& w, const Insn& in, uint32_t exec, uint64_t* address) {
  eachGlobal(w, in, exec, address, sizeof(T), sizeof(T), true,
             [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
               const Pattern& p = look(w, in, region, offset, lanes, sizeof(T));
               count(w, region, p, false);
               count(w, region, p, true);
               update<Op, T>(w, in, region, lanes, offset);
             });
}

template <class Op, class T>
void inShared(Warp& w, const Insn& in, uint32_t exec, uint64_t* address) {
  eachShared(w, in, exec, address, sizeof(T), true, [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
    const Pattern& p = look(w, in, region, offset, lanes, sizeof(T));
    count(w, region, p, false);
    count(w, region, p, true);
    update<Op, T>(w, in, region, lanes, offset);
  });
}

enum class Where { kGlobal, kShared, kGeneric };

template <class Op, class GlobalOp, class T, Where W>
void handler(Warp& w, const Insn& in, uint32_t exec) {
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  if constexpr (W == Where::kGlobal) return inGlobal<GlobalOp, T>(w, in, exec, address);
  if constexpr (W == Where::kShared) return inShared<Op, T>(w, in, exec, address);
  const uint32_t shared = lanesWhere(exec, [&](uint32_t i) { return (address[i] & kWindowMask) == kSharedWindow; });
  if (exec & ~shared) {
    uint64_t copy[32];
    std::memcpy(copy, address, sizeof copy);
    inGlobal<GlobalOp, T>(w, in, exec & ~shared, copy);
  }
  for (uint64_t& a : address) a &= ~kWindowMask;
  if (shared) inShared<Op, T>(w, in, shared, address);
}

template <class Op, class T, class GlobalOp = Op>
void one(Registry& r, const std::string& name) {
  r.add("@atom.global." + name, &handler<Op, GlobalOp, T, Where::kGlobal>);
  r.add("@atom.shared." + name, &handler<Op, GlobalOp, T, Where::kShared>);
  r.add("@atom.generic." + name, &handler<Op, GlobalOp, T, Where::kGeneric>);
}

template <class T>
void ordered(Registry& r, const std::string& type) {
  one<Add, T>(r, "add." + type);
  one<Min, T>(r, "min." + type);
  one<Max, T>(r, "max." + type);
}

template <class T>
void bits(Registry& r, const std::string& type) {
  one<And, T>(r, "and." + type);
  one<Or, T>(r, "or." + type);
  one<Xor, T>(r, "xor." + type);
  one<Exchange, T>(r, "exch." + type);
  one<CompareSwap, T>(r, "cas." + type);
}

}  // namespace

void registerAtomic(Registry& r) {
  ordered<uint32_t>(r, "u32");
  ordered<int32_t>(r, "s32");
  ordered<uint64_t>(r, "u64");
  ordered<int64_t>(r, "s64");
  bits<uint32_t>(r, "b32");
  bits<uint64_t>(r, "b64");
  one<CompareSwap, uint16_t>(r, "cas.b16");
  one<Increment, uint32_t>(r, "inc.u32");
  one<Decrement, uint32_t>(r, "dec.u32");
  one<Add, float, FlushingAdd>(r, "add.f32");
  one<Add, double>(r, "add.f64");
  one<Add, F16>(r, "add.f16");
  one<Add, BF16>(r, "add.bf16");
  one<Add, F16x2>(r, "add.f16x2");
  one<Add, BF16x2>(r, "add.bf16x2");
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
