// Virtual registers share rows where their lifetimes do not overlap, which keeps a warp's registers in the cache, and
// the drafts become the program.
//
// A row is a row of lanes, and an instruction writes only the lanes it runs for; so one thread's lifetimes decide, and
// lanes that are elsewhere never matter.
#include <algorithm>
#include <cstring>

#include "draft.h"

namespace cudasim::lower {

namespace {

class Bits {
 public:
  explicit Bits(size_t n) : words_((n + 63) / 64) {}
  void set(size_t i) { words_[i / 64] |= uint64_t{1} << i % 64; }
  void clear(size_t i) { words_[i / 64] &= ~(uint64_t{1} << i % 64); }
  bool test(size_t i) const { return words_[i / 64] >> i % 64 & 1; }
  bool merge(const Bits& other) {
    uint64_t changed = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      changed |= other.words_[i] & ~words_[i];
      words_[i] |= other.words_[i];
    }
    return changed;
  }
  template <class F>
  void each(F f) const {
    for (size_t w = 0; w < words_.size(); ++w)
      for (uint64_t bits = words_[w]; bits; bits &= bits - 1) f(w * 64 + static_cast<size_t>(__builtin_ctzll(bits)));
  }

 private:
  std::vector<uint64_t> words_;
};

struct Interval {
  uint32_t reg, begin, end;
};

}  // namespace

