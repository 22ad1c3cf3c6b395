// Exchanges between the lanes of a warp: shuffles, votes, matches, reductions.
#include "../run/launch_state.h"
#include "control.h"
#include "lanes.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

// Calls f with each set of lanes that named the same member mask.
template <class F>
void eachMask(const uint32_t* masks, uint32_t exec, F f) {
  for (uint32_t rest = exec; rest;) {
    const uint32_t mask = masks[std::countr_zero(rest)];
    uint32_t lanes = 0;
    eachLane(rest, [&](int i) { lanes |= (masks[i] == mask ? 1u : 0u) << i; });
    f(lanes);
    rest &= ~lanes;
  }
}

// r: destination, predicate, value, lane, clamp and segment, mask.
void shuffle(Warp& w, const Insn& in, uint32_t exec) {
  exec = w.meet(in, exec, w.row<uint32_t>(in.r[5]), true);
  if (!exec) return;
  const uint32_t *value = w.row<uint32_t>(in.r[2]), *by = w.row<uint32_t>(in.r[3]), *limits = w.row<uint32_t>(in.r[4]);
  alignas(64) uint32_t result[32];
  alignas(64) uint32_t from[32];
  uint32_t inside = 0;
  const uint16_t mode = in.sub & 3;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t clamp = limits[lane] & 31, segment = limits[lane] >> 8 & 31, b = by[lane] & 31;
    const uint32_t last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    uint32_t source = 0;
    bool in_range = false;
    if (mode == kShflUp) source = lane - b, in_range = static_cast<int32_t>(source) >= static_cast<int32_t>(last);
    if (mode == kShflDown) source = lane + b, in_range = source <= last;
    if (mode == kShflBfly) source = lane ^ b, in_range = source <= last;
    if (mode == kShflIdx) source = first | (b & ~segment), in_range = source <= last;
    from[lane] = in_range ? source : lane;
    inside |= (in_range ? 1u : 0u) << lane;
    result[lane] = value[from[lane]];
  }
  if (w.block->launch->options.checkWarpSync && exec != ~0u)
    eachLane(exec, [&](int i) {
      if (!(exec >> from[i] & 1))
        w.fault(Fault::kInactiveShuffle, in, i,
                "lane " + std::to_string(i) + " asks lane " + std::to_string(from[i]) + ", which does not take part");
    });
  storeLanes<uint32_t>(w.row<uint32_t>(in.r[0]), result, exec);
  if (in.sub & kShflPredicate) {
    uint32_t& p = w.predicates[in.r[1]];
    p = (p & ~exec) | (inside & exec);
  }
}

// r: destination, predicate, mask.
void vote(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t* masks = w.row<uint32_t>(in.r[2]);
  exec = w.meet(in, exec, masks, true);
  if (!exec) return;
  const uint32_t bits = w.predicates[in.r[1]] ^ (in.sub & kVoteNegated ? ~0u : 0);
  eachMask(masks, exec, [&](uint32_t lanes) {
    const uint32_t yes = bits & lanes;
    const uint16_t mode = in.sub & 3;
    if (mode == kVoteBallot) {
      uint32_t* d = w.row<uint32_t>(in.r[0]);
      eachLane(lanes, [&](int i) { d[i] = yes; });
      return;
    }
    const bool result = mode == kVoteAll ? yes == lanes : mode == kVoteAny ? yes != 0 : yes == lanes || yes == 0;
    uint32_t& d = w.predicates[in.r[0]];
    d = (d & ~lanes) | (result ? lanes : 0);
  });
}

// r: destination, predicate, value, mask.
template <class T>
void match(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t* masks = w.row<uint32_t>(in.r[3]);
  exec = w.meet(in, exec, masks, true);
  if (!exec) return;
  const T* value = w.row<T>(in.r[2]);
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  eachMask(masks, exec, [&](uint32_t lanes) {
    uint32_t equal[32] = {};
    eachLane(lanes, [&](int i) { eachLane(lanes, [&](int j) { equal[i] |= (value[i] == value[j] ? 1u : 0u) << j; }); });
    if (!(in.sub & kMatchAll)) return eachLane(lanes, [&](int i) { d[i] = equal[i]; });
    const bool all = equal[std::countr_zero(lanes)] == lanes;
    eachLane(lanes, [&](int i) { d[i] = all ? lanes : 0; });
    if (in.sub & kMatchPredicate) {
      uint32_t& p = w.predicates[in.r[1]];
      p = (p & ~lanes) | (all ? lanes : 0);
    }
  });
}

// r: destination, value, mask.
void reduce(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t* masks = w.row<uint32_t>(in.r[2]);
  exec = w.meet(in, exec, masks, true);
  if (!exec) return;
  const uint32_t* value = w.row<uint32_t>(in.r[1]);
  uint32_t* d = w.row<uint32_t>(in.r[0]);
  eachMask(masks, exec, [&](uint32_t lanes) {
    uint32_t r = value[std::countr_zero(lanes)];
    eachLane(lanes & (lanes - 1), [&](int i) {
      const uint32_t v = value[i];
      const bool less = in.sub & kReduxSigned ? static_cast<int32_t>(v) < static_cast<int32_t>(r) : v < r;
      switch (in.sub & 7) {
        case kReduxAdd:
          r += v;
          break;
        case kReduxMin:
          r = less ? v : r;
          break;
        case kReduxMax:
          r = less ? r : v;
          break;
        case kReduxAnd:
          r &= v;
          break;
        case kReduxOr:
          r |= v;
          break;
        default:
          r ^= v;
      }
    });
    eachLane(lanes, [&](int i) { d[i] = r; });
  });
}

}  // namespace

void registerExchange(Registry& r) {
  r.add("@shfl", &shuffle);
  r.add("@vote", &vote);
  r.add("@match.b32", &match<uint32_t>);
  r.add("@match.b64", &match<uint64_t>);
  r.add("@redux", &reduce);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
