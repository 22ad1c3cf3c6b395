// Every check finds its defect in a kernel as nvcc compiles it, and passes the twin that is right, in several orders.
#include "finds.h"

namespace cudasim::test {

FINDS(checks, pastTheEnd, kOutOfBounds) { bench.run("pastTheEnd", {1}, {32}, bench.space(128), 32, bad); }
FINDS(checks, beforeTheStart, kOutOfBounds) {
  bench.run("pastTheEnd", {1}, {32}, bench.space(256) + 128, bad ? -64 : 0, bad);
}
FINDS(checks, misaligned, kMisaligned) {
  bench.run("misaligned", {1}, {32}, bench.put(std::vector<float>(256, 1)), bench.space(512), bad);
}
FINDS(checks, useAfterFree, kUseAfterFree) {
  const uint64_t out = bench.space(256);
  if (bad) bench.memory.release(out);
  bench.run("pastTheEnd", {1}, {32}, out, 32, 0);
}
FINDS(checks, hostDereference, kHostDereference) {
  std::vector<float> host(32);
  bench.run("pastTheEnd", {1}, {32}, bad ? reinterpret_cast<uint64_t>(host.data()) : bench.space(128), 32, 0);
}
FINDS(checks, peerAccess, kPeerAccess) {
  Memory other(1);
  const uint64_t out = other.allocate(128, "other");
  if (!bad) bench.device.peers = {&other};
  bench.run("pastTheEnd", {1}, {32}, out, 32, 0);
}
FINDS(checks, uninitializedGlobal, kUninitializedGlobal) {
  const uint64_t in = bad ? bench.space(1024) : bench.put(std::vector<float>(256, 1));
  bench.run("misaligned", {1}, {32}, in, bench.space(512), 0);
}
FINDS(checks, unwrittenShared, kUninitializedShared) { bench.run("unwrittenShared", {2}, {64}, bench.space(256), bad); }
FINDS(checks, missingBarrier, kRaceShared) { bench.run("missingBarrier", {1}, {64}, bench.space(256), bad); }
FINDS(checks, writeAfterRead, kRaceShared) { bench.run("writeAfterRead", {1}, {64}, bench.space(256), bad); }
FINDS(checks, missingSyncwarp, kRaceLanes) { bench.run("missingSyncwarp", {1}, {32}, bench.space(128), bad); }
FINDS(checks, globalInBlock, kRaceGlobal) {
  bench.run("globalInBlock", {1}, {64}, bench.space(256), bench.put(std::vector<float>(64, 1)), bad);
}
FINDS(checks, betweenBlocks, kRaceBlocks) {
  bench.run("betweenBlocks", {8}, {32}, bench.put(std::vector<float>(1, 0)), bad);
}
FINDS(checks, noFence, kRaceBlocks) {
  bench.run("noFence", {9}, {64}, bench.space(36), bench.put(std::vector<unsigned>(1, 0)), bench.space(4), bad);
}
FINDS(checks, flagChain, kRaceBlocks) {
  bench.cooperative = true;
  bench.run("flagChain", {5}, {32}, bench.put(std::vector<float>(1, 0)), bench.put(std::vector<unsigned>(1, 0)), bad);
}
FINDS(checks, divergentBarrier, kDivergentBarrier) { bench.run("divergentBarrier", {1}, {64}, bench.space(256), bad); }
FINDS(checks, earlyExit, kExitedBarrier) { bench.run("earlyExit", {1}, {64}, bench.space(256), bad); }
FINDS(checks, wrongMask, kBadMemberMask) { bench.run("wrongMask", {1}, {32}, bench.space(128), bad); }
FINDS(checks, notInOwnMask, kBadMemberMask) { bench.run("notInOwnMask", {1}, {32}, bench.space(128), bad); }
FINDS(checks, inactiveSource, kInactiveShuffle) { bench.run("inactiveSource", {1}, {32}, bench.space(128), bad); }
FINDS(checks, noWait, kCpAsyncBeforeWait) {
  bench.run("noWait", {1}, {64}, bench.put(std::vector<float>(256, 1)), bench.space(1024), bad);
}
FINDS(checks, waitWithoutBarrier, kRaceShared) {
  bench.run("waitWithoutBarrier", {1}, {64}, bench.put(std::vector<float>(256, 1)), bench.space(1024), bad);
}
FINDS(checks, endless, kWatchdog) {
  bench.options.watchdog = 100000;
  bench.run("endless", {1}, {32}, bench.put(std::vector<int>(1, 0)), bad);
}
FINDS(checks, uninitializedRegister, kUninitializedRegister) {
  bench.run("uninitializedRegister", {1}, {32}, bench.space(128), bad);
}
FINDS(checks, throughConstantCache, kRaceGlobal) {
  const uint64_t data = bench.put(std::vector<float>(32, 1));
  bench.run("throughConstantCache", {1}, {32}, data, data, bad);
}
FINDS(checks, writesConstant, kReadOnly) { bench.run("writesConstant", {1}, {32}, bench.space(128), bad); }
FINDS(checks, betweenVariables, kOutOfBounds) { bench.run("betweenVariables", {1}, {32}, bench.space(128), 32, bad); }
FINDS(checks, namedBarriers, kRaceShared) { bench.run("namedBarriers", {1}, {64}, bench.space(256), bad); }
FINDS(checks, launchBounds, kLaunchBounds) {
  bench.run("pastTheEnd", {1}, {bad ? 2048u : 32u}, bench.space(128), 32, 0);
}
FINDS(checks, sharedLimit, kSharedLimit) {
  bench.dynamicShared = bad ? 164 << 10 : 100 << 10;
  bench.run("pastTheEnd", {1}, {32}, bench.space(128), 32, 0);
}
FINDS(checks, gridLimit, kGridLimit) { bench.run("pastTheEnd", {1, bad ? 70000u : 1u}, {1}, bench.space(128), 32, 0); }

CUDASIM_TEST("checks: what blocks hand on raises nothing, however their host threads interleave") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Bench bench(compiled("checks"));
    bench.options.seed = seed;
    bench.options.hostThreads = 4;
    bench.run("noFence", {9}, {64}, bench.space(36), bench.put(std::vector<unsigned>(1, 0)), bench.space(4), 0);
    bench.cooperative = true;
    bench.run("flagChain", {5}, {32}, bench.put(std::vector<float>(1, 0)), bench.put(std::vector<unsigned>(1, 0)), 0);
  }
}

