// How work on many tensors of any sizes is shared out.
#pragma once

#include "../core/op.h"
#include "parallel.h"

namespace gradus::cpu {

constexpr int64_t kGrain = 1 << 17;  // elements that make waking a thread worth it: 50 us or more

// body(tensor, from, to) for the ranges of elements of `count` tensors, split evenly among threads in whole cache
// lines.
template <class Body>
void forElements(const TensorView* tensors, int count, const Body& body) {
  int64_t total = 0;
  for (int i = 0; i < count; ++i) total += tensors[i].numel;
  constexpr int64_t line = 64;
  parallelFor((total + line - 1) / line, kGrain / line, [&](int64_t first, int64_t last) {
    const int64_t begin = first * line, end = std::min(total, last * line);
    int64_t start = 0;
    for (int i = 0; i < count && start < end; ++i) {
      const int64_t from = std::max(begin, start) - start, to = std::min(end - start, tensors[i].numel);
      if (from < to) body(i, from, to);
      start += tensors[i].numel;
    }
  });
}

inline int64_t countChunks(const TensorView* tensors, int count, int64_t chunk) {
  int64_t chunks = 0;
  for (int i = 0; i < count; ++i) chunks += (tensors[i].numel + chunk - 1) / chunk;
  return chunks;
}

// body(tensor, from, n, number of the chunk) for pieces of at most `chunk` elements. Pieces do not depend on the
// threads: what is computed from each and combined in order has the same bits for any number of threads.
template <class Body>
void forChunks(const TensorView* tensors, int count, int64_t chunk, const Body& body) {
  parallelFor(countChunks(tensors, count, chunk), std::max<int64_t>(1, kGrain / chunk),
              [&](int64_t begin, int64_t end) {
                int64_t start = 0;
                for (int i = 0; i < count && start < end; ++i) {
                  const int64_t chunks = (tensors[i].numel + chunk - 1) / chunk;
                  for (int64_t at = std::max(begin, start); at < std::min(end, start + chunks); ++at) {
                    const int64_t from = (at - start) * chunk;
                    body(i, from, std::min(chunk, tensors[i].numel - from), at);
                  }
                  start += chunks;
                }
              });
}

}  // namespace gradus::cpu
