// A thread block: warps, shared memory, barriers.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "../allocation.h"
#include "random.h"
#include "warp.h"

namespace cudasim {

struct LaunchState;

struct Barrier {
  uint32_t expected = 0;  // threads, 0 while nobody is here
  uint32_t arrived = 0;
  uint32_t warps = 0;               // that have arrived
  uint32_t waiting = 0;             // of those, the ones that wait (bar.arrive does not)
  uint32_t count = 0;               // of true predicates so far
  uint32_t result = 0;              // when it last opened
  bool whole = true;                // waits for every thread of the block
  std::array<uint32_t, 32> time{};  // each warp's clock as it arrived
};

// What a piece of checked memory looks like to the access code.
struct Region {
  uint8_t *data = nullptr, *valid = nullptr;
  uint64_t *writers = nullptr, *readers = nullptr;  // null: races are not checked
  uint64_t size = 0;
  uint64_t address = 0;  // of data[0], as the program sees it
  int shift = 2;
  bool global = false;
};

// Values of a valid byte.
constexpr uint8_t kUnwritten = 0, kWritten = 1, kInFlight = 2, kRedZone = 3;

struct Block {
  LaunchState* launch = nullptr;
  Worker* worker = nullptr;
  uint64_t run = 0;  // grows with the order of starts: order.h
  Dim3 index;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  uint32_t threads = 0, exited = 0;
  uint32_t time = 1, barrierTime = 1;
  std::vector<uint32_t> warpSync;  // [warp][other]: clocks passed on by barriers of some warps; empty without such
  bool orderLost = false;          // the clock has run out: no more findings about order
  AcquiredList acquired;
  SyncTable sync;  // through shared memory
  Region shared;
  std::vector<uint8_t> sharedData, sharedValid;
  std::unique_ptr<RaceShadow> sharedShadow;
  Random random;                // of orders and perturbations: of the block's number, whichever host thread has it
  uint64_t newestInShadow = 0;  // whose entries the shadow has

  Block();
  ~Block();
  void start(LaunchState& launch, Worker& worker, uint64_t order);  // the order-th block to start
  // Runs every warp until it waits, ends or has used its share. False when the block has ended.
  bool step();
  uint32_t spent = 0;  // steps in which a warp used up its share: it may spin for another block

  // `lanes` of a warp reach barrier `id`, which opens for `expected` threads (0: all). The running group stops if it
  // waits; `truths` of its lanes have a true predicate.
  void arrive(Warp& warp, const Insn& in, uint32_t id, uint32_t expected, uint32_t lanes, bool waits, uint32_t truths);
  void tick();

 private:
  void open(uint32_t id);
  void fillSpecials(Warp& warp);
  bool reportStuck();
  std::vector<uint8_t> registers_, local_, localValid_;
  std::vector<uint32_t> predicates_, defined_, order_;
};

}  // namespace cudasim
