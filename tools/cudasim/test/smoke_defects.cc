// The second set of defects and clean twins; see kernels/defects.cu.
#include "finds.h"

namespace cudasim::test {

FINDS(defects, localOverrun, kOutOfBounds) { bench.run("localOverrun", {1}, {32}, bench.space(128), 3, bad); }
FINDS(defects, localUnwritten, kUninitializedLocal) {
  bench.run("localUnwritten", {1}, {32}, bench.space(128), 8, bad);
}
FINDS(defects, pastDynamicShared, kOutOfBounds) {
  bench.dynamicShared = 256;
  bench.run("pastDynamicShared", {1}, {64}, bench.space(256), bad);
}
FINDS(defects, misalignedShared, kMisaligned) { bench.run("misalignedShared", {1}, {32}, bench.space(256), bad); }
FINDS(defects, vectorOverTheEnd, kOutOfBounds) {
  bench.run("vectorOverTheEnd", {1}, {32}, bench.put(std::vector<float>(128, 1)), bench.space(512), bad);
}
FINDS(defects, partlyWritten, kUninitializedGlobal) {
  const uint64_t in = bench.space(512);
  bench.memory.set(in, 0, 1, bad ? 511 : 512);
  bench.run("vectorOverTheEnd", {1}, {32}, in, bench.space(512), 0);
}
FINDS(defects, unwrittenThroughCopy, kUninitializedGlobal) {
  const uint64_t from = bad ? bench.space(512) : bench.put(std::vector<float>(128, 1)),
                 in = bench.put(std::vector<float>(128, 2));
  bench.memory.copyWithin(in, bench.memory, from, 512);
  bench.run("vectorOverTheEnd", {1}, {32}, in, bench.space(512), 0);
}
FINDS(defects, neighbouringBytes, kRaceShared) { bench.run("neighbouringBytes", {1}, {64}, bench.space(32), bad); }
FINDS(defects, sameValue, kRaceShared) { bench.run("sameValue", {1}, {64}, bench.space(256), bad); }
FINDS(defects, atomicAndPlain, kRaceLanes) { bench.run("atomicAndPlain", {1}, {64}, bench.space(256), bad); }
FINDS(defects, flagInBlock, kRaceShared) { bench.run("flagInBlock", {1}, {64}, bench.space(4), 42, bad); }
FINDS(defects, differentCounts, kExitedBarrier) { bench.run("differentCounts", {1}, {64}, bench.space(256), bad); }
FINDS(defects, wrongGroup, kCpAsyncBeforeWait) {
  bench.run("wrongGroup", {1}, {32}, bench.put(std::vector<float>(256, 1)), bench.space(512), bad);
}
FINDS(defects, notCommitted, kCpAsyncBeforeWait) {
  bench.run("notCommitted", {1}, {32}, bench.put(std::vector<float>(128, 1)), bench.space(512), bad);
}
FINDS(defects, writeInFlight, kCpAsyncBeforeWait) {
  bench.run("writeInFlight", {1}, {32}, bench.put(std::vector<float>(128, 1)), bench.space(512), bad);
}
FINDS(defects, refillWhileRead, kRaceShared) {
  bench.run("refillWhileRead", {1}, {64}, bench.put(std::vector<float>(768, 1)), bench.space(1024), bad);
}
FINDS(defects, matrixPastTheEnd, kOutOfBounds) { bench.run("matrixPastTheEnd", {1}, {32}, bench.space(128), bad); }
FINDS(defects, divergentMma, kBadMemberMask) { bench.run("divergentMma", {1}, {32}, bench.space(128), bad); }
FINDS(defects, copySizeTooLarge, kUndefinedResult) {
  bench.run("copySizeTooLarge", {1}, {32}, bench.put(std::vector<float>(128, 1)), bench.space(512), bad);
}
FINDS(defects, stopsItself, kTrap) { bench.run("stopsItself", {1}, {32}, bench.space(128), bad); }
FINDS(defects, shuffleFromExited, kInactiveShuffle) {
  bench.run("shuffleFromExited", {1}, {32}, bench.space(128), bad);
}
FINDS(defects, missingGridBarrier, kRaceBlocks) {
  bench.cooperative = true;
  bench.run("missingGridBarrier", {8}, {1}, bench.put(std::vector<int>(8, 0)), bench.space(32), bad);
}
FINDS(defects, fenceTooNarrow, kRaceBlocks) {
  bench.cooperative = true;
  bench.run("fenceTooNarrow", {2}, {1}, bench.space(4), bench.put(std::vector<int>(1, 0)), bench.space(4), bad);
}
FINDS(defects, warpTree, kRaceLanes) { bench.run("warpTree", {1}, {32}, bench.space(128), bad); }
FINDS(defects, nullPointer, kOutOfBounds) { bench.run("nullPointer", {1}, {32}, uint64_t{0}, bench.space(128), bad); }
FINDS(defects, tooManyResidentBlocks, kGridLimit) {
  bench.cooperative = true;
  bench.run("stopsItself", {bad ? 108 * 32 + 1u : 4u}, {32}, bench.space(128), 0);
}
FINDS(defects, tooFewParameters, kBadLaunch) {
  std::vector<std::byte> params(bad ? 8 : 12);
  const uint64_t out = bench.space(128);
  std::memcpy(params.data(), &out, 8);
  launch(bench.device, {.kernel = bench.module->find("stopsItself"),
                        .instance = &bench.instance,
                        .grid = {1},
                        .block = {32},
                        .params = params});
}

CUDASIM_TEST("defects: checks can be switched off one by one") {
  const auto runs = [](auto off, const char* kernel, auto... args) {
    Bench bench(compiled("defects"));
    off(bench.options);
    bench.run(kernel, {1}, {64}, bench.space(1024), args...);
  };
  runs([](Options& o) { o.checkRaces = false; }, "neighbouringBytes", 1);
  runs([](Options& o) { o.checkRaces = false; }, "atomicAndPlain", 1);
  runs([](Options& o) { o.checkInitialized = false; }, "localUnwritten", 8, 1);
  Bench tree(compiled("defects"));
  tree.options.checkLanes = false;
  tree.run("warpTree", {1}, {32}, tree.space(128), 1);
}

}  // namespace cudasim::test
