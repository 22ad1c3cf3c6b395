// Gradient of an embedding: launchers of kernels/embedding.cu.
#include "kernels/embedding.h"

#include "sort.h"
#include "views.h"

namespace gradus::cuda {
namespace {

Kernel& sumKernel(DType table, DType g) {
  static FloatingKernels kernels[] = {{"embedding", "sum_float32"},
                                      {"embedding", "sum_float64"},
                                      {"embedding", "sum_float16"},
                                      {"embedding", "sum_bfloat16"}};
  return kernels[static_cast<int>(table)].of(g);
}

}  // namespace

void run_embeddingBackward(const OpCall& call) {
  static Kernel makeKeys("embedding", "gradus_embedding_keys");
  CudaDevice& device = currentDevice();
  const TensorView& out = call.out[0];
  const int64_t rows = out.sizes[0], width = out.sizes[1], n = call.in[1].numel;
  const bool accumulate = call.flag(1);
  if (!accumulate) zeroBytes(out.data, out.bytes());
  if (n == 0) return;
  const TensorView index = contiguousOf(call, call.in[1]);
  Pairs pairs = scratchPairs(call, n);
  const IndexKeys keys{index.as<char>(),
                       static_cast<int>(index.dtype),
                       static_cast<unsigned>(n),
                       static_cast<unsigned>(rows),
                       call.integer(0),
                       pairs.keys,
                       pairs.values,
                       device.failureSlot(call.name, rows)};
  launch(device, makeKeys, static_cast<uint64_t>(n), keys);
  if (width == 0) return;
  const TensorView g = contiguousOf(call, call.in[0]);
  pairs = sortPairs(call, pairs, n, static_cast<uint64_t>(rows) + 1);
  const int lanes = itemSize(g.dtype) == 2 || itemSize(out.dtype) == 2 ? 8 : 4;
  EmbeddingSum sum{g.data,
                   out.data,
                   pairs.keys,
                   pairs.values,
                   static_cast<unsigned>(n),
                   static_cast<unsigned>(rows),
                   width,
                   accumulate,
                   width % lanes == 0 && isWide(g.data) && isWide(out.data),
                   device.failureWord()};
  const unsigned threads = static_cast<unsigned>(std::clamp<int64_t>((width / lanes + 31) / 32 * 32, 32, kBlock));
  device.launch(sumKernel(out.dtype, g.dtype), blocksFor(device, static_cast<uint64_t>(n) * kBlock), threads, 0, &sum);
}

}  // namespace gradus::cuda
