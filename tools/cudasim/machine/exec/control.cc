// Branches, exits, barriers, fences; special registers that change; the masks of defined registers.
#include "control.h"

#include <chrono>

#include "../run/launch_state.h"
#include "access.h"
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

void bra(Warp& w, const Insn& in, uint32_t exec) {
  const auto target = static_cast<uint32_t>(in.imm);
  if (exec == w.active)
    w.pc = target;
  else if (exec)
    w.branch(exec, target, in.reconverge);
}

void brx(Warp& w, const Insn& in, uint32_t exec) {
  if (!exec) return;
  const uint32_t* index = w.row<uint32_t>(in.r[0]);
  uint32_t lanes[33], targets[33];
  int count = 0;
  const auto put = [&](uint32_t lane, uint32_t target) {
    int at = 0;
    while (at < count && targets[at] != target) ++at;
    if (at == count) targets[count] = target, lanes[count++] = 0;
    lanes[at] |= 1u << lane;
  };
  eachLane(exec, [&](int i) {
    if (index[i] >= static_cast<uint64_t>(in.imm)) {
      w.fault(Fault::kUndefinedResult, in, i,
              "index " + std::to_string(index[i]) + " of " + std::to_string(in.imm) + " targets");
      put(static_cast<uint32_t>(i), in.more[0]);
    } else {
      put(static_cast<uint32_t>(i), in.more[index[i]]);
    }
  });
  eachLane(w.active & ~exec, [&](int i) { put(static_cast<uint32_t>(i), w.pc); });
  if (count == 1)
    w.pc = targets[0];
  else
    w.split(lanes, targets, count, in.reconverge);
}

void exitLanes(Warp& w, const Insn&, uint32_t exec) { w.exit(exec); }

void trap(Warp& w, const Insn& in, uint32_t exec) {
  w.fault(Fault::kTrap, in, std::countr_zero(exec), "the kernel stopped itself");
  w.exit(exec);
}

void nop(Warp&, const Insn&, uint32_t) {}

// A barrier's number and count are the same in all lanes.
uint32_t uniform(Warp& w, const Insn& in, int slot, uint32_t exec) {
  const uint32_t* row = w.row<uint32_t>(in.r[slot]);
  const int first = std::countr_zero(exec);
  eachLane(exec, [&](int i) {
    if (row[i] != row[first])
      w.fault(Fault::kBarrierMismatch, in, i, "lanes of a warp name different barriers or counts");
  });
  return row[first];
}

void bar(Warp& w, const Insn& in, uint32_t exec) {
  if ((in.sub & kBarAligned) && exec != w.alive) {
    const uint32_t away = w.alive & ~exec;
    w.fault(Fault::kDivergentBarrier, in, std::countr_zero(exec),
            "lane " + std::to_string(std::countr_zero(away)) + " of the warp, thread " +
                w.thread(std::countr_zero(away)) + ", is elsewhere");
  }
  const uint32_t id = uniform(w, in, 0, exec), count = in.sub & kBarCount ? uniform(w, in, 1, exec) : 0;
  uint32_t truths = 0;
  if (in.sub & kBarReduce) truths = (w.predicates[in.r[2]] ^ (in.sub & kBarNegated ? ~0u : 0)) & exec;
  w.block->arrive(w, in, id, count, exec, !(in.sub & kBarArrive), truths);
}

void barResult(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t id = uniform(w, in, 0, exec) % 16;
  const uint32_t asked = in.sub & kBarCount ? uniform(w, in, 1, exec) : w.block->threads;
  const uint32_t truths = w.block->barriers[id].result, threads = std::min(asked, w.block->threads);
  if (in.sub & (kBarAnd | kBarOr)) {
    const bool result = in.sub & kBarAnd ? truths == threads : truths != 0;
    uint32_t& d = w.predicates[in.r[2]];
    d = (d & ~exec) | (result ? exec : 0);
  } else {
    uint32_t* d = w.row<uint32_t>(in.r[2]);
    eachLane(exec, [&](int i) { d[i] = truths; });
  }
}

