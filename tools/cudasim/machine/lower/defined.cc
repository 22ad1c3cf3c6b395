// Reads of registers that no path, or not every path, has written. What a data-flow analysis proves costs nothing at
// run time; the registers that it cannot prove get a mask of written lanes, kept by small instructions in between.
//
// A move hands undefinedness on, as compilers join values with moves on paths where they do not matter.
#include <algorithm>

#include "draft.h"

namespace cudasim::lower {

namespace {

class Set {
 public:
  Set(size_t count, bool value) : words_((count + 63) / 64, value ? ~uint64_t{0} : 0) {}
  bool operator[](size_t i) const { return words_[i / 64] >> i % 64 & 1; }
  void put(size_t i, bool value) {
    const uint64_t bit = uint64_t{1} << i % 64;
    words_[i / 64] = value ? words_[i / 64] | bit : words_[i / 64] & ~bit;
  }
  // Keeps what is in both; returns whether something went.
  bool intersect(const Set& other) {
    uint64_t gone = 0;
    for (size_t w = 0; w < words_.size(); ++w) {
      gone |= words_[w] & ~other.words_[w];
      words_[w] &= other.words_[w];
    }
    return gone;
  }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace

void Lowering::checkDefined() {
  const Flow f = flow();
  const uint32_t blocks = static_cast<uint32_t>(f.next.size());
  const size_t n = registerList_.size();
  const auto copySource = [](const Draft& d) -> const Draft::Ref* {
    if (!d.copies) return nullptr;
    for (const Draft::Ref& r : d.refs)
      if (!r.defines) return &r;
    return nullptr;
  };
  const auto step = [&](const Draft& d, Set& defined) {
    const Draft::Ref* source = copySource(d);
    for (const Draft::Ref& r : d.refs)
      if (r.defines && d.guard == kNoRegister)
        defined.put(r.reg, source ? defined[source->reg] : true);
      else if (r.defines && source && !defined[source->reg])
        defined.put(r.reg, false);
  };
  Set entry(n, false);
  for (const auto& [special, reg] : specials_) entry.put(reg, true);
  std::vector<Set> in(blocks, Set(n, true));
  in[0] = entry;
  std::vector<bool> stale(blocks, true);
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t b = 0; b < blocks; ++b) {
      if (!stale[b]) continue;
      stale[b] = false;
      Set now = in[b];
      for (uint32_t i = f.begin[b]; i < f.begin[b + 1]; ++i) step(drafts_[i], now);
      for (const uint32_t s : f.next[b])
        if (in[s].intersect(now)) stale[s] = changed = true;
    }
  }
  // Uses to check, and with them, backwards through moves, the registers to track.
  Set tracked(n, false);
  std::vector<std::vector<uint32_t>> checks(drafts_.size());
  std::vector<std::pair<uint32_t, uint32_t>> moves;  // of sources that may be undefined
  for (uint32_t b = 0; b < blocks; ++b) {
    Set now = in[b];
    for (uint32_t i = f.begin[b]; i < f.begin[b + 1]; ++i) {
      const Draft& d = drafts_[i];
      const auto check = [&](uint32_t reg) {
        if (!now[reg]) tracked.put(reg, true), checks[i].push_back(reg);
      };
      if (const Draft::Ref* source = copySource(d)) {
        if (!now[source->reg])
          for (const Draft::Ref& r : d.refs)
            if (r.defines) moves.emplace_back(source->reg, r.reg);
      } else {
        for (const Draft::Ref& r : d.refs)
          if (!r.defines) check(r.reg);
      }
      if (d.guard != kNoRegister) check(d.guard);
      step(d, now);
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& [from, to] : moves)
      if (tracked[to] && !tracked[from]) tracked.put(from, true), changed = true;
  }
  std::vector<uint32_t> slot(n, 0);
  for (size_t r = 0; r < n; ++r)
    if (tracked[r]) slot[r] = program_->tracked++;
  if (!program_->tracked) return;

  const Registry& registry = Registry::get();
  std::vector<Draft> result;
  std::vector<uint32_t> moved(drafts_.size());
  result.reserve(drafts_.size() + drafts_.size() / 4);
  for (uint32_t i = 0; i < drafts_.size(); ++i) {
    moved[i] = static_cast<uint32_t>(result.size());
    Draft& d = drafts_[i];
    const auto extra = [&](const char* handler, uint32_t a, uint32_t b, bool guarded) {
      Draft e{.opcode = d.opcode, .line = d.line};
      e.hidden = true;
      e.insn.run = registry.find(handler)->run;
      e.insn.r[0] = a;
      e.insn.r[1] = b;
      if (guarded) e.guard = d.guard, e.insn.guardFlip = d.insn.guardFlip;
      result.push_back(std::move(e));
    };
    // The guard is read by every lane, operands by those that it lets through.
    for (const uint32_t reg : checks[i])
      extra("@checkDefined", slot[reg], static_cast<uint32_t>(d.line), reg != d.guard);
    const Draft::Ref* source = copySource(d);
    std::vector<uint32_t> written;
    for (const Draft::Ref& r : d.refs)
      if (r.defines && tracked[r.reg]) written.push_back(r.reg);
    // Masks change first: the instruction itself may overwrite its guard.
    for (const uint32_t reg : written) {
      if (source && tracked[source->reg])
        extra("@copyDefined", slot[reg], slot[source->reg], true);
      else
        extra("@markDefined", slot[reg], 0, true);
    }
    result.push_back(std::move(d));
  }
  for (Draft& d : result)
    for (uint32_t& t : d.targets) t = moved[t];
  drafts_ = std::move(result);
}

}  // namespace cudasim::lower
