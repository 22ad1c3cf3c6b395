// Seeded defects: a kernel that nvcc compiled runs with bad = 1 and must fail with a fault, and with bad = 0, its clean
// twin, and must pass; both in several orders of blocks and warps.
#pragma once

#include "test.h"

namespace cudasim::test {

template <class F>
void expectFault(const char* file, Fault fault, F run) {
  for (const uint64_t seed : {0, 1, 2}) {
    Bench clean(compiled(file));
    clean.options.seed = seed;
    run(clean, 0);
    Bench bench(compiled(file));
    bench.options.seed = seed;
    try {
      run(bench, 1);
    } catch (const SimError& e) {
      if (e.fault() != fault) throw Failure(std::string("expected ") + faultName(fault) + ", got: " + e.what());
      continue;
    }
    throw Failure("no fault was found");
  }
}

// FINDS(file, test, fault) { launches with `bench` and `bad` }
#define FINDS(file, test, fault)                                             \
  static void test(Bench& bench, int bad);                                   \
  CUDASIM_TEST(#file ": " #test) { expectFault(#file, Fault::fault, test); } \
  static void test([[maybe_unused]] Bench& bench, [[maybe_unused]] int bad)

}  // namespace cudasim::test
