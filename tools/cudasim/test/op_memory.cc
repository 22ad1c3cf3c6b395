// Loads, stores, atomics, asynchronous copies and addresses. Each lane of an Op has a shared slot of its own.
#include "reference.h"

namespace cudasim::test {

namespace {

// Text that puts a lane's shared address into %s.
const std::string kSlot =
    ".reg .b32 %s, %t0, %t1; .reg .b64 %g, %u; .shared .align 16 .b8 slots[1024]; mov.u32 %t0, %laneid; mov.u32 %s, "
    "slots; "
    "mad.lo.u32 %s, %t0, 32, %s; ";

}  // namespace

CUDASIM_TEST("opcodes: narrow loads extend by type, stores cut") {
  Op(kSlot +
         "st.shared.b32 [%s], %a0; ld.shared.s8 %d0, [%s]; ld.shared.u8 %d1, [%s+1]; ld.shared.s16 %d2, [%s+2]; "
         "ld.shared.u16 %d3, [%s+2]; "
         "ld.shared.s8 %d4, [%s+3]; ld.shared.s32 %d5, [%s];",
     "wwwwdd", "w")
      .row({0x87f6f581}, {0xffffff81, 0xf5, 0xffff87f6, 0x87f6, 0xffffffffffffff87, 0xffffffff87f6f581})
      .row({0x01020304}, {4, 3, 0x0102, 0x0102, 1, 0x01020304});
  Op(kSlot + "st.shared.b64 [%s], %a0; st.shared.b8 [%s+2], %a1; st.shared.b16 [%s+4], %a2; ld.shared.b64 %d0, [%s];",
     "d", "dww")
      .row({0x1122334455667788, 0xffffffab, 0xffffcdef}, {0x1122cdef55ab7788});
  Op(kSlot + "st.shared.b32 [%s], %a0; ld.shared.b8 %d0, [%s+3]; ld.shared.s8 %d1, [%s+3];", "hh", "w")
      .row({0x87000000}, {0x87, 0xff87});
}

CUDASIM_TEST("opcodes: vectors lie in the order of their elements") {
  Op(kSlot +
         "st.shared.v4.b32 [%s], {%a0, %a1, %a2, %a3}; ld.shared.v2.b64 {%d0, %d1}, [%s]; ld.shared.v4.u8 {%d2, %d3, "
         "%d4, %d5}, [%s+4]; ld.shared.v2.b16 {%d6, %d7}, [%s+12];",
     "ddwwwwhh", "wwww")
      .row({0x11111111, 0x87654321, 0x33333333, 0x4444aaaa},
           {0x8765432111111111, 0x4444aaaa33333333, 0x21, 0x43, 0x65, 0x87, 0xaaaa, 0x4444});
  Op(kSlot + "st.shared.v2.f64 [%s], {%a0, %a1}; ld.shared.v4.f32 {%d0, %d1, %d2, %d3}, [%s];", "wwww", "dd")
      .row({0x2222222211111111, 0x4444444433333333}, {0x11111111, 0x22222222, 0x33333333, 0x44444444});
}

CUDASIM_TEST("opcodes: generic addresses reach shared, local and parameter memory; isspacep tells them apart") {
  Op op(".reg .b64 %u0; " + kSlot +
            "cvt.u64.u32 %u0, %s; cvta.shared.u64 %g, %u0; st.b32 [%g], %a0; ld.shared.b32 %d0, [%s]; isspacep.shared "
            "%d1, %g; "
            "isspacep.local %d2, %g; isspacep.global %d3, %g; cvta.to.shared.u64 %u, %g; cvt.u32.u64 %d4, %u; sub.u32 "
            "%d4, %d4, %s;",
        "wpppw", "w");
  op.row({0xabcdef01}, {0xabcdef01, 1, 0, 0, 0});
  Op(".local .align 8 .b8 mine[16]; .reg .b64 %g; .reg .b64 %u; mov.u64 %u, mine; cvta.local.u64 %g, %u; st.b64 "
     "[%g+8], %a0; ld.local.b64 %d0, [mine+8]; isspacep.local %d1, %g; "
     "isspacep.shared %d2, %g; isspacep.global %d3, %from; isspacep.local %d4, %from;",
     "dpppp", "d")
      .row({0x1122334455667788}, {0x1122334455667788, 1, 0, 1, 0})
      .row({5}, {5, 1, 0, 1, 0});
}

CUDASIM_TEST("opcodes: atomics return the old value and leave the new one") {
  const auto check = [](const std::string& opcode, char type, Bits old, const Row& operands, Bits next) {
    const std::string l(1, type),
        bits = type == 'h'   ? "16"
               : type == 'w' ? "32"
                             : "64",
        second = operands.size() == 2 ? ", %a2" : "";
    Row in = {old};
    in.insert(in.end(), operands.begin(), operands.end());
    const std::string types(in.size(), type);
    for (const std::string space : {"shared", "generic"}) {
      const std::string address = space == "shared" ? "%s" : "%g", name = space == "shared" ? "atom.shared." : "atom.";
      Op(".reg .b64 %u0; " + kSlot + "cvt.u64.u32 %u0, %s; cvta.shared.u64 %g, %u0; st.shared.b" + bits +
             " [%s], %a0; " + name + opcode + " %d0, [" + address + "], %a1" + second + "; ld.shared.b" + bits +
             " %d1, [%s];",
         l + l, types)
          .row(in, {old, next});
      if (operands.size() == 1 && opcode.substr(0, 4) != "exch")
        Op(kSlot + "st.shared.b" + bits + " [%s], %a0; red.shared." + opcode + " [%s], %a1; ld.shared.b" + bits +
               " %d0, [%s];",
           l, types)
            .row(in, {next});
    }
  };
  check("add.u32", 'w', 0xffffffff, {3}, 2);
  check("add.s32", 'w', 5, {0xfffffffe}, 3);
  check("add.u64", 'd', ~Bits{0}, {3}, 2);
  check("add.f32", 'w', bitsOf(1.5f), {bitsOf(2.25f)}, bitsOf(3.75f));
  check("add.f64", 'd', bitsOf(1.5), {bitsOf(2.25)}, bitsOf(3.75));
  check("add.noftz.f16x2", 'w', 0x3c004000, {0x40003c00}, 0x42004200);
  check("add.noftz.bf16x2", 'w', 0x3f804000, {0x40003f80}, 0x40404040);
  check("add.noftz.f16", 'h', 0x3c00, {0x4000}, 0x4200);
  check("min.s32", 'w', 0xffffffff, {1}, 0xffffffff);
  check("min.u32", 'w', 0xffffffff, {1}, 1);
  check("max.s32", 'w', 0xffffffff, {1}, 1);
  check("max.u64", 'd', Bits{1} << 63, {1}, Bits{1} << 63);
  check("min.s64", 'd', Bits{1} << 63, {1}, Bits{1} << 63);
  check("and.b32", 'w', 0xff00ff00, {0x0ff00ff0}, 0x0f000f00);
  check("or.b32", 'w', 0xff00ff00, {0x0ff00ff0}, 0xfff0fff0);
  check("xor.b64", 'd', 0xff00ff00, {0x0ff00ff0}, 0xf0f0f0f0);
  check("inc.u32", 'w', 4, {5}, 5);
  check("inc.u32", 'w', 5, {5}, 0);
  check("inc.u32", 'w', 9, {5}, 0);
  check("dec.u32", 'w', 4, {5}, 3);
  check("dec.u32", 'w', 0, {5}, 5);
  check("dec.u32", 'w', 9, {5}, 5);
  check("exch.b32", 'w', 4, {5}, 5);
  check("exch.b64", 'd', 4, {5}, 5);
  check("cas.b32", 'w', 4, {4, 9}, 9);
  check("cas.b32", 'w', 4, {5, 9}, 4);
  check("cas.b64", 'd', 4, {4, 9}, 9);
  check("cas.b16", 'h', 4, {4, 9}, 9);
  // Float32 sums flush denormals on global memory and keep them in shared memory.
  check("add.f32", 'w', 0x00000003, {0x00000004}, 0x00000007);
  Op("st.global.b32 [%to], %a0; atom.global.add.f32 %d0, [%to], %a1; ld.global.b32 %d0, [%to];", "w", "ww")
      .row({3, 4}, {0})
      .row({bitsOf(1.0f), 4}, {bitsOf(1.0f)});
}

CUDASIM_TEST("opcodes: cp.async copies 4, 8 and 16 bytes and fills with zeros what is not read") {
  const std::string finish = " cp.async.commit_group; cp.async.wait_group 0; ld.shared.v2.b64 {%d0, %d1}, [%s];";
  const std::string begin = kSlot + "st.shared.v2.b64 [%s], {-1, -1}; ";
  const Row in = {0x1122334455667788, 0x99aabbccddeeff00};
  Op(begin + "cp.async.cg.shared.global [%s], [%from], 16;" + finish, "dd", "dd")
      .row(in, {in[0], in[1]})
      .row({1, 2}, {1, 2});
  Op(begin + "cp.async.ca.shared.global [%s], [%from+8], 8;" + finish, "dd", "dd").row(in, {in[1], ~Bits{0}});
  Op(begin + "cp.async.ca.shared.global [%s+4], [%from+4], 4;" + finish, "dd", "dd")
      .row(in, {0x11223344ffffffff, ~Bits{0}});
  Op(".reg .b32 %n; mov.u32 %n, 6; " + begin + "cp.async.cg.shared.global [%s], [%from], 16, %n;" + finish, "dd", "dd")
      .row(in, {0x0000334455667788, 0});
  Op(".reg .b32 %n; mov.u32 %n, 0; " + begin + "cp.async.ca.shared.global [%s], [%from], 8, %n;" + finish, "dd", "dd")
      .row(in, {0, ~Bits{0}});
  Op(".reg .pred %z; setp.eq.u32 %z, 0, 0; " + begin +
         "cp.async.ca.shared.global [%s], [%from], 8, %z; cp.async.wait_all;" + finish,
     "dd", "dd")
      .row(in, {0, ~Bits{0}});
}

CUDASIM_TEST("opcodes: what the machine does not know is refused when the module loads") {
  CHECK(isRefused("frobnicate.u32 %d0, %a0;", "w", "w"));
  CHECK(isRefused("add.rn.u32 %d0, %a0, %a0;", "w", "w"));
  CHECK(isRefused("add.f32.rn %d0, %a0, %a0;", "w", "w"));
  CHECK(isRefused("add.f32 %d0, %a0;", "w", "w"));
  CHECK(isRefused("add.f32 %d0, %a0, %a0;", "w", "d"));
  CHECK(isRefused("add.f32 %d0, %a0, %nothing;", "w", "w"));
  CHECK(isRefused("cvt.f32.s32 %d0, %a0;", "w", "w"));
  CHECK(isRefused("cvt.s32.f32 %d0, %a0;", "w", "w"));
  CHECK(isRefused("ld.global.v3.f32 {%d0, %d0, %d0}, [%from];", "w", "w"));
  CHECK(isRefused("st.const.f32 [%from], %a0;", "w", "w"));
  CHECK(isRefused("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 %d0, %a0, %a0, %a0;", "w", "w"));
  CHECK(isRefused("wgmma.fence.sync.aligned;", "w", "w"));
  CHECK(isRefused("bra NOWHERE;", "w", "w"));
  CHECK(isRefused("call (%d0), vprintf, (%a0, %a0);", "w", "d"));
  CHECK(isRefused("shfl.up.b32 %d0, %a0, 1, 0;", "w", "w"));  // without .sync
  CHECK(!isRefused("add.f32 %d0, %a0, %a0;", "w", "w"));
}

}  // namespace cudasim::test
