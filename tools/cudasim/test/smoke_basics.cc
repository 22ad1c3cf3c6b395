// Whole kernels as nvcc compiles them, against plain C++.
#include <cmath>
#include <random>

#include "test.h"

namespace cudasim::test {

namespace {

std::vector<float> normal(size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> draw;
  std::vector<float> values(n);
  for (float& v : values) v = draw(engine);
  return values;
}

}  // namespace

CUDASIM_TEST("smoke: a vector sum is exact, with a partial last block") {
  Bench bench(compiled("basics"));
  const int n = 1000;
  const std::vector<float> a = normal(n, 1), b = normal(n, 2);
  const uint64_t out = bench.space(n * 4);
  const Counters c = bench.run("vectorAdd", {4}, {256}, bench.put(a), bench.put(b), out, n);
  const std::vector<float> got = bench.get<float>(out, n);
  for (int i = 0; i < n; ++i) EXPECT_EQ(got[i], a[i] + b[i]);
  EXPECT_EQ(c.globalBytesLoaded, 8000u);
  EXPECT_EQ(c.globalDistinctLoaded, 8000u);
  EXPECT_EQ(c.globalBytesStored, 4000u);
  EXPECT_EQ(c.globalLoadSectors, 250u);
  EXPECT_EQ(c.threads, 1024u);
}

CUDASIM_TEST("smoke: a block reduction with shuffles sums up") {
  Bench bench(compiled("basics"));
  const int n = 5000, blocks = 4;
  const std::vector<float> in = normal(n, 3);
  const uint64_t out = bench.space(blocks * 4);
  bench.run("blockSum", {blocks}, {256}, bench.put(in), out, n);
  double sum = 0, expected = 0;
  for (const float v : bench.get<float>(out, blocks)) sum += v;
  for (const float v : in) expected += v;
  CHECK(std::fabs(sum - expected) < 1e-3);
}

CUDASIM_TEST("smoke: atomics count every element once") {
  Bench bench(compiled("basics"));
  const int n = 3000;
  std::vector<int> in(n);
  std::vector<unsigned> expected(64, 0);
  for (int i = 0; i < n; ++i) in[i] = i * 7919 % 1000, ++expected[in[i] & 63];
  const uint64_t counts = bench.put(std::vector<unsigned>(64, 0));
  bench.run("histogram", {5}, {128}, bench.put(in), counts, n);
  CHECK(bench.get<unsigned>(counts, 64) == expected);
}

CUDASIM_TEST("smoke: the last block sees what all blocks published, in any order") {
  for (const uint64_t seed : {0, 1, 2, 3}) {
    Bench bench(compiled("basics"));
    bench.options.seed = seed;
    const int n = 10000, blocks = 13;
    const std::vector<float> in = normal(n, 4);
    const uint64_t partial = bench.space(blocks * 4), out = bench.space(4);
    const uint64_t input = bench.put(in);
    double expected = 0;
    for (const float v : in) expected += v;
    for (int repeat = 0; repeat < 2; ++repeat) {
      bench.run("lastBlockSum", {blocks}, {256}, input, partial, out, n);
      CHECK(std::fabs(bench.get<float>(out, 1)[0] - expected) < 1e-2);
    }
  }
}

CUDASIM_TEST("smoke: philox gives the published bits") {
  Bench bench(compiled("basics"));
  const uint64_t out = bench.space(16 * 100);
  bench.run("philox", {1}, {128}, out, 0u, 0u, 100);
  const std::vector<uint32_t> got = bench.get<uint32_t>(out, 4);
  // Random123's known answer for counter 0 and key 0.
  CHECK((got == std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

CUDASIM_TEST("smoke: an online softmax agrees with double precision") {
  Bench bench(compiled("basics"));
  const int rows = 7, cols = 75;
  const std::vector<float> in = normal(rows * cols, 5);
  const uint64_t out = bench.space(rows * cols * 4);
  bench.run("onlineSoftmax", {4}, {64}, bench.put(in), out, rows, cols);
  std::vector<double> expected(rows * cols);
  for (int r = 0; r < rows; ++r) {
    double sum = 0;
    for (int c = 0; c < cols; ++c) sum += std::exp(static_cast<double>(in[r * cols + c]));
    for (int c = 0; c < cols; ++c) expected[r * cols + c] = std::exp(static_cast<double>(in[r * cols + c])) / sum;
  }
  CHECK(worstError(bench.get<float>(out, rows * cols), expected) < 1e-6);
}

}  // namespace cudasim::test
