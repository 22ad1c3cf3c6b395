// Reading and writing by index: launchers of kernels/index.cu.
#include "kernels/index.h"

#include <array>

#include "../core/loop.h"
#include "sort.h"
#include "views.h"

namespace gradus::cuda {
namespace {

static_assert(kPointwiseRank == kMaxRank);

constexpr int64_t kMostElements = int64_t{1} << 31;  // of one launch, exclusive: see Divider

// Row-major view around one dim: element (o, i, n) of [outer, size, inner] stands at (o * size + i) * inner + n.
struct Around {
  int64_t outer = 1, size = 1, inner = 1;
  Around(const TensorView& x, int dim) {
    for (int d = 0; d < x.rank; ++d) (d < dim ? outer : d == dim ? size : inner) *= x.sizes[d];
  }
};

// Rank 0 is one element of rank 1 here.
TensorView atLeastVector(TensorView x) {
  if (x.rank == 0) {
    x.rank = 1;
    x.sizes[0] = 1;
    x.strides[0] = 1;
  }
  return x;
}

// Contiguous int64 in scratch memory, each in [0, limit) when no failure is reported.
const long long* checkedIndices(const OpCall& call, const TensorView& index, int64_t limit) {
  static Kernel kernel("index", "gradus_index_check");
  auto* out = call.scratch<long long>(static_cast<size_t>(index.numel) + 1);
  if (index.numel == 0) return out;
  const TensorView from = contiguousOf(call, index);
  const IndexCheck arguments{from.as<char>(),
                             static_cast<int>(from.dtype),
                             static_cast<uint64_t>(index.numel),
                             limit,
                             out,
                             currentDevice().failureSlot(call.name, limit)};
  launch(currentDevice(), kernel, static_cast<uint64_t>(index.numel), arguments);
  return out;
}

// One kernel for each size of an element.
struct SizedKernels {
  explicit SizedKernels(const std::string& what)
      : kernels{{"index", what + "_1"},
                {"index", what + "_2"},
                {"index", what + "_4"},
                {"index", what + "_8"},
                {"index", what + "_16"}} {}
  Kernel& of(size_t bytes) { return kernels[bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : 4]; }
  Kernel kernels[5];
};

// One kernel for each dtype that can be summed.
struct SumKernels {
  explicit SumKernels(const char* what) {
    for (int t = 0; t < kNumDTypes; ++t) {
      const DType dtype = static_cast<DType>(t), sum = isHalf(dtype) ? DType::kFloat32 : dtype;
      kernels[t] = new Kernel("index", std::string(what) + "_" + dtypeName(sum) + "_" + dtypeName(dtype));
    }
  }
  Kernel& of(DType dtype) { return *kernels[static_cast<int>(dtype)]; }
  std::array<Kernel*, kNumDTypes> kernels;
};

// out[row i] = x[row index[i]] for rows of `inner` elements, in each of `outer` tables.
void selectRows(const TensorView& x, const long long* index, const TensorView& out, const Around& at, int64_t n) {
  static SizedKernels kernels("gradus_index_rows");
  if (out.numel == 0) return;
  if (x.numel == 0) return zeroBytes(out.data, out.bytes());  // no index into what is empty passes the check
  const size_t bytes = static_cast<size_t>(at.inner) * itemSize(x.dtype);
  const bool wide = bytes % 16 == 0 && isWide(x.data) && isWide(out.data);
  const size_t unit = wide ? 16 : itemSize(x.dtype);
  const int64_t units = static_cast<int64_t>(bytes / unit), rows = at.outer * n;
  int threads = 1;
  while (threads < 32 && threads < units) threads *= 2;
  const IndexRows arguments{x.data, out.data, index, static_cast<uint64_t>(rows), n, at.size, units, threads};
  launch(currentDevice(), kernels.of(unit), static_cast<uint64_t>(rows) * threads, arguments);
}

// The walk over an index that chooses from `chosen` along `dim`; `source` lies like the index where there is one.
IndexWalk walkOf(const OpCall& call, const TensorView& index, const TensorView& chosen, const TensorView* source,
                 int dim, const long long* checked) {
  GRADUS_CHECK(index.numel < kMostElements, ErrorCode::kShape,
               "%s: too many indices for cuda: got %lld, expected fewer than 2^31", call.name,
               static_cast<long long>(index.numel));
  IndexWalk walk{};
  walk.count = static_cast<unsigned>(index.numel);
  walk.rank = index.rank;
  walk.along = chosen.strides[dim];
  walk.index = checked;
  for (int d = 0; d < index.rank; ++d) {
    walk.sizes[d] = dividerOf(static_cast<unsigned>(index.sizes[d]));
    walk.strides[d] = d == dim ? 0 : chosen.strides[d];
    walk.sourceStrides[d] = source ? source->strides[d] : 0;
  }
  return walk;
}

// The operand, or a copy of it where it shares memory with the output: no element is written before it has been read.
TensorView apartFrom(const OpCall& call, const TensorView& x) {
  const TensorView& out = call.out[0];
  int64_t low = 0, high = 0;  // the operand's reach, in elements
  for (int d = 0; d < x.rank; ++d) (x.strides[d] < 0 ? low : high) += (x.sizes[d] - 1) * x.strides[d];
  const auto item = static_cast<int64_t>(itemSize(x.dtype));
  const char *begin = x.as<char>() + low * item, *end = x.as<char>() + (high + 1) * item, *to = out.as<char>();
  if (x.numel == 0 || end <= to || to + out.bytes() <= begin) return x;
  const TensorView copy = contiguousLike(x, x.dtype, call.workspace->take(x.bytes()));
  copyView(call, x, copy);
  return copy;
}

// x copied to where sums are made: the output itself, or float32 scratch for 16-bit floats.
TensorView startSum(const OpCall& call) {
  const TensorView& x = call.in[0];
  TensorView sum = call.out[0];
  if (isHalf(x.dtype)) sum = contiguousLike(sum, DType::kFloat32, call.workspace->take(sum.numel * sizeof(float)));
  if (sum.data != x.data || !x.contiguous) copyView(call, x, sum);
  return sum;
}

void finishSum(const OpCall& call, const TensorView& sum) {
  if (sum.data != call.out[0].data) copyView(call, sum, call.out[0]);
}

// Elements of the index by their place in `out`.
Pairs sortedPlaces(const OpCall& call, const IndexWalk& walk, const TensorView& out) {
  static Kernel kernel("index", "gradus_index_places");
  GRADUS_CHECK(out.numel <= int64_t{1} << 32, ErrorCode::kShape,
               "%s: the tensor is too large for cuda: got %lld elements, expected at most 2^32", call.name,
               static_cast<long long>(out.numel));
  const Pairs pairs = scratchPairs(call, walk.count);
  launch(currentDevice(), kernel, walk.count, IndexPlaces{walk, pairs.keys, pairs.values});
  return sortPairs(call, pairs, walk.count, static_cast<uint64_t>(out.numel));
}

// Rows of the source by the row that they are added to.
Pairs sortedRows(const OpCall& call, const long long* index, int64_t n, int64_t rows) {
  GRADUS_CHECK(n < kMostElements && rows <= int64_t{1} << 32, ErrorCode::kShape,
               "%s: too many rows for cuda: got %lld of %lld, expected fewer than 2^31", call.name,
               static_cast<long long>(n), static_cast<long long>(rows));
  TensorView places;
  places.rank = 1;
  places.numel = places.sizes[0] = n;
  TensorView table = places;
  table.numel = table.sizes[0] = rows;
  table.strides[0] = 1;
  return sortedPlaces(call, walkOf(call, places, table, nullptr, 0, index), table);
}

}  // namespace

void run_gather(const OpCall& call) {
  static SizedKernels kernels("gradus_index_gather");
  const int dim = static_cast<int>(call.integer(0));
  const TensorView x = atLeastVector(call.in[0]), out = atLeastVector(call.out[0]);
  const long long* index = checkedIndices(call, call.in[1], x.sizes[dim]);
  if (out.numel == 0) return;
  if (x.numel == 0) return zeroBytes(out.data, out.bytes());
  const IndexWalk walk = walkOf(call, out, x, nullptr, dim, index);
  launch(currentDevice(), kernels.of(itemSize(x.dtype)), walk.count, IndexGather{walk, x.data, out.data});
}

void run_scatterAdd(const OpCall& call) {
  static SumKernels kernels("gradus_index_scatter_add");
  const int dim = static_cast<int>(call.integer(0));
  const TensorView box = contiguousLike(atLeastVector(call.in[1]), DType::kInt64, nullptr);
  const TensorView source = atLeastVector(apartFrom(call, call.in[2]));
  const long long* index = checkedIndices(call, call.in[1], atLeastVector(call.out[0]).sizes[dim]);
  const TensorView sum = atLeastVector(startSum(call));
  if (box.numel > 0) {
    const IndexWalk walk = walkOf(call, box, sum, &source, dim, index);
    const Pairs pairs = sortedPlaces(call, walk, sum);
    launch(currentDevice(), kernels.of(source.dtype), walk.count,
           IndexScatter{walk, source.data, sum.data, pairs.keys, pairs.values, currentDevice().failureWord()});
  }
  finishSum(call, sum);
}

void run_scatter(const OpCall& call) {
  static SizedKernels kernels("gradus_index_scatter");
  const int dim = static_cast<int>(call.integer(0));
  const TensorView& x = call.in[0];
  const TensorView box = contiguousLike(atLeastVector(call.in[1]), DType::kInt64, nullptr);
  const TensorView out = atLeastVector(call.out[0]);
  const bool given = call.nIn == 3;
  TensorView source = given ? atLeastVector(apartFrom(call, call.in[2])) : TensorView{};
  if (!given) {  // one element that stands for all
    source = contiguousLike(box, x.dtype, call.workspace->take(8));
    TensorView one = source;
    one.rank = 0;
    one.numel = 1;
    fillView(call, one, call.attr[1]);
    std::fill_n(source.strides, kMaxRank, 0);
  }
  const long long* index = checkedIndices(call, call.in[1], out.sizes[dim]);
  if (out.data != x.data || !x.contiguous) copyView(call, x, call.out[0]);
  if (box.numel == 0) return;
  const IndexWalk walk = walkOf(call, box, out, &source, dim, index);
  const Pairs pairs = sortedPlaces(call, walk, out);
  launch(currentDevice(), kernels.of(itemSize(x.dtype)), walk.count,
         IndexScatter{walk, source.data, out.data, pairs.keys, pairs.values, currentDevice().failureWord()});
}

void run_indexAdd(const OpCall& call) {
  static SumKernels kernels("gradus_index_add");
  const TensorView source = contiguousOf(call, apartFrom(call, call.in[2]));
  const Around at(call.in[0], static_cast<int>(call.integer(0)));
  const int64_t n = call.in[1].numel;
  const long long* index = checkedIndices(call, call.in[1], at.size);
  const TensorView sum = startSum(call);
  if (source.numel > 0) {
    const Pairs pairs = sortedRows(call, index, n, at.size);
    launch(currentDevice(), kernels.of(source.dtype), static_cast<uint64_t>(n) * kBlock,
           IndexAdd{source.data, sum.data, pairs.keys, pairs.values, static_cast<unsigned>(n), at.outer, at.size,
                    at.inner, call.attr[1], currentDevice().failureWord()});
  }
  finishSum(call, sum);
}

void run_indexSelect(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  const Around at(x, static_cast<int>(call.integer(0)));
  const long long* index = checkedIndices(call, call.in[1], at.size);
  selectRows(x, index, call.out[0], at, call.in[1].numel);
}

void run_embedding(const OpCall& call) {
  const TensorView weight = contiguousOf(call, call.in[1]);
  const long long* rows = checkedIndices(call, call.in[0], weight.sizes[0]);
  selectRows(weight, rows, call.out[0], Around(weight, 0), call.in[0].numel);
}

}  // namespace gradus::cuda
