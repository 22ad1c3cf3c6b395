#include "order.h"

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

bool SyncTable::covers(uint64_t key, size_t position, uint64_t block, uint32_t thread, uint32_t time, bool device,
                       int depth) const {
  std::vector<std::shared_ptr<const AcquiredList>> further;
  {
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
    if (depth < 8)  // longer chains of hand-overs end up at a later publication anyway
      for (const size_t i : l.withKnown)
        if (i < position) further.push_back(l.list[i].known);
  }
  for (const auto& known : further)
    for (const Acquired& a : *known)
      if ((a.table != this || a.key != key || a.position < position) &&
          a.table->covers(a.key, a.position, block, thread, time, device, depth + 1))
        return true;
  return false;
}

}  // namespace cudasim
