// Instructions in which lanes look at each other. Row i of an Op runs in lane i.
#include "op.h"

namespace cudasim::test {

namespace {

// Each lane's value is 100 + lane; `expected` gives the lane read and whether the predicate is true.
void shuffle(const std::string& mode, Bits by, Bits limits, const std::function<std::pair<int, bool>(int)>& expected,
             int line = __builtin_LINE()) {
  Op op("shfl.sync." + mode + ".b32 %d0|%d1, %a0, %a1, %a2, 0xffffffff;", "wp", "www", line);
  for (int lane = 0; lane < 32; ++lane) {
    const auto [from, inside] = expected(lane);
    op.row({static_cast<Bits>(100 + lane), by, limits}, {static_cast<Bits>(100 + from), Bits{inside}});
  }
}

}  // namespace

CUDASIM_TEST("opcodes: shfl up, down, bfly, idx, in the whole warp and in segments") {
  // __shfl_up_sync(v, 3): limits 0. Lanes without a source keep their value.
  shuffle("up", 3, 0, [](int i) { return std::pair{i >= 3 ? i - 3 : i, i >= 3}; });
  shuffle("down", 5, 31, [](int i) { return std::pair{i + 5 < 32 ? i + 5 : i, i + 5 < 32}; });
  shuffle("bfly", 16, 31, [](int i) { return std::pair{i ^ 16, true}; });
  shuffle("bfly", 1, 31, [](int i) { return std::pair{i ^ 1, true}; });
  shuffle("idx", 7, 31, [](int) { return std::pair{7, true}; });
  shuffle("idx", 39, 31, [](int) { return std::pair{7, true}; });  // five bits count
  // Segments of 8: the mask (32 - 8) << 8.
  shuffle("up", 2, 24 << 8, [](int i) { return std::pair{i % 8 >= 2 ? i - 2 : i, i % 8 >= 2}; });
  shuffle("down", 2, 24 << 8 | 31, [](int i) { return std::pair{i % 8 < 6 ? i + 2 : i, i % 8 < 6}; });
  shuffle("idx", 3, 24 << 8 | 31, [](int i) { return std::pair{i / 8 * 8 + 3, true}; });
  shuffle("idx", 11, 24 << 8 | 31, [](int i) { return std::pair{i / 8 * 8 + 3, true}; });
  // Across segments bfly asks upwards only in vain: the upper bound is the segment's end.
  shuffle("bfly", 8, 24 << 8 | 31, [](int i) { return std::pair{i & 8 ? i ^ 8 : i, (i & 8) != 0}; });
  // A clamp below 31.
  shuffle("down", 1, 15, [](int i) { return std::pair{i < 15 ? i + 1 : i, i < 15}; });
  // Without a predicate, and a source lane that differs by lane.
  Op op("shfl.sync.idx.b32 %d0, %a0, %a1, 31, -1;", "w", "ww");
  for (Bits lane = 0; lane < 32; ++lane)
    op.row({lane * lane, (lane * 5 + 1) % 32}, {(lane * 5 + 1) % 32 * ((lane * 5 + 1) % 32)});
}

CUDASIM_TEST("opcodes: vote all, any, uni, ballot, with and without negation") {
  Op op(
      "vote.sync.all.pred %d0, %a0, -1; vote.sync.any.pred %d1, %a0, -1; vote.sync.uni.pred %d2, %a0, -1; "
      "vote.sync.ballot.b32 %d3, %a0, -1; "
      "vote.sync.any.pred %d4, !%a0, -1; vote.sync.ballot.b32 %d5, !%a0, -1;",
      "pppwpw", "p");
  const auto warp = [&](uint32_t truths) {
    for (int lane = 0; lane < 32; ++lane)
      op.row({Bits{truths >> lane & 1}}, {Bits{truths == ~0u}, Bits{truths != 0}, Bits{truths == 0 || truths == ~0u},
                                          Bits{truths}, Bits{truths != ~0u}, Bits{~truths}});
  };
  for (const uint32_t truths : {0u, ~0u, 1u, 0x80000000u, 0x7fffffffu, 0x12345678u}) warp(truths);
}

CUDASIM_TEST("opcodes: match finds equal values, redux reduces") {
  Op match("match.any.sync.b32 %d0, %a0, -1; match.all.sync.b32 %d1|%d2, %a0, -1;", "wwp", "w");
  Op wide("match.any.sync.b64 %d0, %a0, -1;", "w", "d");
  for (int lane = 0; lane < 32; ++lane) {
    uint32_t same = 0;
    for (int other = 0; other < 32; ++other) same |= (other % 3 == lane % 3 ? 1u : 0u) << other;
    match.row({static_cast<Bits>(lane % 3)}, {same, 0, 0});
    wide.row({static_cast<Bits>(lane % 3) << 40}, {same});
  }
  for (int lane = 0; lane < 32; ++lane) match.row({77}, {~0u, ~0u, 1});
  Op redux(
      "redux.sync.add.u32 %d0, %a0, -1; redux.sync.min.s32 %d1, %a0, -1; redux.sync.max.s32 %d2, %a0, -1; "
      "redux.sync.min.u32 %d3, %a0, -1; "
      "redux.sync.max.u32 %d4, %a0, -1; redux.sync.and.b32 %d5, %a0, -1; redux.sync.or.b32 %d6, %a0, -1; "
      "redux.sync.xor.b32 %d7, %a0, -1;",
      "wwwwwwww", "w");
  for (uint32_t lane = 0; lane < 32; ++lane)  // -16 to 15
    redux.row({Bits{lane - 16}}, {Bits{0u - 16}, Bits{0u - 16}, 15, 0, Bits{~0u}, 0, Bits{~0u}, Bits{0}});
}

CUDASIM_TEST("opcodes: member masks name part of a warp") {
  // Odd and even lanes each among themselves.
  Op op(
      "and.b32 %a1, %a0, 1; setp.eq.u32 %d1, %a1, 1; selp.b32 %a2, 0xaaaaaaaa, 0x55555555, %d1; vote.sync.ballot.b32 "
      "%d0, %a3, %a2; "
      "redux.sync.add.u32 %d2, %a0, %a2; shfl.sync.bfly.b32 %d3, %a0, 2, 31, %a2;",
      "wpww", "wwwp");
  for (Bits lane = 0; lane < 32; ++lane) {
    const bool odd = lane & 1;
    op.row({lane, 0, 0, 1}, {odd ? 0xaaaaaaaau : 0x55555555u, Bits{odd}, odd ? 256u : 240u, lane ^ 2});
  }
  // In divergent code activemask tells who is here.
  Op diverged(
      "setp.lt.u32 %d0, %a0, 10; mov.b32 %d1, 0; @!%d0 bra OVER; activemask.b32 %d1; bar.warp.sync 0x3ff; OVER: "
      "bar.warp.sync -1;",
      "pw", "w");
  for (Bits lane = 0; lane < 32; ++lane) diverged.row({lane}, {Bits{lane < 10}, lane < 10 ? 0x3ffu : 0});
}

CUDASIM_TEST("opcodes: lane masks") {
  Op op(
      "mov.u32 %d0, %laneid; mov.u32 %d1, %lanemask_eq; mov.u32 %d2, %lanemask_lt; mov.u32 %d3, %lanemask_le; mov.u32 "
      "%d4, %lanemask_gt; mov.u32 %d5, %lanemask_ge; mov.u32 %d6, WARP_SZ;",
      "wwwwwww", "w");
  for (Bits lane = 0; lane < 32; ++lane) {
    const Bits bit = Bits{1} << lane, all = 0xffffffff;
    op.row({0}, {lane, bit, bit - 1, 2 * bit - 1, all & ~(2 * bit - 1), all & ~(bit - 1), 32});
  }
}

CUDASIM_TEST("opcodes: barriers reduce predicates over the block") {
  Bench bench(R"(
.version 8.0
.target sm_80
.address_size 64
.visible .entry count(.param .u64 out)
{
  .reg .pred %p<4>; .reg .b32 %r<6>; .reg .b64 %d<3>;
  ld.param.u64 %d0, [out];
  mov.u32 %r0, %tid.x;
  mul.wide.u32 %d1, %r0, 12;
  add.u64 %d0, %d0, %d1;
  setp.lt.u32 %p0, %r0, 40;
  barrier.cta.red.popc.aligned.u32 %r1, 0, %p0;
  st.global.u32 [%d0], %r1;
  barrier.cta.red.popc.aligned.u32 %r1, 1, !%p0;
  st.global.u32 [%d0+4], %r1;
  barrier.cta.red.and.aligned.pred %p1, 0, %p0;
  barrier.cta.red.or.aligned.pred %p2, 0, %p0;
  selp.b32 %r2, 1, 0, %p1;
  selp.b32 %r3, 2, 0, %p2;
  or.b32 %r2, %r2, %r3;
  st.global.u32 [%d0+8], %r2;
  ret;
}
)");
  const uint64_t out = bench.space(96 * 12);
  bench.run("count", {1}, {96}, out);
  const std::vector<uint32_t> got = bench.get<uint32_t>(out, 96 * 3);
  for (int i = 0; i < 96; ++i) {
    EXPECT_EQ(got[i * 3], 40u);
    EXPECT_EQ(got[i * 3 + 1], 56u);
    EXPECT_EQ(got[i * 3 + 2], 2u);
  }
}

}  // namespace cudasim::test