CUDASIM_TEST("checks: lanes of a warp that spin for each other get on") {
  Bench bench(compiled("checks"));
  const uint64_t lock = bench.put(std::vector<int>(1, 0)), count = bench.put(std::vector<int>(1, 0));
  bench.run("laneLock", {3}, {64}, lock, count);
  EXPECT_EQ(bench.get<int>(count, 1)[0], 192);
}

CUDASIM_TEST("checks: a lock may pass from hand to hand a hundred times") {
  Bench bench(compiled("checks"));
  bench.options.hostThreads = 2;
  std::vector<uint64_t> at;
  for (int i = 0; i < 3; ++i) at.push_back(bench.put(std::vector<int>(1, 0)));
  bench.run("largest", {60}, {256}, at[0], at[1], at[2]);
  EXPECT_EQ(bench.get<int>(at[2], 1)[0], 480);
}

CUDASIM_TEST("checks: findings can be collected, one for each instruction") {
  Bench bench(compiled("checks"));
  std::vector<Finding> findings;
  bench.options.findings = &findings;
  bench.run("missingBarrier", {2}, {64}, bench.space(256), 1);
  CHECK(!findings.empty() && findings.size() <= 3);
  for (const Finding& f : findings)
    CHECK(f.fault == Fault::kRaceShared || f.fault == Fault::kRaceBlocks || f.fault == Fault::kUninitializedShared);
}

CUDASIM_TEST("checks: a message names kernel, fault, place, allocation and source") {
  Bench bench(compiled("checks"));
  const uint64_t out = bench.space(128, "result");
  const Finding f = bench.fails("pastTheEnd", {1}, {32}, out, 32, 1);
  EXPECT_EQ(f.kernel, "pastTheEnd");
  EXPECT_EQ(f.address, out + 128);
  CHECK(f.line > 0);
  CHECK(f.message.find("out of bounds: writes 4 bytes") != std::string::npos);
  CHECK(f.message.find("0 bytes past the end of 'result' (128 bytes") != std::string::npos);
  CHECK(f.message.find("st.global") != std::string::npos);
}

}  // namespace cudasim::test
