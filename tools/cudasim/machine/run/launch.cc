// A launch: checks of its shape, constant rows, threads that take blocks.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "../exec/registry.h"
#include "crew.h"
#include "launch_state.h"

namespace cudasim {

namespace {

// Steps in which a block used up its share before another one is started beside it.
constexpr uint32_t kPatience = 20;

std::mutex runMutex;
uint64_t nextRun = 1;
int activeLaunches = 0;

[[noreturn]] void refuse(const Launch& launch, Fault fault, const std::string& problem) {
  const std::string name = launch.kernel ? launch.kernel->name : "launch";
  throw SimError({.fault = fault, .message = name + ": " + faultName(fault) + ": " + problem, .kernel = name});
}

std::string triple(const Dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

void checkShape(const Device& device, const Launch& l) {
  if (!l.kernel) refuse(l, Fault::kBadLaunch, "no kernel");
  const DeviceLimits& limits = device.limits;
  const auto within = [](const Dim3& d, const Dim3& most) {
    return d.x && d.y && d.z && d.x <= most.x && d.y <= most.y && d.z <= most.z;
  };
  if (!within(l.grid, limits.maxGrid))
    refuse(l, Fault::kGridLimit, "grid " + triple(l.grid) + ", expected 1 to " + triple(limits.maxGrid));
  if (!within(l.block, limits.maxBlock) || l.block.count() > limits.maxThreadsPerBlock)
    refuse(l, Fault::kLaunchBounds,
           "block " + triple(l.block) + ", expected at most " + std::to_string(limits.maxThreadsPerBlock) + " threads");
  if (l.block.count() > l.kernel->maxThreads)
    refuse(l, Fault::kLaunchBounds,
           "block " + triple(l.block) + ", but the kernel's launch bounds allow " +
               std::to_string(l.kernel->maxThreads) + " threads");
  const Dim3& need = l.kernel->reqntid;
  if (need.count() && (need.x != l.block.x || need.y != l.block.y || need.z != l.block.z))
    refuse(l, Fault::kLaunchBounds, "block " + triple(l.block) + ", but the kernel requires " + triple(need));
  if (l.dynamicShared > l.maxDynamicShared)
    refuse(l, Fault::kSharedLimit,
           std::to_string(l.dynamicShared) + " bytes of dynamic shared memory, but the function's attribute allows " +
               std::to_string(l.maxDynamicShared));
  const uint64_t shared = uint64_t{l.dynamicShared} + l.kernel->staticShared;
  const bool optedIn = l.maxDynamicShared > limits.sharedPerBlock;
  if (shared > (optedIn ? limits.sharedPerBlockOptIn : limits.sharedPerBlock))
    refuse(l, Fault::kSharedLimit,
           std::to_string(shared) + " bytes of shared memory, expected at most " +
               std::to_string(optedIn ? limits.sharedPerBlockOptIn : limits.sharedPerBlock));
  if (l.params.size() < l.kernel->paramBytes)
    refuse(l, Fault::kBadLaunch,
           std::to_string(l.params.size()) + " bytes of parameters, expected " + std::to_string(l.kernel->paramBytes));
  if (l.cooperative) {
    const uint64_t warps = (l.block.count() + 31) / 32;
    uint64_t fit = std::min<uint64_t>(limits.blocksPerMultiprocessor, limits.threadsPerMultiprocessor / (warps * 32));
    if (shared) fit = std::min<uint64_t>(fit, limits.sharedPerMultiprocessor / shared);
    if (l.grid.count() > fit * limits.multiprocessors)
      refuse(l, Fault::kGridLimit,
             "cooperative grid of " + std::to_string(l.grid.count()) + " blocks, of which " +
                 std::to_string(fit * limits.multiprocessors) + " can be resident");
  }
}

void fillConstants(LaunchState& s) {
  const Program& p = s.program;
  s.constantStorage.resize(p.constantOffset(p.constants.size()) + 64);
  s.constants =
      reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(s.constantStorage.data()) + 63) & ~uintptr_t{63});
  for (size_t i = 0; i < p.constants.size(); ++i) {
    const Program::Constant& c = p.constants[i];
    uint64_t bits = c.bits;
    if (!c.symbol.empty()) {
      const uint64_t address = s.launch.instance ? s.launch.instance->address(c.symbol) : 0;
      if (!address)
        refuse(s.launch, Fault::kBadLaunch, "variable '" + c.symbol + "' has no address: no module instance");
      bits += address;
    }
    uint8_t* row = s.constants + p.constantOffset(i);
    for (int lane = 0; lane < 32; ++lane)
      if (c.wide)
        std::memcpy(row + lane * 8, &bits, 8);
      else
        std::memcpy(row + lane * 4, &bits, 4);
  }
}

void fillShared(LaunchState& s) {
  const Program& p = s.program;
  s.sharedBytes = p.sharedEnd + s.launch.dynamicShared;
  s.sharedTemplate.assign(s.sharedBytes, kRedZone);
  for (const Program::Placed& v : p.shared) std::fill_n(s.sharedTemplate.begin() + v.offset, v.bytes, kUnwritten);
  std::fill(s.sharedTemplate.begin() + p.sharedEnd, s.sharedTemplate.end(), kUnwritten);
}

int threadCount(const Options& options) {
  if (options.hostThreads > 0) return options.hostThreads;
  if (const char* asked = std::getenv("CUDASIM_THREADS")) return std::max(1, std::atoi(asked));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

void collect(LaunchState& s, const Worker& w, Counters& total) {
  total += w.counters;
  for (size_t i = 0; i < w.counts.size(); ++i) {
    const uint32_t opcode = s.program.origins[i].opcode;
    if (opcode == kHiddenOpcode || !w.counts[i].warps) continue;
    Counters::Count& c = total.ofOpcodes[opcode];
    c.warps += w.counts[i].warps;
    c.threads += w.counts[i].threads;
    total.warpInstructions += w.counts[i].warps;
    total.threadInstructions += w.counts[i].threads;
  }
}

// What a launch used is kept for the next ones: a worker's tables for its kernel, blocks for any.
std::unique_ptr<Worker> takeWorker(LaunchState& s) {
  SpareWorkers& spare = *s.program.spareWorkers;
  std::unique_ptr<Worker> worker;
  {
    const std::lock_guard lock(spare.mutex);
    if (!spare.workers.empty()) {
      worker = std::move(spare.workers.back());
      spare.workers.pop_back();
    }
  }
  if (!worker) worker = std::make_unique<Worker>(s.program);
  worker->start(s);
  return worker;
}

void keepWorker(LaunchState& s, std::unique_ptr<Worker> worker) {
  const std::lock_guard lock(s.program.spareWorkers->mutex);
  s.program.spareWorkers->workers.push_back(std::move(worker));
}

constexpr size_t kSpareBlocks = 16;
std::mutex spareMutex;
std::vector<std::unique_ptr<Block>> spareBlocks;

std::unique_ptr<Block> takeBlock() {
  const std::lock_guard lock(spareMutex);
  if (spareBlocks.empty()) return std::make_unique<Block>();
  std::unique_ptr<Block> block = std::move(spareBlocks.back());
  spareBlocks.pop_back();
  return block;
}

void keepBlock(std::unique_ptr<Block> block) {
  const std::lock_guard lock(spareMutex);
  if (spareBlocks.size() < kSpareBlocks) spareBlocks.push_back(std::move(block));
}

// What %envreg1 and %envreg2 point cooperative_groups at: its size, and the word of the grid's barrier.
class GridWorkspace {
 public:
  GridWorkspace(LaunchState& s) : memory_(*s.device.memory) {
    const auto& specials = s.program.specials;
    const bool used =
        std::any_of(specials.begin(), specials.end(), [](const auto& r) { return r.special == Special::kEnvreg2; });
    if (!used || !s.launch.cooperative) return;
    s.gridWorkspace = memory_.allocate(64, "grid workspace");
    if (!s.gridWorkspace) refuse(s.launch, Fault::kBadLaunch, "no memory for the grid's barrier");
    memory_.set(s.gridWorkspace, 0, 4, 16);
    memory_.set(s.gridWorkspace, 64, 4, 1);
    address_ = s.gridWorkspace;
  }
  ~GridWorkspace() {
    if (address_) memory_.release(address_);
  }
  GridWorkspace(const GridWorkspace&) = delete;
  GridWorkspace& operator=(const GridWorkspace&) = delete;

 private:
  Memory& memory_;
  uint64_t address_ = 0;
};

struct ActiveLaunch {
  uint64_t first;
  explicit ActiveLaunch(const Launch& launch) {
    const std::lock_guard lock(runMutex);
    const uint64_t blocks = launch.grid.count();
    if (nextRun + blocks > kLastRun) {
      // Numbers are used up. Nothing that runs may lose its own, and old shadows must not look new.
      if (activeLaunches || blocks > kLastRun / 2) refuse(launch, Fault::kGridLimit, "too many blocks in one process");
      nextRun = 1;
      ++shadowGeneration;
    }
    first = nextRun;
    nextRun += blocks;
    ++activeLaunches;
  }
  ~ActiveLaunch() {
    const std::lock_guard lock(runMutex);
    --activeLaunches;
  }
};

}  // namespace

Allocation* LaunchState::lookup(uint64_t address) const {
  if (Allocation* a = device.memory->lookup(address)) return a;
  for (const Memory* peer : device.peers)
    if (Allocation* a = peer->lookup(address)) return a;
  return nullptr;
}

Dim3 LaunchState::blockIndex(uint64_t run) const {
  const Dim3& g = launch.grid;
  const uint64_t linear = blockOrder.empty() ? run - firstRun : blockOrder[run - firstRun];
  return {static_cast<uint32_t>(linear % g.x), static_cast<uint32_t>(linear / g.x % g.y),
          static_cast<uint32_t>(linear / g.x / g.y)};
}

std::shared_ptr<SpareWorkers> makeSpareWorkers() { return std::make_shared<SpareWorkers>(); }

Worker::Worker(const Program& program) : counts(program.code.size()), sites(program.sites) {}

void Worker::start(LaunchState& l) {
  launch = &l;
  std::fill(counts.begin(), counts.end(), Counters::Count{});
  for (Site& site : sites) site.allocation = nullptr, site.shadow = nullptr;
  counters = {};
  ticks = 0;
}

bool Worker::startNext() {
  const uint64_t next = launch->nextBlock.fetch_add(1, std::memory_order_relaxed);
  if (next >= launch->blocks) return false;
  if (spare.empty()) spare.push_back(takeBlock());
  resident.push_back(std::move(spare.back()));
  spare.pop_back();
  resident.back()->start(*launch, *this, next);
  return true;
}

void Worker::run() {
  try {
    bool more = true;
    while (!launch->abort.load(std::memory_order_relaxed)) {
      const bool waits = !resident.empty() && std::all_of(resident.begin(), resident.end(),
                                                          [](const auto& b) { return b->spent >= kPatience; });
      if (more && (resident.empty() || waits || launch->launch.cooperative)) more = startNext();
      if (more && launch->launch.cooperative) continue;
      if (resident.empty()) {
        if (more) continue;
        break;
      }
      for (size_t i = 0; i < resident.size();) {
        if (resident[i]->step()) {
          ++i;
          continue;
        }
        spare.push_back(std::move(resident[i]));
        resident.erase(resident.begin() + static_cast<ptrdiff_t>(i));
      }
    }
  } catch (...) {
    const std::lock_guard lock(launch->mutex);
    if (!launch->error) launch->error = std::current_exception();
    launch->abort = true;
  }
  for (auto* list : {&resident, &spare}) {
    for (auto& block : *list) keepBlock(std::move(block));
    list->clear();
  }
}

Counters launch(Device& device, const Launch& l, const Options& options) {
  checkShape(device, l);
  const ActiveLaunch active(l);
  LaunchState s{.kernel = *l.kernel, .program = *l.kernel->program, .launch = l, .options = options, .device = device};
  s.firstRun = active.first;
  s.blocks = l.grid.count();
  s.params.resize(l.kernel->paramBytes);
  if (l.kernel->paramBytes) std::memcpy(s.params.data(), l.params.data(), l.kernel->paramBytes);
  const GridWorkspace workspace(s);
  fillConstants(s);
  fillShared(s);
  if (options.seed) {
    s.blockOrder.resize(s.blocks);
    std::iota(s.blockOrder.begin(), s.blockOrder.end(), 0u);
    Random random{options.seed};
    for (uint64_t i = s.blocks; i > 1; --i)
      std::swap(s.blockOrder[i - 1], s.blockOrder[random.below(static_cast<uint32_t>(i))]);
  }
  const uint64_t count = std::min<uint64_t>(static_cast<uint64_t>(threadCount(options)), s.blocks);
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint64_t i = 0; i < count; ++i) workers.push_back(takeWorker(s));
  runTogether(static_cast<int>(count), [&](int i) { workers[static_cast<size_t>(i)]->run(); });
  if (options.touched) {
    device.memory->collectTouched(s.firstRun, *options.touched);
    for (const Memory* peer : device.peers) peer->collectTouched(s.firstRun, *options.touched);
  }
  Counters total{.launches = 1, .blocks = s.blocks, .threads = s.blocks * l.block.count()};
  total.opcodes = s.program.opcodes;
  total.ofOpcodes.resize(total.opcodes->size());
  for (auto& w : workers) {
    collect(s, *w, total);
    keepWorker(s, std::move(w));
  }
  if (s.error) std::rethrow_exception(s.error);
  return total;
}