void syncWarp(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t* masks = w.row<uint32_t>(in.r[0]);
  const uint32_t mask = masks[std::countr_zero(exec)];
  bool same = true;
  eachLane(exec, [&](int i) { same &= masks[i] == mask; });
  const uint32_t lanes = w.meet(in, exec, masks, false);
  if (!lanes) return;
  if (same) return w.syncLanes(lanes);
  for (uint32_t rest = exec; rest;) {
    const uint32_t group = masks[std::countr_zero(rest)] & exec;
    w.syncLanes(group);
    rest &= ~(group | (rest & -rest));
  }
}

void fence(Warp& w, const Insn& in, uint32_t exec) { w.fence(exec, in.sub & kDeviceScope); }

void activeMask(Warp& w, const Insn& in, uint32_t exec) {
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  eachLane(exec, [&](int i) { d[i] = exec; });
}

// Clocks count instructions: they grow, and no run depends on the host's speed. The timer is the host's.
void clock(Warp& w, const Insn& in, uint32_t exec) {
  const auto what = static_cast<Special>(in.sub);
  uint64_t value = w.worker->ticks += 8;
  if (what == Special::kGlobaltimer || what == Special::kGlobaltimerLo || what == Special::kGlobaltimerHi)
    value = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  if (what == Special::kClockHi || what == Special::kGlobaltimerHi) value >>= 32;
  eachLane(exec, [&](int i) {
    if (what == Special::kClock64 || what == Special::kGlobaltimer)
      w.row<uint64_t>(in.r[0])[i] = value;
    else
      w.row<uint32_t>(in.r[0])[i] = static_cast<uint32_t>(value);
  });
}

void isSpace(Warp& w, const Insn& in, uint32_t exec) {
  const uint64_t* a = w.row<uint64_t>(in.r[1]);
  uint32_t bits = 0;
  for (uint32_t i = 0; i < 32; ++i) {
    const uint64_t window = a[i] & kWindowMask;
    const uint64_t wanted = in.sub == 1 ? kSharedWindow : in.sub == 2 ? kLocalWindow : in.sub == 3 ? kParamWindow : 0;
    bool in_space = window == wanted;
    if (in.sub == 0 || in.sub == 4) {
      const Allocation* found = in_space ? w.block->launch->lookup(a[i]) : nullptr;
      const bool constant = found && found->readOnly;
      in_space &= constant == (in.sub == 4);
    }
    bits |= (in_space ? 1u : 0u) << i;
  }
  uint32_t& d = w.predicates[in.r[0]];
  d = (d & ~exec) | (bits & exec);
}

void checkDefined(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t missing = exec & ~w.defined[in.r[0]];
  if (missing && w.block->launch->options.checkInitialized)
    w.fault(Fault::kUninitializedRegister, in, std::countr_zero(missing),
            "a register is read that this thread has not written");
}

void markDefined(Warp& w, const Insn& in, uint32_t exec) { w.defined[in.r[0]] |= exec; }

void copyDefined(Warp& w, const Insn& in, uint32_t exec) {
  w.defined[in.r[0]] = (w.defined[in.r[0]] & ~exec) | (w.defined[in.r[1]] & exec);
}

}  // namespace

void registerControl(Registry& r) {
  r.add("@bra", &bra);
  r.add("@brx", &brx);
  r.add("@exit", &exitLanes);
  r.add("@trap", &trap);
  r.add("@nop", &nop);
  r.add("@bar", &bar);
  r.add("@bar.result", &barResult);
  r.add("@syncwarp", &syncWarp);
  r.add("@fence", &fence);
  r.add("@activemask", &activeMask);
  r.add("@clock", &clock);
  r.add("@isspacep", &isSpace);
  r.add("@checkDefined", &checkDefined);
  r.add("@markDefined", &markDefined);
  r.add("@copyDefined", &copyDefined);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
