// What is wrong with an access, in words.
#include <algorithm>
#include <bit>

#include "launch_state.h"

namespace cudasim {

namespace {

std::string triple(const Dim3& d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

Dim3 threadIndex(const Dim3& block, uint32_t linear) {
  return {linear % block.x, linear / block.x % block.y, linear / block.x / block.y};
}

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// The variable of shared memory at an offset.
std::string sharedName(const Program& p, uint64_t offset) {
  for (const Program::Placed& v : p.shared) {
    if (offset < v.offset || offset >= v.offset + v.bytes + kSharedRedZone) continue;
    const uint64_t at = offset - v.offset;
    if (at < v.bytes)
      return "byte " + std::to_string(at) + " of '" + v.name + "' (" + std::to_string(v.bytes) + " bytes)";
    return std::to_string(at - v.bytes) + " bytes past the end of '" + v.name + "' (" + std::to_string(v.bytes) +
           " bytes)";
  }
  if (offset >= p.sharedEnd) return "byte " + std::to_string(offset - p.sharedEnd) + " of dynamic shared memory";
  return "before the first variable";
}

}  // namespace

std::string Warp::thread(int lane) const {
  return triple(threadIndex(block->launch->launch.block, firstThread + static_cast<uint32_t>(lane)));
}

std::string Warp::who(uint64_t entry) const {
  const LaunchState& launch = *block->launch;
  std::string result = "thread " + triple(threadIndex(launch.launch.block, entryThread(entry)));
  if (entryBlock(entry) != block->run) result += " of block " + triple(launch.blockIndex(entryBlock(entry)));
  return result;
}

void Warp::fault(Fault fault, const Insn& in, int lane, const std::string& problem, uint64_t address) const {
  LaunchState& launch = *block->launch;
  const auto at = static_cast<uint32_t>(&in - launch.program.code.data());
  const int line = launch.program.origins[at].line;
  if (launch.options.findings) {
    const std::lock_guard lock(launch.mutex);
    if (!launch.seen.insert({at, fault}).second) return;
  }
  Finding f{.fault = fault,
            .message = launch.kernel.name + ": " + faultName(fault) + ": " + problem + "; block " +
                       triple(block->index) + ", thread " + thread(lane) + ", PTX line " + std::to_string(line) + ": " +
                       std::string(launch.program.lineText(line)),
            .kernel = launch.kernel.name,
            .block = block->index,
            .thread = threadIndex(launch.launch.block, firstThread + static_cast<uint32_t>(lane)),
            .line = line,
            .address = address};
  if (!launch.options.findings) throw SimError(std::move(f));
  const std::lock_guard lock(launch.mutex);
  launch.options.findings->push_back(std::move(f));
}

void Warp::badAddress(const Insn& in, int lane, uint64_t address, uint32_t bytes, bool store) const {
  const Device& device = block->launch->device;
  const std::string what =
      std::string(store ? "writes " : "reads ") + std::to_string(bytes) + " bytes at " + hex(address);
  const uint64_t window = address & kWindowMask;
  if (window == kSharedWindow || window == kLocalWindow || window == kParamWindow) {
    const char* name = window == kSharedWindow ? "shared" : window == kLocalWindow ? "local" : "parameter";
    return fault(Fault::kOutOfBounds, in, lane, what + ", a generic address of " + name + " memory", address);
  }
  if (const Allocation* a = block->launch->lookup(address)) {
    const Memory* owner = Memory::ownerOf(address);
    return fault(a->live ? Fault::kOutOfBounds : Fault::kUseAfterFree, in, lane,
                 what + ", " + (owner ? *owner : *device.memory).describe(address), address);
  }
  const Memory* owner = Memory::ownerOf(address);
  const bool visible =
      owner == device.memory || std::find(device.peers.begin(), device.peers.end(), owner) != device.peers.end();
  if (owner && !visible)
    return fault(Fault::kPeerAccess, in, lane,
                 what + " of device " + std::to_string(owner->device()) + ", to which access is not enabled; it is " +
                     owner->describe(address),
                 address);
  if (owner || address < 4096)
    return fault(Fault::kOutOfBounds, in, lane, what + ", " + device.memory->describe(address), address);
  fault(Fault::kHostDereference, in, lane, what + ", which is no address of a device", address);
}

namespace {

// Entries below are from before: an earlier launch, or an earlier block's shared memory.
uint64_t firstRun(const Warp& w, const Region& region) {
  return region.global ? w.block->launch->firstRun : w.block->run;
}

bool atomicWith(const Warp& w, Strength strength, uint64_t entry) {
  if (strength == Strength::kWeak || !(entry & kStrong)) return false;
  return strength == Strength::kDevice || entryBlock(entry) == w.block->run;
}

Fault raceKind(const Warp& w, const Region& region, uint64_t entry) {
  if (entryBlock(entry) != w.block->run) return Fault::kRaceBlocks;
  if (entryThread(entry) / 32 == w.index) return Fault::kRaceLanes;
  return region.global ? Fault::kRaceGlobal : Fault::kRaceShared;
}

std::string place(const Warp& w, const Region& region, uint64_t granule) {
  const uint64_t offset = granule << region.shift;
  if (!region.global)
    return "shared address " + std::to_string(offset) + ", " + sharedName(w.block->launch->program, offset) + ",";
  const Memory* owner = Memory::ownerOf(region.address);
  return hex(region.address + offset) + ", " +
         (owner ? *owner : *w.block->launch->device.memory).describe(region.address + offset) + ",";
}

}  // namespace

bool Warp::mayRead(const Insn& in, const Region& region, uint64_t granule, int lane, Strength strength) const {
  const uint64_t entry = region.writers[granule];
  if (entryBlock(entry) < firstRun(*this, region) || atomicWith(*this, strength, entry) || ordered(entry, lane))
    return true;
  fault(raceKind(*this, region, entry), in, lane,
        "reads " + place(*this, region, granule) + " which " + who(entry) + " wrote, and nothing orders the two",
        region.address + (granule << region.shift));
  return false;
}

bool Warp::mayWrite(const Insn& in, const Region& region, uint64_t granule, int lane, Strength strength,
                    bool sameValue) const {
  const uint64_t writer = region.writers[granule], reader = region.readers[granule];
  const uint64_t address = region.address + (granule << region.shift);
  // Two writes of one value leave that value, whatever their order.
  const uint64_t first = firstRun(*this, region);
  if (!sameValue && entryBlock(writer) >= first && !atomicWith(*this, strength, writer) && !ordered(writer, lane)) {
    fault(raceKind(*this, region, writer), in, lane,
          "writes " + place(*this, region, granule) + " which " + who(writer) + " wrote, and nothing orders the two",
          address);
    return false;
  }
  if (atomicWith(*this, strength, reader) || entryBlock(reader) < first) return true;
  const uint64_t many = reader & kMany;
  bool fine = ordered(reader, lane);
  const bool mine =
      entryBlock(reader) == block->run && entryThread(reader) == firstThread + static_cast<uint32_t>(lane);
  if (many == kMany && entryBlock(reader) == block->run) {
    // Other blocks have read; which is not known any more. If blocks pass work on at all, believe that they did here.
    fine = !block->acquired.empty();
  } else if (many && mine && entryTime(reader) >= block->barrierTime) {
    // So have other threads of the block. Partial barriers that might order them are believed as well.
    fine = many == kManyLanes ? entryTime(reader) < syncTime || !laneSync.empty() || !block->launch->options.checkLanes
                              : !block->warpSync.empty() || !block->acquired.empty();
  }
  if (fine) return true;
  fault(many == kMany  ? Fault::kRaceBlocks
        : many && mine ? many == kManyLanes ? Fault::kRaceLanes
                         : region.global    ? Fault::kRaceGlobal
                                            : Fault::kRaceShared
                       : raceKind(*this, region, reader),
        in, lane,
        "writes " + place(*this, region, granule) + " which " + (many && mine ? "other threads" : who(reader)) +
            " read, and nothing orders the two",
        address);
  return false;
}

void Warp::badBytes(const Insn& in, const Region& region, uint64_t offset, uint32_t bytes, int lane, bool store) const {
  const uint8_t* bad = region.valid + offset;
  uint32_t at = 0;
  while (at < bytes && (store ? bad[at] < kInFlight : bad[at] == kWritten)) ++at;
  if (at == bytes) return;
  const uint64_t address = region.address + offset;
  const std::string name =
      region.global ? block->launch->device.memory->describe(address) : sharedName(block->launch->program, offset);
  const std::string what = std::string(store ? "writes " : "reads ") + std::to_string(bytes) + " bytes at " +
                           (region.global ? hex(address) : "shared address " + std::to_string(offset)) + ", " + name;
  if (bad[at] == kInFlight)
    return fault(Fault::kCpAsyncBeforeWait, in, lane, what + ", while a cp.async to it is in flight", address);
  if (bad[at] == kRedZone) return fault(Fault::kOutOfBounds, in, lane, what, address);
  if (!block->launch->options.checkInitialized) return;
  fault(region.global ? Fault::kUninitializedGlobal : Fault::kUninitializedShared, in, lane,
        what + "; byte " + std::to_string(at) + " of these was never written", address);
}

}  // namespace cudasim
