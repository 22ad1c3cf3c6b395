// One piece of queued work and what it waits for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "clock.h"

namespace cudasim::driver {

class Context;
struct Op;
using OpRef = std::shared_ptr<Op>;

// A sequence of operations that run in order: a stream, or a chain of a graph's nodes.
struct Lane {
  uint32_t id = 0;
  uint64_t steps = 0;  // operations so far
  OpRef last;          // null: none yet
};

struct Op {
  enum class State : uint8_t { kQueued, kRunning, kDone };

  std::string name;  // "kernel gradus_pointwise_add on stream 3"
  std::shared_ptr<Context> context;
  std::function<void(Op&)> run;  // may be empty: a marker
  bool isHostFunction = false;   // runs without the driver's lock, and never when its context has failed
  Clock clock;                   // of everything before it, and of itself; complete once it may run
  Epoch epoch;
  uint64_t order = 0;  // in which operations were queued

  State state = State::kQueued;
  int waiting = 0;                       // predecessors that are not done, and holds
  int holds = 0;                         // events outside the queue that must be announced first
  std::function<void()> abandoned;       // called when those did not come in time
  std::vector<OpRef> predecessors;       // cleared when done
  std::vector<std::weak_ptr<Op>> after;  // whom to tell

  bool isDone() const { return state == State::kDone; }
};

}  // namespace cudasim::driver
