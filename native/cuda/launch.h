// How big a grid is, and launching on the device that the calling executor belongs to.
#pragma once

#include <algorithm>

#include "device.h"
#include "kernels/pointwise.h"

namespace gradus::cuda {

constexpr unsigned kBlock = 256;  // threads: eight blocks fill a multiprocessor of 2048

// Blocks of a grid-stride loop over `items`, one a thread: enough to fill the device, and no more.
inline unsigned blocksFor(const CudaDevice& device, uint64_t items) {
  const uint64_t wanted = (items + kBlock - 1) / kBlock;
  return static_cast<unsigned>(
      std::clamp<uint64_t>(wanted, 1, 8u * static_cast<unsigned>(device.opened.multiprocessors)));
}

// For sizes below 2^31. An empty dim is never divided by, and counts as one of 1.
inline Divider dividerOf(unsigned size) {
  if (size == 0) size = 1;
  unsigned shift = 0;
  while ((uint64_t{1} << shift) < size) ++shift;
  const uint64_t power = uint64_t{1} << shift;
  return {size, static_cast<unsigned>(((power - size) << 32) / size + 1), shift};
}

// The arguments of a kernel are one struct.
template <class Arguments>
void launchBlocks(CudaDevice& device, Kernel& kernel, uint64_t blocks, const Arguments& arguments) {
  Arguments copy = arguments;
  device.launch(kernel, static_cast<unsigned>(blocks), kBlock, 0, &copy);
}

// The same for a grid-stride loop over `items`.
template <class Arguments>
void launch(CudaDevice& device, Kernel& kernel, uint64_t items, const Arguments& arguments) {
  launchBlocks(device, kernel, blocksFor(device, items), arguments);
}

}  // namespace gradus::cuda
