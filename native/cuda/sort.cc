// Sorting: launchers of kernels/sort.cu and kernels/order.cu.
#include "sort.h"

#include <utility>

#include "kernels/sort.h"
#include "rows.h"

namespace gradus::cuda {

Pairs scratchPairs(const OpCall& call, int64_t n) {
  return {call.scratch<unsigned>(static_cast<size_t>(n) + 1), call.scratch<unsigned>(static_cast<size_t>(n) + 1)};
}

Pairs sortPairs(const OpCall& call, Pairs pairs, int64_t n, uint64_t limit) {
  static Kernel count("sort", "gradus_sort_count"), scan("sort", "gradus_sort_scan"),
      scatter("sort", "gradus_sort_scatter");
  if (n < 2) return pairs;
  CudaDevice& device = currentDevice();
  const int blocks = static_cast<int>((n + kRadixTile - 1) / kRadixTile);
  const size_t counts = static_cast<size_t>(blocks) * kRadixDigits;
  Pairs spare = scratchPairs(call, n);
  RadixScan sums{call.scratch<unsigned>(counts), static_cast<unsigned>(counts)};
  for (int shift = 0; shift < 32 && (limit - 1) >> shift > 0; shift += 8) {
    RadixPass pass{pairs.keys, pairs.values, spare.keys, spare.values, sums.counts, static_cast<unsigned>(n),
                   shift,      blocks};
    device.launch(count, static_cast<unsigned>(blocks), kRadixDigits, 0, &pass);
    device.launch(scan, 1, kScanThreads, 0, &sums);
    device.launch(scatter, static_cast<unsigned>(blocks), kRadixDigits, 0, &pass);
    std::swap(pairs, spare);
  }
  return pairs;
}

void orderLines(const OpCall& call, const TensorView& in, int dim, bool descending, const TensorView* values,
                const TensorView& indices) {
  static Kernel makeKeys("order", "gradus_order_keys"), pick("order", "gradus_order_pick");
  if (indices.numel == 0) return;
  GRADUS_CHECK(in.numel < int64_t{1} << 31, ErrorCode::kShape,
               "%s: too many elements for cuda: got %lld, expected fewer than 2^31", call.name,
               static_cast<long long>(in.numel));
  CudaDevice& device = currentDevice();
  const TensorView outRest = without(indices, dim), inRest = without(in, dim);
  const TensorView* views[] = {&outRest, &inRest};
  const Loop rest = makeLoop(views, 2);
  const size_t item = itemSize(in.dtype);
  OrderLines lines{};
  lines.in = in.as<char>();
  lines.dtype = static_cast<int>(in.dtype);
  lines.itemSize = static_cast<int>(item);
  lines.count = static_cast<unsigned>(in.numel);
  lines.size = in.rank == 0 ? 1 : static_cast<unsigned>(in.sizes[dim]);
  lines.stride = in.strides[dim] * static_cast<int64_t>(item);
  lines.rest = walkOf(rest, 1, item);
  lines.descending = descending;

  Pairs pairs = scratchPairs(call, in.numel);
  const auto sortBy = [&](OrderWord word, bool fresh, uint64_t limit) {
    launch(device, makeKeys, lines.count, OrderKeys{lines, word, fresh, pairs.keys, pairs.values});
    pairs = sortPairs(call, pairs, in.numel, limit);
  };
  sortBy(kLowWord, true, uint64_t{1} << std::min<size_t>(32, 8 * item));
  if (item == 8) sortBy(kHighWord, false, uint64_t{1} << 32);
  if (lines.count > lines.size) sortBy(kLineWord, false, lines.count / lines.size);

  const OrderPick arguments{lines,
                            pairs.values,
                            indices.rank == 0 ? 1 : static_cast<unsigned>(indices.sizes[dim]),
                            values ? values->as<char>() : nullptr,
                            indices.as<long long>(),
                            walkOf(rest, 0, 1),
                            indices.strides[dim]};
  launch(device, pick, static_cast<uint64_t>(indices.numel), arguments);
}

void run_sort(const OpCall& call) {
  orderLines(call, call.in[0], static_cast<int>(call.integer(0)), call.flag(1), &call.out[0], call.out[1]);
}

// All of the order: selecting alone would pay where k is far below the size.
void run_topk(const OpCall& call) { run_sort(call); }

}  // namespace gradus::cuda