void Lowering::allocateRows() {
  const Flow f = flow();
  const uint32_t blocks = static_cast<uint32_t>(f.next.size());
  const size_t n = registerList_.size();
  // A guarded definition keeps the old value of other lanes, so it does not end a lifetime.
  const auto walk = [&](const Draft& d, auto onUse, auto onDef) {
    for (const Draft::Ref& r : d.refs)
      if (r.defines) onDef(r.reg, d.guard == kNoRegister);
    for (const Draft::Ref& r : d.refs)
      if (!r.defines || d.guard != kNoRegister) onUse(r.reg);
    if (d.guard != kNoRegister) onUse(d.guard);
  };
  std::vector<Bits> in(blocks, Bits(n)), out(blocks, Bits(n));
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t b = blocks; b-- > 0;) {
      for (const uint32_t s : f.next[b]) out[b].merge(in[s]);
      Bits live = out[b];
      for (uint32_t i = f.begin[b + 1]; i-- > f.begin[b];)
        walk(
            drafts_[i], [&](uint32_t r) { live.set(r); },
            [&](uint32_t r, bool whole) {
              if (whole) live.clear(r);
            });
      changed |= in[b].merge(live);
    }
  }
  std::vector<Interval> spans(n);
  for (uint32_t r = 0; r < n; ++r) spans[r] = {r, ~0u, 0};
  const auto touch = [&](uint32_t r, uint32_t at) {
    spans[r].begin = std::min(spans[r].begin, at);
    spans[r].end = std::max(spans[r].end, at);
  };
  // Time 2i is before draft i, 2i + 1 after it: a destination may take the row of a source that ends there, but
  // handlers with several destinations write one before they have read all, so those keep every operand apart.
  for (uint32_t b = 0; b < blocks; ++b) {
    in[b].each([&](size_t r) { touch(static_cast<uint32_t>(r), 2 * f.begin[b]); });
    out[b].each([&](size_t r) { touch(static_cast<uint32_t>(r), 2 * f.begin[b + 1] - 1); });
    for (uint32_t i = f.begin[b]; i < f.begin[b + 1]; ++i) {
      const size_t defines = static_cast<size_t>(
          std::count_if(drafts_[i].refs.begin(), drafts_[i].refs.end(), [](const Draft::Ref& r) { return r.defines; }));
      const bool elementwise = defines == 1 && drafts_[i].insn.run != nullptr && !drafts_[i].apart;
      walk(
          drafts_[i], [&](uint32_t r) { touch(r, elementwise ? 2 * i : 2 * i + 1), touch(r, 2 * i); },
          [&](uint32_t r, bool) { touch(r, 2 * i + 1), elementwise ? void() : touch(r, 2 * i); });
    }
  }
  for (const auto& [special, reg] : specials_) spans[reg] = {reg, 0, ~0u - 1};

  // Linear scan; there is no spilling, the file is as large as it must be.
  std::vector<uint32_t> place(n, 0);
  uint32_t narrow = 0, wide = 0, predicates = 2;
  std::sort(spans.begin(), spans.end(), [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  for (const int pass : {0, 1, 2}) {  // predicates, 16 and 32 bits, 64 bits
    uint32_t& count = pass == 0 ? predicates : pass == 1 ? narrow : wide;
    std::vector<uint32_t> free;
    std::vector<std::pair<uint32_t, uint32_t>> active;  // (end, place), a heap with the earliest end on top
    const auto later = [](const auto& a, const auto& b) { return a.first > b.first; };
    for (const Interval& s : spans) {
      const RegisterClass kind = registerList_[s.reg].kind;
      if (s.begin == ~0u || (kind == RegisterClass::kPredicate ? 0 : kind == RegisterClass::k64 ? 2 : 1) != pass)
        continue;
      while (!active.empty() && active.front().first < s.begin) {
        free.push_back(active.front().second);
        std::pop_heap(active.begin(), active.end(), later);
        active.pop_back();
      }
      if (free.empty()) free.push_back(count++);
      place[s.reg] = free.back();
      free.pop_back();
      active.emplace_back(s.end, place[s.reg]);
      std::push_heap(active.begin(), active.end(), later);
    }
  }
  program_->predicates = predicates;
  program_->registerBytes = wide * 256 + narrow * 128;
  const auto encode = [&](uint32_t reg) {
    switch (registerList_[reg].kind) {
      case RegisterClass::kPredicate:
        return place[reg];
      case RegisterClass::k64:
        return place[reg] * 256;
      default:
        return wide * 256 + place[reg] * 128;
    }
  };
  const uint32_t wideConstants = static_cast<uint32_t>(wide_.size());
  for (Draft& d : drafts_) {
    const auto put = [&](int slot, uint32_t value) {
      (slot < kSlots ? d.insn.r[slot] : d.more[slot - kSlots]) = value;
    };
    for (const Draft::Ref& r : d.refs) put(r.slot, encode(r.reg));
    for (const Draft::Const& c : d.constants)
      put(c.slot, kConstantRow | (c.wide ? c.index * 256 : wideConstants * 256 + c.index * 128));
    if (d.guard != kNoRegister) d.insn.guard = encode(d.guard);
  }
  for (const auto& [special, reg] : specials_) program_->specials.push_back({special, encode(reg)});
}

void Lowering::finish(Kernel& kernel) {
  Program& p = *program_;
  std::map<std::string, uint32_t> opcodes;
  const auto names = std::make_shared<std::vector<std::string>>();
  for (Draft& d : drafts_) {
    const bool table = d.branch && !d.refs.empty();  // brx reads its targets from a table
    if (table) d.more = d.targets;
    if (!d.more.empty()) {
      p.more.push_back(std::make_unique<uint32_t[]>(d.more.size()));
      std::memcpy(p.more.back().get(), d.more.data(), d.more.size() * sizeof(uint32_t));
      d.insn.more = p.more.back().get();
    }
    if (d.branch && !table) d.insn.imm = d.targets[0];
    if (d.memory) d.insn.reconverge = p.sites++;
    const auto [found, added] = opcodes.try_emplace(d.opcode, static_cast<uint32_t>(names->size()));
    if (added) names->push_back(d.opcode);
    p.code.push_back(d.insn);
    p.origins.push_back({d.line, d.hidden ? kHiddenOpcode : found->second});
  }
  p.opcodes = names;
  p.spareWorkers = makeSpareWorkers();
  p.constants = wide_;
  p.constants.insert(p.constants.end(), narrow_.begin(), narrow_.end());
  uint32_t staticShared = 0;
  for (const Program::Placed& v : p.shared) staticShared += (v.bytes + 15) / 16 * 16;
  kernel.staticShared = staticShared;
  for (const Program::Placed& v : p.local) kernel.localBytes += v.bytes;
  kernel.registers = p.registerBytes / 128;
  kernel.program = program_;
}

}  // namespace cudasim::lower
