// Cutting lists of tensors into launches.
#pragma once

#include "kernels/multi_tensor.h"
#include "views.h"

namespace gradus::cuda {

inline int64_t chunksOf(const TensorView& tensor) { return (tensor.numel + kListChunk - 1) / kListChunk; }

inline int64_t countChunks(const TensorView* tensors, int count) {
  int64_t chunks = 0;
  for (int i = 0; i < count; ++i) chunks += chunksOf(tensors[i]);
  return chunks;
}

// A block a chunk, and a few rounds where there are very many.
inline unsigned blocksForChunks(int chunks) {
  return static_cast<unsigned>(std::min(chunks, 64 * currentDevice().opened.multiprocessors));
}

template <class Arguments>
void launchChunks(Kernel& kernel, int chunks, Arguments& arguments) {
  static_assert(sizeof(Arguments) <= 4096);
  currentDevice().launch(kernel, blocksForChunks(chunks), kBlock, 0, &arguments);
}

// body(a list of some of the tensors) until all that have elements have had their turn; `out` may be null.
template <class Body>
void forLists(const TensorView* in, const TensorView* out, int count, const Body& body) {
  TensorList list{};
  int share = 0;
  const auto flush = [&] {
    if (list.count > 0) body(list);
    share += list.chunks;
    list.count = list.chunks = 0;
  };
  for (int i = 0; i < count; ++i) {
    if (list.count == kListTensors) flush();
    if (list.count == 0) {
      list.firstTensor = i;
      list.firstShare = share;
    }
    // empty ones too, so that a tensor's number is that of its place
    list.tensors[list.count++] = {in[i].data, out ? out[i].data : nullptr, static_cast<uint64_t>(in[i].numel),
                                  static_cast<int>(in[i].dtype), list.chunks};
    list.chunks += static_cast<int>(chunksOf(in[i]));
  }
  flush();
}

}  // namespace gradus::cuda
