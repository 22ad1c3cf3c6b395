// What launchers of kernels over rows share: blocks, threads of a row, and walks over dims.
#pragma once

#include "../core/loop.h"
#include "kernels/walk.h"
#include "views.h"

namespace gradus::cuda {

// A block an item, up to a number of blocks that fills every device many times over; kernels stride by the grid.
template <class Arguments>
void launchRounds(Kernel& kernel, int64_t items, const Arguments& arguments, unsigned threads = kBlock) {
  constexpr int64_t kMostBlocks = int64_t{1} << 20;
  Arguments copy = arguments;
  currentDevice().launch(kernel, static_cast<unsigned>(std::clamp<int64_t>(items, 1, kMostBlocks)), threads, 0, &copy);
}

// Operand `k` of a loop whose elements have so many bytes.
inline Walk walkOf(const Loop& loop, int k, size_t itemSize) {
  Walk walk{loop.rank, {}, {}};
  for (int d = 0; d < loop.rank; ++d) {
    walk.sizes[d] = loop.sizes[d];
    walk.strides[d] = loop.strides[k][d] * static_cast<int64_t>(itemSize);
  }
  return walk;
}

// Threads that share a row, when each takes `each` elements of it: a power of two up to 32, or the block.
inline int threadsFor(int64_t elements, int64_t each) {
  const int64_t wanted = (elements + each - 1) / each;
  if (wanted > 32) return kBlock;
  int threads = 1;
  while (threads < 32 && threads < wanted) threads *= 2;
  return threads;
}

// Threads whose registers hold a row, where the block's can (kHeldPacks of kernels/rows.cuh): a power of two. Beyond a
// warp they are a block of their own, so that a multiprocessor has as many rows under way as it has threads for.
inline int threadsHolding(int64_t size, DType dtype, bool packed) {
  const int64_t each = packed ? 4 * (16 / static_cast<int64_t>(itemSize(dtype))) : 8;
  int threads = 1;
  while (threads < static_cast<int>(kBlock) && threads * each < size) threads *= 2;
  return threads;
}

// Rows that such groups of threads share.
template <class Arguments>
void launchRows(Kernel& kernel, int64_t rows, const Arguments& arguments) {
  const int64_t threads = arguments.threads <= 32 ? kBlock : arguments.threads, groups = threads / arguments.threads;
  launchRounds(kernel, (rows + groups - 1) / groups, arguments, static_cast<unsigned>(threads));
}

}  // namespace gradus::cuda