namespace {

void addOpcodes(Counters& to, const Counters& from) {
  if (!to.opcodes) to.opcodes = from.opcodes, to.ofOpcodes.resize(from.ofOpcodes.size());
  const bool same = to.opcodes == from.opcodes || *to.opcodes == *from.opcodes;
  if (!same) {  // kernels of one name from different texts
    const auto both = std::make_shared<std::vector<std::string>>(*to.opcodes);
    for (const std::string& name : *from.opcodes)
      if (std::find(both->begin(), both->end(), name) == both->end()) both->push_back(name);
    to.opcodes = both;
    to.ofOpcodes.resize(both->size());
  }
  for (size_t i = 0; i < from.ofOpcodes.size(); ++i) {
    const auto at = same ? to.opcodes->begin() + static_cast<ptrdiff_t>(i)
                         : std::find(to.opcodes->begin(), to.opcodes->end(), (*from.opcodes)[i]);
    Counters::Count& count = to.ofOpcodes[static_cast<size_t>(at - to.opcodes->begin())];
    count.warps += from.ofOpcodes[i].warps;
    count.threads += from.ofOpcodes[i].threads;
  }
}

}  // namespace

std::map<std::string, Counters::Count> Counters::byOpcode() const {
  std::map<std::string, Count> result;
  for (size_t i = 0; i < ofOpcodes.size(); ++i)
    if (ofOpcodes[i].warps) result[(*opcodes)[i]] = ofOpcodes[i];
  return result;
}

Counters& Counters::operator+=(const Counters& o) {
  launches += o.launches, blocks += o.blocks, threads += o.threads;
  warpInstructions += o.warpInstructions, threadInstructions += o.threadInstructions;
  if (o.opcodes) addOpcodes(*this, o);
  globalBytesLoaded += o.globalBytesLoaded, globalBytesStored += o.globalBytesStored;
  globalDistinctLoaded += o.globalDistinctLoaded, globalDistinctStored += o.globalDistinctStored;
  globalLoadRequests += o.globalLoadRequests, globalStoreRequests += o.globalStoreRequests;
  globalLoadSectors += o.globalLoadSectors, globalStoreSectors += o.globalStoreSectors;
  sharedBytesLoaded += o.sharedBytesLoaded, sharedBytesStored += o.sharedBytesStored;
  sharedLoadRequests += o.sharedLoadRequests, sharedStoreRequests += o.sharedStoreRequests;
  sharedLoadWavefronts += o.sharedLoadWavefronts, sharedStoreWavefronts += o.sharedStoreWavefronts;
  sharedIdealWavefronts += o.sharedIdealWavefronts;
  barriers += o.barriers, atomics += o.atomics, divergentBranches += o.divergentBranches;
  return *this;
}

}  // namespace cudasim
