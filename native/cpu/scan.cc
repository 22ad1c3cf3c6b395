// Along one dim: extrema with their indices, and running sums.
#include <cmath>

#include "../core/geometry.h"
#include "folds.h"
#include "tiles.h"

namespace gradus::cpu {

void run_copy(const OpCall& call);

namespace {

constexpr int64_t kGrain = 32768;

// NaN is larger and smaller than everything; among equals the first one stays.
template <bool kLargest, class C>
bool better(C x, C best) {
  return (kLargest ? x > best : x < best) | ((x != x) & (best == best));
}

template <class C>
void storeColumns(const TensorView* values, const TensorView& indices, int64_t first, int64_t n, const C* best,
                  const int64_t* index) {
  if (values) storerOf<C>(values->dtype)(best, values->as<char>() + first * itemSize(values->dtype), n);
  std::copy_n(index, n, indices.as<int64_t>() + first);
}

template <class C, bool kLargest>
void extremeOfRow(const Access<C>& input, const Loop& line, C& best, int64_t& index) {
  const auto extreme = foldsOf<C>(kLargest ? Fold::kMaximum : Fold::kMinimum).row;
  alignas(64) C tile[kTile];
  alignas(64) uint64_t raw[kTile];
  Chunk chunk{0, 0, false, {}};
  for (; chunk.at < line.numel; chunk.at += chunk.n) {
    chunk.n = std::min(kTile, line.numel - chunk.at);
    const C* x = input.read(line, 1, chunk, tile, raw);
    const C found = extreme(x, chunk.n, C{});
    if (chunk.at > 0 && !better<kLargest>(found, best)) continue;
    best = found;
    const C* where = std::find_if(x, x + chunk.n, [&](C v) { return v == found || (v != v && found != found); });
    index = chunk.at + (where - x);
  }
}

// Indices in a type as wide as the values: then the loop is all vectors.
template <class C, bool kLargest>
void extremeOfColumns(const Access<C>& input, const Loop& line, int64_t offset, int64_t n, C* best, int64_t* index) {
  using Index = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  Index narrow[kTile] = {};
  alignas(64) C tile[kTile];
  for (int64_t r = 0; r < line.numel; ++r) {
    int64_t position[2];
    line.seek(r, position, 2);
    input.load(input.address(offset + position[1]), r ? tile : best, n);
    if (r == 0) continue;
    const Index row = static_cast<Index>(r);
    for (int64_t i = 0; i < n; ++i) {
      const bool wins = better<kLargest>(tile[i], best[i]);
      best[i] = wins ? tile[i] : best[i];
      narrow[i] = wins ? row : narrow[i];
    }
  }
  std::copy_n(narrow, n, index);
}

template <class C, bool kLargest>
void extremes(const TensorView& in, uint64_t dims, const TensorView* values, const TensorView& indices) {
  const Geometry geometry(in, dims, true);
  const Loop& line = geometry.reduced;
  Access<C> input(in, line, 1);
  input.uniform = false;
  const int64_t grain = std::max<int64_t>(1, kGrain / geometry.count);
  if (!geometry.byColumns()) {
    parallelFor(geometry.outputs, grain, [&](int64_t first, int64_t last) {
      Access<C> row = input;
      for (int64_t i = first; i < last; ++i) {
        int64_t offsets[2], index = 0;
        geometry.kept.seek(i, offsets, 2);
        row.data = input.address(offsets[1]);
        C best{};
        extremeOfRow<C, kLargest>(row, line, best, index);
        storeColumns(values, indices, i, 1, &best, &index);
      }
    });
    return;
  }
  parallelFor((geometry.outputs + kTile - 1) / kTile, std::max<int64_t>(1, grain / kTile),
              [&](int64_t first, int64_t last) {
    const int64_t end = std::min(last * kTile, geometry.outputs);
    alignas(64) C best[kTile];
    int64_t index[kTile];
    for (int64_t at = first * kTile, n; at < end; at += n) {
      int64_t offsets[2];
      n = std::min({kTile, end - at, geometry.kept.inner() - geometry.kept.seek(at, offsets, 2)});
      extremeOfColumns<C, kLargest>(input, line, offsets[1], n, best, index);
      storeColumns(values, indices, at, n, best, index);
    }
  });
}

template <bool kLargest>
void extremesOf(const OpCall& call, int64_t dim, const TensorView* values, const TensorView& indices) {
  const TensorView& in = call.in[0];
  if (indices.numel == 0) return;
  const uint64_t dims = dim < 0 ? (uint64_t{1} << in.rank) - 1 : uint64_t{1} << dim;
  if (in.dtype == DType::kFloat64) return extremes<double, kLargest>(in, dims, values, indices);
  if (isFloating(in.dtype)) return extremes<float, kLargest>(in, dims, values, indices);
  extremes<int64_t, kLargest>(in, dims, values, indices);
}

// --- running sums --------------------------------------------------------------------------------------------------

// In float64 (integers: int64), so that the error does not grow with the length.
template <class C>
class CumulativeSum {
 public:
  using A = Accumulator<C>;

