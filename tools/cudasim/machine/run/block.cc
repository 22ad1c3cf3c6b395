#include "block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "launch_state.h"

namespace cudasim {

namespace {

constexpr uint64_t kShare = 20000;  // instructions that a warp runs before others get their turn

template <class T>
T* aligned(std::vector<uint8_t>& storage, size_t bytes) {
  if (storage.size() < bytes + 64) storage.assign(bytes + 64, 0);
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(storage.data()) + 63) & ~uintptr_t{63});
}

}  // namespace

Block::Block() = default;
Block::~Block() = default;

void Warp::start(Block& b, uint32_t number) {
  block = &b;
  worker = b.worker;
  index = number;
  firstThread = number * 32;
  const uint32_t lanes = std::min(b.threads - firstThread, 32u);
  existing = alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
  exited = 0;
  carry = 0;
  syncTime = 0;
  laneSync.clear();
  if (std::exchange(hasFenced, false)) {
    blockFence.fill({});
    deviceFence.fill({});
  }
  copies.clear();
  commits.fill(0);
  groups.assign(1, {.state = Group::kReady, .lanes = existing});
  current = -1;
}

void Block::start(LaunchState& l, Worker& w, uint64_t order) {
  launch = &l;
  worker = &w;
  const Program& p = l.program;
  run = l.firstRun + order;
  index = l.blockIndex(run);
  threads = static_cast<uint32_t>(l.launch.block.count());
  exited = 0;
  spent = 0;
  time = barrierTime = 1;
  orderLost = false;
  warpSync.clear();
  acquired.clear();
  barriers.fill({});
  sync.clear();

  const uint32_t count = (threads + 31) / 32;
  warps.resize(count);
  uint8_t* registers = aligned<uint8_t>(registers_, size_t{count} * p.registerBytes);
  predicates_.assign(size_t{count} * p.predicates, 0);
  defined_.assign(size_t{count} * p.tracked, 0);
  const size_t localBytes = size_t{p.localEnd} * 32;
  uint8_t* local = aligned<uint8_t>(local_, count * localBytes);
  uint8_t* localValid = aligned<uint8_t>(localValid_, count * localBytes);
  if (localBytes) {
    std::memset(localValid, kRedZone, localBytes);
    for (const Program::Placed& v : p.local)
      for (uint32_t at = v.offset; at < v.offset + v.bytes; ++at)
        for (uint32_t lane = 0; lane < 32; ++lane) localValid[(at / 4 * 32 + lane) * 4 + at % 4] = kUnwritten;
    for (uint32_t i = 1; i < count; ++i) std::memcpy(localValid + i * localBytes, localValid, localBytes);
  }
  for (uint32_t i = 0; i < count; ++i) {
    Warp& warp = warps[i];
    warp.start(*this, i);
    warp.base[0] = registers + size_t{i} * p.registerBytes;
    warp.base[1] = l.constants;
    warp.predicates = predicates_.data() + size_t{i} * p.predicates;
    warp.predicates[kTrueSlot] = ~0u;
    warp.defined = defined_.data() + size_t{i} * p.tracked;
    warp.local = local + i * localBytes;
    warp.localValid = localValid + i * localBytes;
    fillSpecials(warp);
  }
  random.state = l.options.seed * 0x9e3779b97f4a7c15 + order;
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0);

  sharedData.resize(l.sharedBytes + 64);
  sharedValid.resize(l.sharedBytes + 64);
  std::memcpy(sharedValid.data(), l.sharedTemplate.data(), l.sharedBytes);
  shared = {.data = sharedData.data(), .valid = sharedValid.data(), .size = l.sharedBytes, .shift = p.sharedShift};
  if (l.options.checkRaces && l.sharedBytes) {
    // Entries of other kernels, by other granules, are older than this block, too; but a host thread that was held up
    // may get here with the number of a block that began before those of others, which have ended meanwhile.
    if (!sharedShadow || newestInShadow > run || !sharedShadow->holds(l.sharedBytes, p.sharedShift))
      sharedShadow = std::make_unique<RaceShadow>(l.sharedBytes, p.sharedShift);
    newestInShadow = run;
    shared.writers = sharedShadow->writers, shared.readers = sharedShadow->readers;
  }
}

