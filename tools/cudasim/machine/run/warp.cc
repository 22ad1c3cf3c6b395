#include "warp.h"

#include <algorithm>
#include <bit>

#include "launch_state.h"

namespace cudasim {

uint64_t Warp::run(uint64_t budget) {
  const Program& program = block->launch->program;
  const Insn* code = program.code.data();
  Counters::Count* counts = worker->counts.data();
  uint64_t left = budget;
  stopped = false;
  if (!resume()) return 0;
  while (left) {
    if (pc == reconverge) {
      leave();
      if (stopped) break;
      continue;
    }
    --left;
    const Insn& in = code[pc];
    const uint32_t exec = active & (predicates[in.guard] ^ in.guardFlip);
    Counters::Count& count = counts[pc];
    ++count.warps;
    count.threads += static_cast<uint64_t>(std::popcount(exec));
    ++pc;
    if (exec | in.control) {
      in.run(*this, in, exec);
      if (stopped) break;
    }
  }
  if (current >= 0) {  // used up its share: another group of a warp that spins gets its turn
    Group& g = groups[current];
    g.pc = pc;
    g.lanes = active;
    g.state = Group::kReady;
    current = -1;
  }
  return budget - left;
}

bool Warp::runnable() const {
  return std::any_of(groups.begin(), groups.end(), [](const Group& g) { return g.state == Group::kReady; });
}

int Warp::newGroup() {
  for (size_t i = 0; i < groups.size(); ++i)
    if (groups[i].state == Group::kFree) return static_cast<int>(i);
  groups.emplace_back();
  return static_cast<int>(groups.size() - 1);
}

void Warp::load(int group) {
  Group& g = groups[group];
  current = group;
  pc = g.pc;
  active = g.lanes;
  reconverge = g.reconverge;
}

bool Warp::resume() {
  const size_t n = groups.size();
  const size_t first = n > 1 ? block->random.below(static_cast<uint32_t>(n)) : 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t g = (first + i) % n;
    if (groups[g].state == Group::kReady) {
      load(static_cast<int>(g));
      return true;
    }
  }
  current = -1;
  active = 0;
  stopped = true;
  return false;
}

void Warp::wait(Group::State state) {
  Group& g = groups[current];
  g.state = state;
  g.pc = pc;
  g.lanes = active;
  resume();
}

// A join that waits for nobody runs on, or is gone, too, when no lane arrived.
void Warp::joinChildGone(int join) {
  while (join >= 0) {
    Group& j = groups[join];
    if (--j.children) break;
    if (j.lanes) {
      j.state = Group::kReady;
      break;
    }
    j.state = Group::kFree;
    join = j.parent;
  }
}

void Warp::leave() {
  Group& g = groups[current];
  const int parent = g.parent;
  g.state = Group::kFree;
  if (parent >= 0) {
    groups[parent].lanes |= active;
    joinChildGone(parent);
  }
  // The join first, as it likely holds the most lanes.
  if (parent >= 0 && groups[parent].state == Group::kReady) return load(parent);
  resume();
}

void Warp::branch(uint32_t taken, uint32_t target, uint32_t meet) {
  const uint32_t lanes[2] = {taken, active & ~taken};
  const uint32_t targets[2] = {target, pc};
  split(lanes, targets, 2, meet);
}

void Warp::split(const uint32_t* lanes, const uint32_t* targets, int count, uint32_t meet) {
  ++worker->counters.divergentBranches;
  int join = groups[current].parent;
  const int old = current;
  if (meet != reconverge || join < 0) {
    groups[old].state = Group::kJoin;
    groups[old].pc = meet;
    groups[old].lanes = 0;
    groups[old].children = 0;
    join = old;
  } else {
    groups[old].state = Group::kFree;
    --groups[join].children;
  }
  int ready = -1;
  for (int i = 0; i < count; ++i) {
    if (!lanes[i]) continue;
    if (targets[i] == meet) {
      groups[join].lanes |= lanes[i];
      continue;
    }
    const int g = newGroup();
    groups[g] = {.state = Group::kReady,
                 .parent = static_cast<int16_t>(join),
                 .pc = targets[i],
                 .reconverge = meet,
                 .lanes = lanes[i]};
    ++groups[join].children;
    if (ready < 0 || (worker->launch->options.seed && block->random.below(2))) ready = g;
  }
  load(ready);
}

void Warp::exit(uint32_t lanes) {
  alive &= ~lanes;
  exited |= lanes;
  active &= ~lanes;
  block->exited += static_cast<uint32_t>(std::popcount(lanes));
  for (Group& g : groups)  // a mask does not ask for lanes that have ended: look again
    if (g.state == Group::kAtSync) g.state = Group::kReady, --g.pc;
  if (!active) leave();
}

