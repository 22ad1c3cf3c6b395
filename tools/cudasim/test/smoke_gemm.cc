// Matrix products as nvcc compiles them, against double precision.
#include <random>

#include "test.h"

namespace cudasim::test {

CUDASIM_TEST("smoke: a tiled float32 product agrees with double precision") {
  Bench bench(compiled("gemm"));
  const int M = 64, N = 96, K = 160;
  std::mt19937 engine(7);
  std::normal_distribution<float> draw;
  std::vector<float> A(M * K), B(K * N);
  for (float& v : A) v = draw(engine);
  for (float& v : B) v = draw(engine);
  std::vector<double> expected(M * N, 0);
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k)
      for (int n = 0; n < N; ++n) expected[m * N + n] += static_cast<double>(A[m * K + k]) * B[k * N + n];
  const uint64_t C = bench.space(M * N * 4);
  const Counters c = bench.run("gemmTiled", {N / 32, M / 32}, {16, 16}, bench.put(A), bench.put(B), C, M, N, K);
  CHECK(worstError(bench.get<float>(C, M * N), expected) < 1e-5);
  EXPECT_EQ(c.globalBytesLoaded, static_cast<uint64_t>(N / 32 * M * K + M / 32 * K * N) * 4);
}

CUDASIM_TEST("smoke: a tensor-core product with asynchronous copies agrees with double precision") {
  Bench bench(compiled("gemm"));
  const int M = 128, N = 64, K = 96;
  // Small integers are exact in float16, and so are their sums in float32.
  std::vector<_Float16> A(M * K), B(K * N);
  for (int i = 0; i < M * K; ++i) A[i] = static_cast<_Float16>(i * 7 % 13 - 6);
  for (int i = 0; i < K * N; ++i) B[i] = static_cast<_Float16>(i * 5 % 11 - 5);
  const uint64_t C = bench.space(M * N * 4);
  bench.run("gemmMma", {N / 64, M / 64}, {128}, bench.put(A), bench.put(B), C, M, N, K);
  const std::vector<float> got = bench.get<float>(C, M * N);
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += static_cast<float>(A[m * K + k]) * static_cast<float>(B[k * N + n]);
      EXPECT_EQ(got[m * N + n], sum);
    }
}

}  // namespace cudasim::test
