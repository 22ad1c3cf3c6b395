// Threads of the CPU backend. The executor thread is the OpenMP master, so kernels call this and nothing else.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace gradus::cpu {

int numThreads();  // what kernels may use, by gradus.setNumThreads; does not change while one runs

// Splits [0, n) into one contiguous range a thread: the same split for the same n and thread count, so results are
// reproducible. Runs on one thread when n < grain (fork and join cost 2 to 5 us). body(begin, end) must not throw.
template <class Body>
void parallelFor(int64_t n, int64_t grain, const Body& body) {
  const int threads = static_cast<int>(std::min<int64_t>(numThreads(), grain > 0 ? n / grain : n));
  if (threads <= 1) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num(), of = omp_get_num_threads();
    const int64_t begin = n * t / of, end = n * (t + 1) / of;
    if (begin < end) body(begin, end);
  }
}

}  // namespace gradus::cpu
