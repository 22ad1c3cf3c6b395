// Queued work runs only here, when somebody waits for it, as late as the interface allows: a program that reads results
// or reuses a staging buffer before it may, meets the old bytes on every run instead of once a month.
//
// With seed 0 a wait runs what it needs and nothing else. With any other seed it also runs work that nobody waits for,
// in an order drawn from the seed; whatever streams and events leave open may happen.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "op.h"

namespace cudasim::driver {

class Scheduler {
 public:
  explicit Scheduler(std::mutex& driver) : driver_(driver) {}

  void seed(uint64_t seed);
  void setPaused(bool paused);
  void setProgress(int milliseconds) { progress_ = milliseconds; }

  Lane newLane();
  void freeLane(Lane& lane);  // the number is used again

  // Appends to the lane. `holds` more events must be announced by release() before the operation may run.
  void enqueue(Lane& lane, const OpRef& op, const std::vector<OpRef>& after, int holds = 0);
  // Adds a predecessor to an operation that is still held.
  void addPredecessor(const OpRef& op, const OpRef& before);
  void release(const OpRef& op);

  // Runs what `op` needs, then `op`. Held operations on the way are abandoned after `patience`.
  void runUntil(const OpRef& op);
  void setPatience(int seconds) { patience_ = std::chrono::seconds(seconds); }
  // One operation, if any is ready: polling must get somewhere.
  void step(const OpRef& wanted);
  // Lets everything run that is held up by `op`, which will not be announced any more.
  void abandon(const OpRef& op);
  bool isIdle() const { return queued_.empty(); }
  // Some work may be unordered with other work.
  bool hasSeveralLanes() const { return lanesUsed_ > 1; }
  void called() { lastCall_ = std::chrono::steady_clock::now(); }

 private:
  OpRef anyReady();
  OpRef firstReadyBefore(const OpRef& wanted) const;
  OpRef heldBefore(const OpRef& wanted) const;
  template <class Wanted>
  OpRef findBefore(const OpRef& from, Wanted wanted) const;
  void wait(const OpRef& op);
  void run(const OpRef& op);
  void watch();  // the background thread

  std::mutex& driver_;
  std::condition_variable_any changed_;
  std::map<uint64_t, OpRef> queued_;  // by order
  uint64_t nextOrder_ = 1;
  uint32_t nextLane_ = 0, lanesUsed_ = 0;
  std::vector<std::pair<uint32_t, uint64_t>> freeLanes_;  // number and steps taken
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  bool paused_ = false;
  int progress_ = 1;
  std::chrono::seconds patience_{10};
  int hostFunctions_ = 0;  // queued
  bool watching_ = false;
  std::chrono::steady_clock::time_point lastCall_;
};

}  // namespace cudasim::driver
