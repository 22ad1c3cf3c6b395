// Control flow: basic blocks, and for each branch the place where its lanes meet again (the immediate post-dominator).
#include <algorithm>

#include "draft.h"

namespace cudasim::lower {

// A jump to a lone exit is an exit. It keeps lanes that left early from counting as waiting at the end.
void Lowering::simplifyExits() {
  const auto exitsAt = [&](uint32_t at) {
    for (int hops = 0; hops < 16; ++hops) {
      const Draft& d = drafts_[at];
      if (d.exits && d.guard == kNoRegister) return true;
      if (!d.branch || d.guard != kNoRegister || d.targets.size() != 1) return false;
      at = d.targets[0];
    }
    return false;
  };
  const OpEntry* exit = Registry::get().find("@exit");
  for (Draft& d : drafts_) {
    if (!d.branch || d.targets.size() != 1 || !d.refs.empty() || !exitsAt(d.targets[0])) continue;
    d.branch = false;
    d.exits = true;
    d.targets.clear();
    d.insn.run = exit->run;
  }
}

Lowering::Flow Lowering::flow() const {
  const uint32_t n = static_cast<uint32_t>(drafts_.size());
  std::vector<bool> leader(n + 1, false);
  leader[0] = leader[n] = true;
  for (uint32_t i = 0; i < n; ++i) {
    for (const uint32_t t : drafts_[i].targets) leader[t] = true;
    if (drafts_[i].branch || drafts_[i].exits) leader[i + 1] = true;
  }
  Flow f;
  f.blockOf.resize(n + 1);
  for (uint32_t i = 0; i <= n; ++i) {
    if (leader[i]) f.begin.push_back(i);
    f.blockOf[i] = static_cast<uint32_t>(f.begin.size() - 1);
  }
  f.next.resize(f.begin.size() - 1);
  for (uint32_t b = 0; b + 1 < f.begin.size(); ++b) {
    const Draft& last = drafts_[f.begin[b + 1] - 1];
    for (const uint32_t t : last.targets) f.next[b].push_back(f.blockOf[t]);
    const bool falls = !(last.branch || last.exits) || last.guard != kNoRegister;
    if (falls && f.begin[b + 1] < n) f.next[b].push_back(b + 1);
    std::sort(f.next[b].begin(), f.next[b].end());
    f.next[b].erase(std::unique(f.next[b].begin(), f.next[b].end()), f.next[b].end());
  }
  return f;
}

namespace {

constexpr uint32_t kNone = ~0u;

// Immediate post-dominators towards `exit` (Cooper, Harvey & Kennedy 2001, on the reversed graph).
std::vector<uint32_t> postDominators(const std::vector<std::vector<uint32_t>>& next, uint32_t exit) {
  const uint32_t n = static_cast<uint32_t>(next.size());
  std::vector<std::vector<uint32_t>> previous(n);
  for (uint32_t b = 0; b < n; ++b)
    for (const uint32_t s : next[b]) previous[s].push_back(b);
  std::vector<uint32_t> order(n, kNone), sequence;  // postorder of the walk from the exit
  std::vector<std::pair<uint32_t, size_t>> stack = {{exit, 0}};
  std::vector<bool> seen(n, false);
  seen[exit] = true;
  while (!stack.empty()) {
    auto& [b, at] = stack.back();
    if (at < previous[b].size()) {
      const uint32_t p = previous[b][at++];
      if (!seen[p]) seen[p] = true, stack.emplace_back(p, 0);
    } else {
      order[b] = static_cast<uint32_t>(sequence.size());
      sequence.push_back(b);
      stack.pop_back();
    }
  }
  std::vector<uint32_t> up(n, kNone);
  up[exit] = exit;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = sequence.size(); i-- > 0;) {
      const uint32_t b = sequence[i];
      if (b == exit) continue;
      uint32_t meet = kNone;
      for (const uint32_t s : next[b]) {
        if (up[s] == kNone) continue;
        uint32_t a = s;
        if (meet == kNone) {
          meet = a;
          continue;
        }
        while (a != meet) {
          while (order[a] < order[meet]) a = up[a];
          while (order[meet] < order[a]) meet = up[meet];
        }
      }
      if (meet != up[b]) up[b] = meet, changed = true;
    }
  }
  return up;
}

}  // namespace

// Lanes that end early do not count: a branch around `return` meets where the others go on. So only the last exit of
// the text is an end for the analysis; blocks that cannot reach it take their meeting points from all exits.
void Lowering::findReconvergence() {
  const Flow f = flow();
  const uint32_t blocks = static_cast<uint32_t>(f.next.size()), exit = blocks;
  std::vector<std::vector<uint32_t>> all = f.next, last = f.next;
  all.emplace_back(), last.emplace_back();
  uint32_t lastExit = kNone;
  for (uint32_t b = 0; b < blocks; ++b) {
    const Draft& d = drafts_[f.begin[b + 1] - 1];
    if (!d.exits) continue;
    all[b].push_back(exit);
    if (d.guard == kNoRegister) lastExit = b;
  }
  if (lastExit != kNone) last[lastExit].push_back(exit);
  const std::vector<uint32_t> upAll = postDominators(all, exit), upLast = postDominators(last, exit);
  for (uint32_t b = 0; b < blocks; ++b) {
    Draft& d = drafts_[f.begin[b + 1] - 1];
    if (!d.branch) continue;
    const uint32_t meet = upLast[b] != kNone ? upLast[b] : upAll[b];
    d.insn.reconverge = meet == kNone || meet == exit ? kNoPc : f.begin[meet];
  }
}

}  // namespace cudasim::lower
