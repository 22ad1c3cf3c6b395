#include "order.h"

#include <map>
#include <utility>

namespace cudasim {

void SyncTable::publish(uint64_t key, Publication p) {
  const std::lock_guard lock(mutex_);
  Location& l = locations_[key];
  auto& mine = l.byBlock[p.block];
  // The same fence published again says nothing new: a thread that counts in a loop.
  if (!mine.empty()) {
    const Publication& last = l.list[mine.back()];
    if (last.thread == p.thread && last.time == p.time && last.known == p.known) return;
  }
  mine.push_back(l.list.size());
  if (p.known) l.withKnown.push_back(l.list.size());
  l.list.push_back(std::move(p));
}

size_t SyncTable::position(uint64_t key) const {
  const std::lock_guard lock(mutex_);
  const auto found = locations_.find(key);
  return found == locations_.end() ? 0 : found->second.list.size();
}

bool SyncTable::tells(uint64_t key, size_t position, uint64_t block, uint32_t thread, uint32_t time, bool device,
                      std::vector<std::shared_ptr<const AcquiredList>>& further) const {
  const std::lock_guard lock(mutex_);
  const auto found = locations_.find(key);
  if (found == locations_.end()) return false;
  const Location& l = found->second;
  if (const auto mine = l.byBlock.find(block); mine != l.byBlock.end()) {
    for (const size_t i : mine->second) {
      const Publication& p = l.list[i];
      if (i >= position || (device && !p.device)) continue;
      if (p.thread == thread && time <= p.time) return true;
      if (time < p.barrierTime) return true;
      if (p.thread / 32 == thread / 32 && time < p.warpTime) return true;
    }
  }
  for (const size_t i : l.withKnown)
    if (i < position) further.push_back(l.list[i].known);
  return false;
}

// A lock that passes from hand to hand makes a chain for every handing over, and they branch: each place is looked at
// once for the furthest position that leads there.
bool SyncTable::covers(uint64_t key, size_t position, uint64_t block, uint32_t thread, uint32_t time,
                       bool device) const {
  struct Place {
    const SyncTable* table;
    uint64_t key;
    size_t position;
  };
  std::map<std::pair<const SyncTable*, uint64_t>, size_t> furthest{{{this, key}, position}};
  std::vector<Place> open{{this, key, position}};
  std::vector<std::shared_ptr<const AcquiredList>> further;
  while (!open.empty()) {
    const Place at = open.back();
    open.pop_back();
    if (furthest[{at.table, at.key}] > at.position) continue;
    further.clear();
    if (at.table->tells(at.key, at.position, block, thread, time, device, further)) return true;
    for (const auto& known : further) {
      for (const Acquired& a : *known) {
        size_t& reached = furthest[{a.table, a.key}];
        if (a.position <= reached) continue;
        reached = a.position;
        open.push_back({a.table, a.key, a.position});
      }
    }
  }
  return false;
}

}  // namespace cudasim