uint32_t Warp::meet(const Insn& in, uint32_t exec, const uint32_t* masks, bool sameInstruction) {
  uint32_t wanted = masks ? 0 : ~0u;
  for (uint32_t m = masks ? exec : 0; m; m &= m - 1) {
    const int lane = std::countr_zero(m);
    wanted |= masks[lane];
    if (!(masks[lane] >> lane & 1))
      fault(Fault::kBadMemberMask, in, lane, "lane " + std::to_string(lane) + " is not in its own member mask");
  }
  uint32_t missing = wanted & alive & ~exec;
  if (!missing) return exec;
  if (missing & active) {
    fault(Fault::kBadMemberMask, in, std::countr_zero(exec),
          "lane " + std::to_string(std::countr_zero(missing & active)) +
              " is in the member mask, but its predicate skips the instruction");
    return exec;
  }
  const auto partner = [&](const Group& g) {
    return g.state == Group::kAtSync && (sameInstruction ? g.pc == pc : g.mask == wanted);
  };
  for (const Group& g : groups)
    if (partner(g)) missing &= ~g.exec;
  if (!missing) {
    for (Group& g : groups)
      if (partner(g)) exec |= g.exec, g.state = Group::kReady;
    return exec;
  }
  groups[current].mask = wanted;
  groups[current].exec = exec;
  wait(Group::kAtSync);
  return 0;
}

uint64_t Warp::key() const { return block->run << kBlockShift | uint64_t{block->time} << kTimeShift | firstThread; }

void Warp::syncLanes(uint32_t lanes) {
  const uint32_t before = block->time;
  block->tick();
  if ((lanes & alive) == alive) {
    syncTime = before + 1;
    return;
  }
  if (laneSync.empty()) laneSync.assign(32 * 32, 0);
  // Everyone who met knows what any of them knew.
  std::array<uint32_t, 32> known{};
  for (uint32_t m = lanes; m; m &= m - 1)
    for (int other = 0; other < 32; ++other)
      known[other] = std::max(known[other], laneSync[static_cast<size_t>(std::countr_zero(m)) * 32 + other]);
  for (uint32_t m = lanes; m; m &= m - 1) known[std::countr_zero(m)] = before + 1;
  for (uint32_t m = lanes; m; m &= m - 1)
    std::copy(known.begin(), known.end(), laneSync.begin() + std::countr_zero(m) * 32);
}

bool Warp::ordered(uint64_t entry, int lane) const {
  const uint32_t other = entryThread(entry), time = entryTime(entry);
  const Options& options = block->launch->options;
  if (block->orderLost) return true;
  const auto through = [&](bool device) {
    const uint32_t me = firstThread + static_cast<uint32_t>(lane);
    for (const Acquired& a : block->acquired) {
      const bool mine = a.thread == me || a.time < block->barrierTime || (a.thread / 32 == index && a.time < syncTime);
      if (mine && a.table->covers(a.key, a.position, entryBlock(entry), other, time, device)) return true;
    }
    return false;
  };
  if (entryBlock(entry) == block->run) {
    if (other == firstThread + static_cast<uint32_t>(lane)) return true;
    if (time < block->barrierTime) return true;
    if (other / 32 == index) {
      if (!options.checkLanes || time < syncTime) return true;
      if (!laneSync.empty() && time < laneSync[static_cast<size_t>(lane) * 32 + other % 32]) return true;
    } else if (!block->warpSync.empty() && time < block->warpSync[index * block->warps.size() + other / 32]) {
      return true;
    }
    return through(false);
  }
  return through(true);
}

void Warp::fence(uint32_t lanes, bool device) {
  Fence fence{.time = block->time, .barrierTime = block->barrierTime, .warpTime = syncTime, .known = {}};
  block->tick();
  hasFenced = true;
  if (!block->acquired.empty()) fence.known = std::make_shared<AcquiredList>(block->acquired);
  for (uint32_t m = lanes; m; m &= m - 1) {
    const int lane = std::countr_zero(m);
    blockFence[lane] = fence;
    if (device) deviceFence[lane] = fence;
  }
}

void Warp::publish(int lane, SyncTable& table, uint64_t where, bool device) {
  const auto put = [&](const Fence& f, bool reaches) {
    if (!f.time) return;
    table.publish(where, {.block = block->run,
                          .thread = firstThread + static_cast<uint32_t>(lane),
                          .time = f.time,
                          .barrierTime = f.barrierTime,
                          .warpTime = f.warpTime,
                          .device = reaches,
                          .known = f.known});
  };
  if (device) put(deviceFence[lane], true);
  if (!device || blockFence[lane].time != deviceFence[lane].time) put(blockFence[lane], false);
}

void Warp::acquire(int lane, const SyncTable& table, uint64_t where) {
  const size_t position = table.position(where);
  if (!position) return;
  const uint32_t me = firstThread + static_cast<uint32_t>(lane);
  for (const Acquired& a : block->acquired)
    if (a.thread == me && a.key == where && a.table == &table && a.position == position) return;
  block->acquired.push_back({&table, where, position, me, block->time});
}

}  // namespace cudasim
