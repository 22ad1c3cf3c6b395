// Gradient of an embedding: rows of g added up by index into a dense [V, C] table.
//
// Positions are sorted by index (stable radix sort), so a row of the table is summed in float32 in the order of
// positions and written once: deterministic, and without atomics. Only rows that no position hits are filled with
// zeros, around the caches, because the table is usually far larger than they are. With `accumulate` the sums are added
// to what is there, and no other row is touched.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "embedding.cc"
#include <hwy/foreach_target.h>

#include "rows-inl.h"
#include "views.h"

#ifndef GRADUS_CPU_EMBEDDING_ONCE
#define GRADUS_CPU_EMBEDDING_ONCE
namespace gradus::cpu {

// Positions of equal indices lie side by side; run r is order[starts[r]] to order[starts[r + 1]].
struct Runs {
  const int32_t* order;
  const int32_t* rows;
  const int32_t* starts;
  int64_t count;
};

struct TableGradient {
  const void* g;
  void* table;
  int64_t rows, width;
  bool accumulate;
  DType gDtype, tableDtype;
};

}  // namespace gradus::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace gradus::cpu::HWY_NAMESPACE {

void zeroBytes(char* to, int64_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  constexpr int64_t kLanes = hn::MaxLanes(decltype(d)());
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<intptr_t>(to) & (kLanes - 1));
  std::memset(to, 0, head);
  to += head;
  bytes -= head;
  const auto zero = hn::Zero(d);
  for (; bytes >= kLanes; bytes -= kLanes, to += kLanes) hn::Stream(zero, d, reinterpret_cast<uint8_t*>(to));
  std::memset(to, 0, bytes);
}

// Of the rows [begin, end) of the table those that no position hits.
void zeroMissedRows(const TableGradient& of, const Runs& runs, int64_t begin, int64_t end) {
  const int64_t bytes = of.width * static_cast<int64_t>(itemSize(of.tableDtype));
  char* table = static_cast<char*>(of.table);
  int64_t run = std::lower_bound(runs.rows, runs.rows + runs.count, begin) - runs.rows;
  for (int64_t row = begin; row < end; ++run) {
    const int64_t hit = run < runs.count ? std::min<int64_t>(end, runs.rows[run]) : end;
    zeroBytes(table + row * bytes, (hit - row) * bytes);
    row = hit + 1;
  }
}

// Columns [first, last) of the rows that positions hit.
template <class T, class G>
void sumRuns(const TableGradient& of, const Runs& runs, int64_t first, int64_t last) {
  using C = Compute<T>;
  const hn::ScalableTag<C> d;
  const bool stream = !of.accumulate && streamsRows(of.table, of.rows, of.width, sizeof(T));
  for (int64_t r = 0; r < runs.count; ++r) {
    T* to = static_cast<T*>(of.table) + runs.rows[r] * of.width + first;
    const auto at = [&](int64_t i) { return static_cast<const G*>(of.g) + runs.order[i] * of.width + first; };
    forVectors(d, last - first, [&](int64_t j, int64_t count) GRADUS_INLINE_BODY {
      auto sum = loadSome(d, at(runs.starts[r]) + j, count);
      for (int64_t i = runs.starts[r] + 1; i < runs.starts[r + 1]; ++i) {
        sum = hn::Add(sum, loadSome(d, at(i) + j, count));
      }
      if (of.accumulate) sum = hn::Add(sum, loadSome(d, to + j, count));
      putSome(d, sum, to + j, count, stream);
    });
  }
}

// A thread has a share of the rows that are filled with zeros and a share of the columns of those that are summed. Not
// of the runs: one index (padding, a frequent word) may have most of the positions.
template <class T, class G>
void writeTable(const TableGradient& of, const Runs& runs) {
  constexpr int64_t kColumns = 64 / sizeof(T);  // a cache line: no two threads write one
  const int64_t blocks = (of.width + kColumns - 1) / kColumns;
  const int64_t work = ((of.accumulate ? 0 : of.rows) + runs.starts[runs.count]) * of.width;
  const int64_t parts = std::clamp<int64_t>(work / 16384, 1, numThreads());
  parallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    if (!of.accumulate) zeroMissedRows(of, runs, of.rows * begin / parts, of.rows * end / parts);
    sumRuns<T, G>(of, runs, blocks * begin / parts * kColumns, std::min(of.width, blocks * end / parts * kColumns));
    hwy::FlushStream();
  });
}

void tableGradient(const TableGradient& of, const Runs& runs) {
  if (of.tableDtype == DType::kFloat64) return writeTable<double, double>(of, runs);
  visitFloating(of.tableDtype, [&](auto table) {
    visitFloating(of.gDtype, [&](auto g) {
      if constexpr (sizeof table < 8 && sizeof g < 8) writeTable<decltype(table), decltype(g)>(of, runs);
    });
  });
}

}  // namespace gradus::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradus::cpu {

HWY_EXPORT(tableGradient);

namespace {

// Positions by index, equal ones in their order; the ones of `skipped` are left out. Indices are below 2^31.
Runs sortPositions(const OpCall& call, const int64_t* index, int64_t n, int64_t rows, int64_t skipped) {
  constexpr int kBits = 11;
  constexpr int64_t kBuckets = int64_t{1} << kBits;
  int32_t *order = call.scratch<int32_t>(n + 1), *spare = call.scratch<int32_t>(n + 1);
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (index[i] != skipped) order[count++] = static_cast<int32_t>(i);
  }
  for (int shift = 0; shift < 31 && (rows - 1) >> shift > 0; shift += kBits) {
    int64_t places[kBuckets + 1] = {};
    for (int64_t i = 0; i < count; ++i) ++places[(index[order[i]] >> shift & (kBuckets - 1)) + 1];
    for (int64_t b = 0; b < kBuckets; ++b) places[b + 1] += places[b];
    for (int64_t i = 0; i < count; ++i) spare[places[index[order[i]] >> shift & (kBuckets - 1)]++] = order[i];
    std::swap(order, spare);
  }
  int32_t *hit = call.scratch<int32_t>(count + 1), *starts = call.scratch<int32_t>(count + 1);
  int64_t runs = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0 && index[order[i]] == hit[runs - 1]) continue;
    hit[runs] = static_cast<int32_t>(index[order[i]]);
    starts[runs++] = static_cast<int32_t>(i);
  }
  starts[runs] = static_cast<int32_t>(count);
  return {order, hit, starts, runs};
}

}  // namespace

void run_embeddingBackward(const OpCall& call) {
  const TensorView& out = call.out[0];
  const int64_t rows = out.sizes[0], width = out.sizes[1];
  const int64_t* index = checkedIndices(call, call.in[1], rows);
  if (out.numel == 0) return;
  const TensorView g = contiguousOf(call, call.in[0]);
  const Runs runs = sortPositions(call, index, call.in[1].numel, rows, call.integer(0));
  HWY_DYNAMIC_DISPATCH(tableGradient)({g.data, out.data, rows, width, call.flag(1), g.dtype, out.dtype}, runs);
}

}  // namespace gradus::cpu
#endif
