// A warp: 32 lanes in lock step, split into groups where their paths part.
//
// Groups form a tree. A divergent branch turns the running group into a join that waits at the branch's post-dominator
// and has the two sides as children; a group that arrives there adds its lanes to the join and is gone. Only leaves
// run, one at a time; a leaf that waits (barrier, __syncwarp, spin) lets the others go on.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "../program.h"
#include "order.h"

namespace cudasim {

struct Block;
struct Worker;
struct Region;

struct Group {
  enum State : uint8_t { kFree, kReady, kJoin, kAtBarrier, kAtSync };
  State state = kFree;
  uint8_t children = 0;  // of a join: that are not there yet
  int16_t parent = -1;
  uint32_t pc = 0;
  uint32_t reconverge = kNoPc;  // where it joins its parent
  uint32_t lanes = 0;           // of a join: those that arrived
  uint32_t mask = 0;            // at sync: lanes waited for
  uint32_t exec = 0;            // at sync: lanes that wait (a guard may leave some out)
  uint32_t barrier = 0;         // at barrier: which
};

struct AsyncCopy {  // one cp.async of a warp that is not complete
  uint32_t lanes;
  uint32_t bytes;
  std::array<uint32_t, 32> to, group;  // shared address; which of the lane's groups it belongs to
};

struct Fence {
  uint32_t time = 0;  // 0: none yet
  uint32_t barrierTime = 0, warpTime = 0;
  std::shared_ptr<const AcquiredList> known;
};

struct Warp {
  // Hot: what the handlers touch.
  uint8_t* base[2] = {};  // register rows, constant rows
  uint32_t* predicates = nullptr;
  uint32_t pc = 0;
  uint32_t active = 0;  // lanes of the running group
  uint32_t reconverge = kNoPc;
  bool stopped = false;  // leave the instruction loop
  uint32_t alive = 0;    // lanes that exist and have not ended
  uint32_t carry = 0;    // CC.CF of each lane
  uint32_t* defined = nullptr;
  uint32_t firstThread = 0, index = 0;
  Block* block = nullptr;
  Worker* worker = nullptr;

  uint32_t existing = 0, exited = 0;
  int current = -1;
  std::vector<Group> groups;

  uint8_t *local = nullptr, *localValid = nullptr;  // words of 32 lanes

  // Order between lanes: when all lanes met, and when pairs did if only some met.
  uint32_t syncTime = 0;
  std::vector<uint32_t> laneSync;                 // [lane][other]
  std::array<Fence, 32> blockFence, deviceFence;  // the last that reached the block, or beyond it
  bool hasFenced = false;                         // otherwise both are empty

  std::vector<AsyncCopy> copies;
  std::array<uint32_t, 32> commits{};

  template <class T>
  T* row(uint32_t operand) const {
    return reinterpret_cast<T*>(base[operand >> 31] + (operand & ~kConstantRow));
  }

  void start(Block& block, uint32_t index);
  // Runs until the warp waits, ends, or `budget` instructions are done. Returns the number done.
  uint64_t run(uint64_t budget);
  bool done() const { return alive == 0; }
  bool runnable() const;

  // Control flow.
  void branch(uint32_t taken, uint32_t target, uint32_t reconverge);  // pc is at the next instruction already
  void split(const uint32_t* lanes, const uint32_t* targets, int count, uint32_t reconverge);
  void exit(uint32_t lanes);
  void wait(Group::State state);  // the running group stops before pc; another may run
  bool resume();                  // picks a group that is ready
  void resumeGroup(int group);
  void leave();  // the running group has no lanes left, or arrived at its join

  // A .sync instruction: returns the lanes it runs for, those of waiting groups included, or 0 while lanes of `masks`
  // (one a lane, null: all) are still to come.
  uint32_t meet(const Insn& in, uint32_t exec, const uint32_t* masks, bool sameInstruction);

  // Order. `time` ticks; an entry is ordered when it came before what `lane` does now.
  uint64_t key() const;
  void syncLanes(uint32_t lanes);
  bool ordered(uint64_t entry, int lane) const;
  void fence(uint32_t lanes, bool device);
  void publish(int lane, SyncTable& table, uint64_t key, bool device);
  void acquire(int lane, const SyncTable& table, uint64_t key);

  // Faults. Throws, or notes the finding and returns when findings are collected.
  void fault(Fault fault, const Insn& in, int lane, const std::string& problem, uint64_t address = 0) const;
  // For an address that is in no memory of this device, or not wholly.
  void badAddress(const Insn& in, int lane, uint64_t address, uint32_t bytes, bool store) const;
  // Entries that stand against an access of `lane`. Returns whether it may go on as if nothing was wrong.
  bool mayRead(const Insn& in, const Region& region, uint64_t granule, int lane, Strength strength) const;
  bool mayWrite(const Insn& in, const Region& region, uint64_t granule, int lane, Strength strength,
                bool sameValue) const;
  // For bytes whose valid byte is not kWritten; `store`: only red zones and copies in flight count.
  void badBytes(const Insn& in, const Region& region, uint64_t offset, uint32_t bytes, int lane, bool store) const;
  std::string thread(int lane) const;     // "(1, 0, 0)"
  std::string who(uint64_t entry) const;  // "thread (1, 0, 0) of block (2, 0, 0)"

 private:
  int newGroup();
  void load(int group);
  void joinChildGone(int join);
};

}  // namespace cudasim
