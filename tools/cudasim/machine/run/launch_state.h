// What the threads of one launch share, and what each has for itself.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "block.h"

namespace cudasim {

struct LaunchState {
  const Kernel& kernel;
  const Program& program;
  const Launch& launch;
  const Options& options;
  Device& device;

  std::vector<uint8_t> constantStorage;
  uint8_t* constants = nullptr;         // rows
  std::vector<uint8_t> sharedTemplate;  // valid bytes of a fresh block
  std::vector<uint8_t> params;
  uint64_t gridWorkspace = 0;  // of cooperative launches: cooperative_groups keeps its barrier there
  uint32_t sharedBytes = 0;    // static with red zones, and dynamic
  uint64_t firstRun = 0;       // block run numbers of this launch start here
  uint64_t blocks = 0;
  SyncTable sync;  // through global memory
  std::vector<uint32_t> blockOrder;

  std::atomic<uint64_t> nextBlock{0};
  std::atomic<uint64_t> instructions{0};
  std::atomic<bool> abort{false};
  std::mutex mutex;  // findings, error
  std::exception_ptr error;
  std::set<std::pair<uint32_t, Fault>> seen;

  Allocation* lookup(uint64_t address) const;
  Dim3 blockIndex(uint64_t run) const;
};

// How the addresses of a warp's access lie to each other. An instruction mostly repeats itself, so the last pattern is
// kept with all that follows from it.
struct Pattern {
  uint32_t lanes = 0, bytes = 0;
  uint64_t phase = 0;  // of the first lane's address in a sector, or in a word of shared memory
  alignas(64) std::array<int64_t, 32> delta{};  // addresses relative to the first lane's
  bool together = false;                        // lanes 0 to n - 1 use neighbouring pieces
  uint32_t wavefronts = 0, ideal = 0, sectors = 0;
  // The different addresses: one lane for each, and whether more lanes use it.
  uint32_t distinct = 0;
  std::array<uint8_t, 32> lane{};
  std::array<bool, 32> many{};
};

struct Site {  // what is kept for an instruction: addresses for a launch, patterns for good
  Allocation* allocation = nullptr;
  RaceShadow* shadow = nullptr;  // of that allocation, with this launch's granule
  Pattern global, shared;
};

struct Worker {
  LaunchState* launch = nullptr;
  std::vector<Counters::Count> counts;  // by pc
  std::vector<Site> sites;              // by Insn::reconverge
  Counters counters;
  uint64_t ticks = 0;  // what %clock counts
  std::vector<std::unique_ptr<Block>> resident, spare;

  explicit Worker(const Program& program);
  void start(LaunchState& launch);
  void run();

 private:
  bool startNext();
};

struct SpareWorkers {
  std::mutex mutex;
  std::vector<std::unique_ptr<Worker>> workers;
};

}  // namespace cudasim
