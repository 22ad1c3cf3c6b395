#include "scheduler.h"

#include <unordered_set>

namespace cudasim::driver {

void Scheduler::seed(uint64_t seed) {
  seed_ = seed;
  random_.seed(seed);
}

void Scheduler::setPaused(bool paused) {
  paused_ = paused;
  changed_.notify_all();
}

Lane Scheduler::newLane() {
  Lane lane;
  if (freeLanes_.empty()) {
    lane.id = nextLane_++;
  } else {
    std::tie(lane.id, lane.steps) = freeLanes_.back();
    freeLanes_.pop_back();
  }
  return lane;
}

void Scheduler::freeLane(Lane& lane) { freeLanes_.emplace_back(lane.id, lane.steps); }

void Scheduler::enqueue(Lane& lane, const OpRef& op, const std::vector<OpRef>& after, int holds) {
  op->order = nextOrder_++;
  if (lane.steps == 0) ++lanesUsed_;
  op->epoch = {lane.id, ++lane.steps};
  op->waiting = op->holds = holds;
  op->clock.join(op->epoch);
  if (lane.last) addPredecessor(op, lane.last);
  for (const OpRef& before : after)
    if (before) addPredecessor(op, before);
  lane.last = op;
  queued_.emplace(op->order, op);
  if (!op->isHostFunction) return;
  ++hostFunctions_;
  if (!watching_ && progress_ > 0) {
    watching_ = true;
    std::thread([this] { watch(); }).detach();  // the driver is never destroyed
  }
  changed_.notify_all();
}

void Scheduler::addPredecessor(const OpRef& op, const OpRef& before) {
  if (before->isDone()) {
    op->clock.join(before->clock);
    return;
  }
  before->after.push_back(op);
  op->predecessors.push_back(before);
  ++op->waiting;
}

void Scheduler::release(const OpRef& op) {
  --op->holds;
  --op->waiting;
  changed_.notify_all();
}

void Scheduler::abandon(const OpRef& op) {
  if (op->holds == 0) return;
  if (op->abandoned) op->abandoned();
  op->waiting -= op->holds;
  op->holds = 0;
  changed_.notify_all();
}

// Depth first without recursion: queues are thousands deep.
template <class Wanted>
OpRef Scheduler::findBefore(const OpRef& from, Wanted wanted) const {
  std::vector<OpRef> open{from};
  std::unordered_set<const Op*> seen{from.get()};
  while (!open.empty()) {
    const OpRef op = open.back();
    open.pop_back();
    if (op->state != Op::State::kQueued) continue;
    if (wanted(*op)) return op;
    for (const OpRef& before : op->predecessors)
      if (!before->isDone() && seen.insert(before.get()).second) open.push_back(before);
  }
  return nullptr;
}

OpRef Scheduler::firstReadyBefore(const OpRef& wanted) const {
  return findBefore(wanted, [](const Op& op) { return op.waiting == 0; });
}

OpRef Scheduler::heldBefore(const OpRef& wanted) const {
  return findBefore(wanted, [](const Op& op) { return op.holds > 0; });
}

OpRef Scheduler::anyReady() {
  std::vector<OpRef> ready;
  for (const auto& [order, op] : queued_)
    if (op->waiting == 0 && op->state == Op::State::kQueued) ready.push_back(op);
  return ready.empty() ? nullptr : ready[random_() % ready.size()];
}

void Scheduler::run(const OpRef& op) {
  op->state = Op::State::kRunning;
  if (op->run) op->run(*op);
  op->run = nullptr;  // what it captured may hold modules and buffers
  op->state = Op::State::kDone;
  if (op->isHostFunction) --hostFunctions_;
  op->predecessors.clear();
  for (const std::weak_ptr<Op>& weak : op->after)
    if (const OpRef later = weak.lock()) {
      later->clock.join(op->clock);
      --later->waiting;
    }
  op->after.clear();
  queued_.erase(op->order);
  changed_.notify_all();
}

// Somebody else is running what `op` needs, or will announce it.
void Scheduler::wait(const OpRef& op) {
  const OpRef held = heldBefore(op);
  if (!held) {
    changed_.wait(driver_);
  } else if (changed_.wait_for(driver_, patience_) == std::cv_status::timeout && held->holds > 0) {
    abandon(held);
  }
}

void Scheduler::runUntil(const OpRef& op) {
  if (seed_ != 0) {
    while (!op->isDone()) {
      if (paused_)
        changed_.wait(driver_);
      else if (const OpRef next = anyReady())
        run(next);
      else
        wait(op);
    }
    return;
  }
  std::vector<OpRef> path{op};  // each waits for the next
  while (!path.empty()) {
    const OpRef top = path.back();
    if (top->isDone()) {
      path.pop_back();
    } else if (paused_) {
      changed_.wait(driver_);
    } else if (top->waiting == 0 && top->state == Op::State::kQueued) {
      run(top);
      path.pop_back();
    } else {
      OpRef next;
      for (const OpRef& before : top->predecessors)
        if (before->state == Op::State::kQueued) next = before;
      if (next)
        path.push_back(next);
      else
        wait(top);
    }
  }
}

void Scheduler::step(const OpRef& wanted) {
  if (paused_) return;
  if (const OpRef next = seed_ == 0 ? firstReadyBefore(wanted) : anyReady()) run(next);
}

// Hardware runs host functions without being asked. A program that waits for one on a lock of its own makes no further
// call, so after a moment of silence this thread runs them. Nothing else runs by itself.
void Scheduler::watch() {
  std::unique_lock lock(driver_);
  for (;;) {
    changed_.wait(driver_, [this] { return hostFunctions_ > 0 && !paused_; });
    const auto due = lastCall_ + std::chrono::milliseconds(progress_);
    if (std::chrono::steady_clock::now() < due) {
      changed_.wait_until(driver_, due);
      continue;
    }
    OpRef oldest;
    for (const auto& [order, op] : queued_)
      if (op->isHostFunction && op->state == Op::State::kQueued && (oldest = firstReadyBefore(op))) break;
    if (oldest)
      run(oldest);
    else
      changed_.wait_for(driver_, std::chrono::milliseconds(progress_));
  }
}

}  // namespace cudasim::driver