  CumulativeSum(TensorView in, TensorView out, int dim, bool reverse) {
    if (reverse) {  // the same walk from the other end
      for (TensorView* view : {&in, &out}) {
        view->data = view->as<char>() +
                     (view->sizes[dim] - 1) * view->strides[dim] * static_cast<int64_t>(itemSize(view->dtype));
        view->strides[dim] = -view->strides[dim];
      }
    }
    line_.rank = 1;
    line_.numel = line_.sizes[0] = in.sizes[dim];
    line_.strides[0][0] = out.strides[dim];
    line_.strides[1][0] = in.strides[dim];
    const TensorView outRest = without(out, dim), inRest = without(in, dim);
    const TensorView* views[] = {&outRest, &inRest};
    rest_ = makeLoop(views, 2);
    input_ = Access<C>(in, line_, 1);
    input_.uniform = false;
    output_ = Access<A>(out, line_, 0);
  }

  void run() const {
    const bool columns = rest_.innerStride(0) == 1 && rest_.innerStride(1) == 1 && rest_.inner() > 1;
    if (!columns) {
      parallelFor(rest_.numel, std::max<int64_t>(1, kGrain / line_.numel), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) sumRow(i);
      });
      return;
    }
    parallelFor((rest_.numel + kTile - 1) / kTile, std::max<int64_t>(1, kGrain / kTile / line_.numel),
                [&](int64_t first, int64_t last) {
      const int64_t end = std::min(last * kTile, rest_.numel);
      for (int64_t at = first * kTile, n; at < end; at += n) {
        int64_t offsets[2];
        n = std::min({kTile, end - at, rest_.inner() - rest_.seek(at, offsets, 2)});
        sumColumns(offsets, n);
      }
    });
  }

 private:
  void sumRow(int64_t i) const {
    int64_t offsets[2];
    rest_.seek(i, offsets, 2);
    Access<C> input = input_;
    Access<A> output = output_;
    input.data = input_.address(offsets[1]);
    output.data = output_.address(offsets[0]);
    alignas(64) C tile[kTile];
    alignas(64) A sums[kTile];
    alignas(64) uint64_t raw[kTile];
    A total = 0;
    Chunk chunk{0, 0, false, {}};
    for (; chunk.at < line_.numel; chunk.at += chunk.n) {
      chunk.n = std::min(kTile, line_.numel - chunk.at);
      const C* x = input.read(line_, 1, chunk, tile, raw);
      for (int64_t k = 0; k < chunk.n; ++k) sums[k] = total = combine<A>(Fold::kSum, total, static_cast<A>(x[k]));
      output.write(line_, chunk, sums, raw);
    }
  }

  void sumColumns(const int64_t* offsets, int64_t n) const {
    alignas(64) C tile[kTile];
    alignas(64) A total[kTile] = {};
    for (int64_t r = 0; r < line_.numel; ++r) {
      input_.load(input_.address(offsets[1] + r * line_.strides[1][0]), tile, n);
      for (int64_t i = 0; i < n; ++i) total[i] = combine<A>(Fold::kSum, total[i], static_cast<A>(tile[i]));
      output_.store(total, output_.address(offsets[0] + r * line_.strides[0][0]), n);
    }
  }

  Loop line_, rest_;
  Access<C> input_;
  Access<A> output_;
};

}  // namespace

void run_maxDim(const OpCall& call) { extremesOf<true>(call, call.integer(0), &call.out[0], call.out[1]); }
void run_minDim(const OpCall& call) { extremesOf<false>(call, call.integer(0), &call.out[0], call.out[1]); }
void run_argmax(const OpCall& call) { extremesOf<true>(call, call.integer(0), nullptr, call.out[0]); }
void run_argmin(const OpCall& call) { extremesOf<false>(call, call.integer(0), nullptr, call.out[0]); }

void run_cumsum(const OpCall& call) {
  const TensorView &in = call.in[0], &out = call.out[0];
  if (out.numel == 0) return;
  if (in.rank == 0) return run_copy(call);
  const int dim = static_cast<int>(call.integer(0));
  const bool reverse = call.flag(1);
  if (in.dtype == DType::kFloat64) return CumulativeSum<double>(in, out, dim, reverse).run();
  if (isFloating(in.dtype)) return CumulativeSum<float>(in, out, dim, reverse).run();
  CumulativeSum<int64_t>(in, out, dim, reverse).run();
}

}  // namespace gradus::cpu