void Block::fillSpecials(Warp& warp) {
  const Dim3& size = launch->launch.block;
  const Dim3& grid = launch->launch.grid;
  for (const auto& [special, row] : launch->program.specials) {
    uint32_t* out = warp.row<uint32_t>(row);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t t = warp.firstThread + lane, bit = 1u << lane;
      switch (special) {
        case Special::kTidX:
          out[lane] = t % size.x;
          break;
        case Special::kTidY:
          out[lane] = t / size.x % size.y;
          break;
        case Special::kTidZ:
          out[lane] = t / size.x / size.y;
          break;
        case Special::kNtidX:
          out[lane] = size.x;
          break;
        case Special::kNtidY:
          out[lane] = size.y;
          break;
        case Special::kNtidZ:
          out[lane] = size.z;
          break;
        case Special::kCtaidX:
          out[lane] = index.x;
          break;
        case Special::kCtaidY:
          out[lane] = index.y;
          break;
        case Special::kCtaidZ:
          out[lane] = index.z;
          break;
        case Special::kNctaidX:
          out[lane] = grid.x;
          break;
        case Special::kNctaidY:
          out[lane] = grid.y;
          break;
        case Special::kNctaidZ:
          out[lane] = grid.z;
          break;
        case Special::kLaneid:
          out[lane] = lane;
          break;
        case Special::kWarpid:
          out[lane] = warp.index;
          break;
        case Special::kNwarpid:
          out[lane] = launch->device.limits.threadsPerMultiprocessor / 32;
          break;
        case Special::kSmid:
          out[lane] = static_cast<uint32_t>((run - launch->firstRun) % launch->device.limits.multiprocessors);
          break;
        case Special::kNsmid:
          out[lane] = launch->device.limits.multiprocessors;
          break;
        case Special::kGridid:
          out[lane] = 1;
          break;
        case Special::kLanemaskEq:
          out[lane] = bit;
          break;
        case Special::kLanemaskLe:
          out[lane] = bit | (bit - 1);
          break;
        case Special::kLanemaskLt:
          out[lane] = bit - 1;
          break;
        case Special::kLanemaskGe:
          out[lane] = ~(bit - 1);
          break;
        case Special::kLanemaskGt:
          out[lane] = ~(bit | (bit - 1));
          break;
        case Special::kDynamicSmemSize:
          out[lane] = launch->launch.dynamicShared;
          break;
        case Special::kTotalSmemSize:
          out[lane] = launch->launch.dynamicShared + launch->kernel.staticShared;
          break;
        case Special::kEnvreg1:
          out[lane] = static_cast<uint32_t>(launch->gridWorkspace >> 32);
          break;
        case Special::kEnvreg2:
          out[lane] = static_cast<uint32_t>(launch->gridWorkspace);
          break;
        default:
          break;  // clocks are read by an instruction of their own
      }
    }
  }
}

void Block::tick() {
  if (time < kLastTime)
    ++time;
  else
    orderLost = true;
}

bool Block::step() {
  if (launch->options.seed)
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(static_cast<uint32_t>(i))]);
  bool ran = false, full = false, left = false;
  uint64_t instructions = 0;
  for (const uint32_t i : order_) {
    Warp& warp = warps[i];
    if (warp.done() || !warp.runnable()) continue;
    const uint64_t did = warp.run(kShare);
    instructions += did;
    full |= did == kShare;
    ran = true;
  }
  for (const Warp& warp : warps) left |= !warp.done();
  spent += full;
  const uint64_t total = launch->instructions.fetch_add(instructions, std::memory_order_relaxed) + instructions;
  if (left && total > launch->options.watchdog) {
    for (const Warp& warp : warps) {
      if (warp.done()) continue;
      for (const Group& g : warp.groups)
        if (g.state == Group::kReady && g.pc < launch->program.code.size()) {
          warp.fault(Fault::kWatchdog, launch->program.code[g.pc], std::countr_zero(g.lanes),
                     "still running after " + std::to_string(total) + " warp instructions of this launch");
          return false;
        }
    }
  }
  if (left && !ran) return reportStuck();
  return left;
}

void Block::arrive(Warp& warp, const Insn& in, uint32_t id, uint32_t expected, uint32_t lanes, bool waits,
                   uint32_t truths) {
  const int lane = std::countr_zero(lanes);
  if (id >= barriers.size())
    return warp.fault(Fault::kBarrierMismatch, in, lane, "barrier " + std::to_string(id) + " of 16");
  const bool whole = expected == 0 || expected == (threads + 31) / 32 * 32;
  if (expected % 32)
    warp.fault(Fault::kBarrierMismatch, in, lane, std::to_string(expected) + " threads, which are no whole warps");
  Barrier& b = barriers[id];
  const uint32_t awaited = whole ? threads : expected;
  if (b.expected && b.expected != awaited)
    warp.fault(Fault::kBarrierMismatch, in, lane,
               "barrier " + std::to_string(id) + " for " + std::to_string(awaited) +
                   " threads, but others wait there for " + std::to_string(b.expected));
  b.expected = awaited;
  b.whole = whole;
  // A warp with absent lanes counts in full where the number of threads was given in warps.
  b.arrived += static_cast<uint32_t>(std::popcount(whole || lanes != warp.existing ? lanes : ~0u));
  b.warps |= 1u << warp.index;
  b.time[warp.index] = time;
  b.count += static_cast<uint32_t>(std::popcount(truths));
  ++worker->counters.barriers;
  if (waits) {
    b.waiting |= 1u << warp.index;
    warp.groups[warp.current].barrier = id;
    warp.wait(Group::kAtBarrier);
  } else {
    tick();  // what this warp does from now on came after its arrival
  }
  if (b.arrived >= b.expected) open(id);
}

void Block::open(uint32_t id) {
  Barrier& b = barriers[id];
  tick();
  if (b.whole) {
    barrierTime = time;
  } else {
    const size_t n = warps.size();
    if (warpSync.empty()) warpSync.assign(n * n, 0);
    std::vector<uint32_t> known(n, 0);
    for (size_t u = 0; u < n; ++u) {
      if (!(b.warps >> u & 1)) continue;
      for (size_t v = 0; v < n; ++v) known[v] = std::max(known[v], warpSync[u * n + v]);
    }
    for (size_t u = 0; u < n; ++u)
      if (b.warps >> u & 1) known[u] = std::max(known[u], b.time[u] + 1);
    for (size_t w = 0; w < n; ++w) {
      if (!(b.waiting >> w & 1)) continue;
      std::copy(known.begin(), known.end(), warpSync.begin() + static_cast<ptrdiff_t>(w * n));
      warps[w].syncTime = time;
    }
  }
  for (Warp& warp : warps)
    for (Group& g : warp.groups)
      if (g.state == Group::kAtBarrier && g.barrier == id) g.state = Group::kReady;
  const uint32_t result = b.count;
  b = {};
  b.result = result;
}

// Nobody can run: say what they wait for.
bool Block::reportStuck() {
  const Insn* code = launch->program.code.data();
  for (const Warp& warp : warps)
    for (const Group& g : warp.groups)
      if (g.state == Group::kAtSync) {
        char mask[48];
        std::snprintf(mask, sizeof mask, "0x%08x, but lanes 0x%08x", g.mask, g.mask & warp.alive & ~g.exec);
        warp.fault(Fault::kBadMemberMask, code[g.pc - 1], std::countr_zero(g.exec),
                   std::string("the member mask is ") + mask + " of it never come here");
        return false;
      }
  for (const Warp& warp : warps)
    for (const Group& g : warp.groups)
      if (g.state == Group::kAtBarrier) {
        const Barrier& b = barriers[g.barrier];
        warp.fault(exited ? Fault::kExitedBarrier : Fault::kBarrierMismatch, code[g.pc - 1], std::countr_zero(g.lanes),
                   "barrier " + std::to_string(g.barrier) + " waits for " + std::to_string(b.expected) +
                       " threads and " + std::to_string(b.arrived) + " came" +
                       (exited ? "; " + std::to_string(exited) + " threads of the block have ended" : ""));
        return false;
      }
  return false;
}

}  // namespace cudasim
