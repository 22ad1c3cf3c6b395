// Picks how a product is made: by cuBLASLt where it is found and has it (gemm_blas.cc), else by our own kernels, on
// tensor cores for 16-bit operands and by register tiles for others; operands that no kernel takes as they are (another
// dtype, no contiguous dim) are copied to scratch memory first.
#include "gemm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "gemm_blas.h"
#include "launch.h"

namespace gradus::cuda {

void run_copy(const OpCall&);

namespace {

constexpr int64_t kMostSize = int64_t{1} << 30;  // of m, n and k: positions are int, also a tile beyond the end
// What follows depends on shapes only, so that every device gives the same bits.
constexpr int64_t kEnoughTiles = 128;   // to fill a large device
constexpr int64_t kLeastOfSplit = 256;  // of the sum's dim
constexpr int64_t kMostSplits = 32;
constexpr int64_t kRowsOfRange = 8192;  // of column sums: 64 a thread

// What operands are rounded to: of dtypes that differ a 16-bit one, for which there are tensor cores.
DType operandDType(const Gemm& g) {
  if (g.a.dtype == DType::kFloat64) return DType::kFloat64;
  const auto has = [&](DType dtype) { return g.a.dtype == dtype || g.b.dtype == dtype || g.cDType == dtype; };
  if (has(DType::kBFloat16)) return DType::kBFloat16;
  return has(DType::kFloat16) ? DType::kFloat16 : DType::kFloat32;
}

// An operand whose columns (or, `transposed`, rows) are contiguous; strides of the other dim.
struct Prepared {
  const void* data;
  bool transposed;
  int64_t stride;
  int64_t batch[kGemmBatchRank];
};

bool isContiguous(int64_t stride, int64_t size) { return stride == 1 || size <= 1; }

// The operand in scratch memory, in the order in which it lies, with rows of whole 16 bytes.
Prepared copied(const GemmOperand& x, int64_t rows, int64_t cols, DType dtype, const Gemm& g, const OpCall& call) {
  const int64_t lanes = 16 / static_cast<int64_t>(itemSize(dtype));
  const bool transposed = x.rowStride == 1 && x.colStride != 1;
  TensorView from;
  from.data = const_cast<void*>(x.data);
  from.dtype = x.dtype;
  from.rank = static_cast<int8_t>(g.rank + 2);
  from.numel = rows * cols;
  for (int d = 0; d < g.rank; ++d) {
    from.sizes[d] = x.batch[d] == 0 ? 1 : g.sizes[d];
    from.strides[d] = x.batch[d];
    from.numel *= from.sizes[d];
  }
  from.sizes[g.rank] = transposed ? cols : rows;
  from.strides[g.rank] = transposed ? x.colStride : x.rowStride;
  from.sizes[g.rank + 1] = transposed ? rows : cols;
  from.strides[g.rank + 1] = transposed ? x.rowStride : x.colStride;
  TensorView to = from;
  to.dtype = dtype;
  Prepared result{nullptr, transposed, (from.sizes[g.rank + 1] + lanes - 1) / lanes * lanes, {}};
  to.strides[g.rank + 1] = 1;
  to.strides[g.rank] = result.stride;
  int64_t step = result.stride * from.sizes[g.rank];
  for (int d = g.rank - 1; d >= 0; --d) {
    to.strides[d] = step;
    result.batch[d] = from.sizes[d] == 1 ? 0 : step;
    step *= from.sizes[d];
  }
  to.contiguous = result.stride == from.sizes[g.rank + 1];
  from.contiguous = to.contiguous && std::equal(from.strides, from.strides + from.rank, to.strides);
  to.data = call.workspace->take(std::max<size_t>(64, static_cast<size_t>(step) * itemSize(dtype)));
  if (from.numel > 0) run_copy({call.name, &from, &to, nullptr, 1, 1, 0, call.workspace});
  result.data = to.data;
  return result;
}

Prepared prepared(const GemmOperand& x, int64_t rows, int64_t cols, DType dtype, const Gemm& g, const OpCall& call) {
  const bool byColumns = isContiguous(x.colStride, cols), byRows = isContiguous(x.rowStride, rows);
  if (x.dtype != dtype || (!byColumns && !byRows)) return copied(x, rows, cols, dtype, g, call);
  const int64_t outer = byColumns ? rows : cols;
  Prepared result{x.data, !byColumns, outer <= 1 ? 0 : byColumns ? x.rowStride : x.colStride, {}};
  std::copy(x.batch, x.batch + g.rank, result.batch);
  return result;
}

GemmMatrix matrixOf(const Prepared& x, DType dtype, int rank) {
  GemmMatrix matrix{x.data, x.stride, {}, 0};
  const int64_t lanes = 16 / static_cast<int64_t>(itemSize(dtype));
  bool vectors = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % lanes == 0;
  for (int d = 0; d < rank; ++d) {
    matrix.batch[d] = x.batch[d];
    vectors &= x.batch[d] % lanes == 0;
  }
  matrix.vectors = vectors;
  return matrix;
}

// A tile of C: its block, how many of them a multiprocessor holds, and how fast they multiply there together, relative
// to other tiles; measured on an H100.
struct Tile {
  const char* name;
  int rows, cols;
  unsigned threads, sharedBytes;
  int64_t together;
  double speed;

  int64_t count(const Gemm& g, int64_t batch) const {
    return (g.m + rows - 1) / rows * ((g.n + cols - 1) / cols) * batch;
  }
};

constexpr Tile tensorCoreTile(const char* name, int rows, int cols, int64_t together, double speed) {
  return {name, rows, cols, kGemmMmaThreads, static_cast<unsigned>(gemmMmaBytes(rows, cols)), together, speed};
}
constexpr Tile kTensorCoreTiles[] = {tensorCoreTile("mma_large", 128, 128, 2, 1),
                                     tensorCoreTile("mma_medium", 64, 128, 2, 0.8),
                                     tensorCoreTile("mma_small", 64, 64, 4, 0.6)};
constexpr Tile kTiles[] = {{"large", 128, 128, kBlock, 0, 1, 1}, {"small", 64, 64, kBlock, 0, 2, 0.8}};

// The kernels of a tile and dtype, by the four layouts of A and B.
class Kernels {
 public:
  Kernels(const char* family, DType dtype, const Tile& tile) : tile(tile) {
    const char* names[] = {"nn", "nt", "tn", "tt"};
    for (int i = 0; i < 4; ++i) {
      layouts_[i] = new Kernel(
          family, std::string("gradus_gemm_") + tile.name + "_" + names[i] + "_" + dtypeName(dtype), tile.sharedBytes);
    }
  }
  Kernel& of(const Prepared& a, const Prepared& b) const { return *layouts_[2 * a.transposed + b.transposed]; }

  const Tile& tile;

 private:
  std::array<Kernel*, 4> layouts_;
};

// The tiles of a dtype, the largest first.
const std::vector<Kernels>& kernelsOf(DType dtype) {
  const auto make = [](const char* family, DType dtype, std::span<const Tile> tiles) {
    std::vector<Kernels> kernels;
    for (const Tile& tile : tiles) kernels.emplace_back(family, dtype, tile);
    return kernels;
  };
  static const auto kFloat16 = make("gemm_mma", DType::kFloat16, kTensorCoreTiles);
  static const auto kBFloat16 = make("gemm_mma", DType::kBFloat16, kTensorCoreTiles);
  static const auto kFloat32 = make("gemm", DType::kFloat32, kTiles);
  static const auto kFloat64 = make("gemm", DType::kFloat64, std::span(kTiles).subspan(1));
  switch (dtype) {
    case DType::kFloat16:
      return kFloat16;
    case DType::kBFloat16:
      return kBFloat16;
    case DType::kFloat64:
      return kFloat64;
    default:
      return kFloat32;
  }
}

// Those that this device is done with first. Large tiles read operands less often; small ones leave less of the device
// idle at the end. The order of the sums, and so the result, is that of all.
const Kernels& chosen(const std::vector<Kernels>& kernels, const Gemm& g, int64_t count, int64_t splits) {
  const int64_t multiprocessors = currentDevice().opened.multiprocessors;
  // Fewer blocks than fit multiply less together than all, but more each: one of two reached 0.8 of both, of four 0.65.
  constexpr double kOfFewer = 0.3;
  const auto time = [&](const Kernels& each) {
    const Tile& tile = each.tile;
    const int64_t blocks = (tile.count(g, count) * splits + multiprocessors - 1) / multiprocessors;
    const int64_t last = blocks % tile.together;
    const double speedOfLast = std::pow(static_cast<double>(last) / static_cast<double>(tile.together), kOfFewer);
    const double asWhole = last == 0 ? 0 : static_cast<double>(last) / speedOfLast;
    return (static_cast<double>(blocks - last) + asWhole) * tile.rows * tile.cols / tile.speed;
  };
  return *std::min_element(kernels.begin(), kernels.end(),
                           [&](const Kernels& x, const Kernels& y) { return time(x) < time(y); });
}

// Into how many ranges the sum's dim is cut where tiles alone leave most of a device idle.
int64_t splitsOf(int64_t tiles, int64_t k) {
  if (2 * tiles > kEnoughTiles) return 1;
  return std::clamp<int64_t>(std::min(kEnoughTiles / tiles, k / kLeastOfSplit), 1, kMostSplits);
}

bool beginsOnVectors(const void* data, int64_t stride, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(itemSize(dtype)) % 16 == 0;
}

bool isWide(const Gemm& g) {
  bool wide = g.cColStride == 1 && beginsOnVectors(g.c, g.cRowStride, g.cDType);
  for (int d = 0; d < g.rank; ++d) wide &= beginsOnVectors(g.c, g.cBatch[d], g.cDType);
  if (g.gradientAt) wide &= beginsOnVectors(g.gradientAt, g.gradientRowStride, g.gradientDType);
  if (g.activated) wide &= beginsOnVectors(g.activated, g.activatedRowStride, g.cDType);
  return wide;
}

GemmArguments argumentsOf(const Gemm& g, const Prepared& a, const Prepared& b, DType dtype, const OpCall& call) {
  GemmArguments arguments{};
  arguments.m = static_cast<int>(g.m);
  arguments.n = static_cast<int>(g.n);
  arguments.k = static_cast<int>(g.k);
  arguments.rank = g.rank;
  for (int d = 0; d < g.rank; ++d) {
    arguments.sizes[d] = static_cast<int>(g.sizes[d]);
    arguments.cBatch[d] = g.cBatch[d];
  }
  arguments.a = matrixOf(a, dtype, g.rank);
  arguments.b = matrixOf(b, dtype, g.rank);
  arguments.c = g.c;
  arguments.cRow = g.cRowStride;
  arguments.cCol = g.cColStride;
  arguments.cDType = static_cast<int>(g.cDType);
  arguments.alpha = g.alpha;
  arguments.beta = g.beta;
  arguments.factor = g.factor;
  arguments.bias = g.bias;
  arguments.biasDType = static_cast<int>(g.biasDType);
  arguments.activation = static_cast<int>(g.activation);
  arguments.gradientAt = g.gradientAt;
  arguments.gradientRow = g.gradientRowStride;
  arguments.gradientDType = static_cast<int>(g.gradientDType);
  arguments.activated = g.activated;
  arguments.activatedRow = g.activatedRowStride;
  if (g.beta != 0) arguments.failure = currentDevice().failureWord();
  arguments.wide = isWide(g);
  arguments.live = g.live;
  arguments.splits = 1;
  return arguments;
}

// Sums of ranges to scratch memory, and from there to C.
void gemmInSplits(const GemmArguments& product, Kernel& kernel, unsigned threads, DType dtype, int64_t tiles,
                  int64_t count, int64_t splits, const OpCall& call) {
  static Kernel single("gemm", "gradus_gemm_join_float32"), twice("gemm", "gradus_gemm_join_float64");
  const DType compute = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const int64_t ofEntry = int64_t{product.m} * product.n, ofSplit = count * ofEntry;
  GemmArguments parts = product;
  parts.depthOfSplit = static_cast<int>(((product.k + splits - 1) / splits + 31) / 32 * 32);  // whole steps
  parts.splits = static_cast<int>((product.k + parts.depthOfSplit - 1) / parts.depthOfSplit);
  parts.splitStride = ofSplit;
  void* sums = call.workspace->take(static_cast<size_t>(parts.splits * ofSplit) * itemSize(compute));
  GemmJoin join{parts, sums, 0};
  parts.c = sums;
  parts.cDType = static_cast<int>(compute);
  parts.cRow = product.n;
  parts.cCol = 1;
  int64_t step = ofEntry;
  for (int d = product.rank - 1; d >= 0; --d) {
    parts.cBatch[d] = step;
    step *= product.sizes[d];
  }
  parts.alpha = 1;
  parts.factor = nullptr;
  parts.beta = 0;
  parts.bias = parts.gradientAt = nullptr;
  parts.activated = nullptr;
  parts.activation = 0;
  parts.wide = product.n * itemSize(compute) % 16 == 0;
  CudaDevice& device = currentDevice();
  device.launch(kernel, static_cast<unsigned>(tiles * parts.splits), threads, kernel.sharedBytes, &parts);
  const int64_t neighbours = compute == DType::kFloat64 ? 2 : 8;
  join.groups = count * product.m * ((product.n + neighbours - 1) / neighbours);
  device.launch(compute == DType::kFloat64 ? twice : single, static_cast<unsigned>((join.groups + kBlock - 1) / kBlock),
                kBlock, 0, &join);
}

}  // namespace

void gemm(const Gemm& g, const OpCall& call) {
  int64_t count = 1;
  for (int d = 0; d < g.rank; ++d) count *= g.sizes[d];
  if (g.m == 0 || g.n == 0 || count == 0) return;
  GRADUS_CHECK(std::max({g.m, g.n, g.k}) < kMostSize, ErrorCode::kShape,
               "%s: too large for a product on cuda: got [%lld, %lld] by %lld, expected sizes below 2^30", call.name,
               static_cast<long long>(g.m), static_cast<long long>(g.k), static_cast<long long>(g.n));
  const DType dtype = operandDType(g);
  const Prepared a = prepared(g.a, g.m, g.k, dtype, g, call), b = prepared(g.b, g.k, g.n, dtype, g, call);
  if (gemmByLibrary(g, {a.data, a.transposed, a.stride, a.batch}, {b.data, b.transposed, b.stride, b.batch}, dtype,
                    call))
    return;
  const GemmArguments arguments = argumentsOf(g, a, b, dtype, call);
  const std::vector<Kernels>& kernels = kernelsOf(dtype);
  const int64_t splits = splitsOf(kernels.front().tile.count(g, count), g.k);
  const Kernels& chosenOnes = chosen(kernels, g, count, splits);
  const Tile& tile = chosenOnes.tile;
  const int64_t tiles = tile.count(g, count);
  GRADUS_CHECK(tiles * splits < int64_t{1} << 31, ErrorCode::kShape,
               "%s: too large for a product on cuda: got %lld tiles of the result, expected fewer than 2^31", call.name,
               static_cast<long long>(tiles));
  Kernel& kernel = chosenOnes.of(a, b);
  if (splits > 1) return gemmInSplits(arguments, kernel, tile.threads, dtype, tiles, count, splits, call);
  currentDevice().launch(kernel, static_cast<unsigned>(tiles), tile.threads, kernel.sharedBytes,
                         const_cast<GemmArguments*>(&arguments));
}

void columnSums(const Columns& x, const TensorView& to, bool accumulate, const OpCall& call) {
  static Kernel single("gemm", "gradus_gemm_column_sums_float32"), twice("gemm", "gradus_gemm_column_sums_float64");
  if (x.cols == 0) return;
  GRADUS_CHECK(x.cols < kMostSize, ErrorCode::kShape, "%s: too many columns for cuda: got %lld", call.name,
               static_cast<long long>(x.cols));
  CudaDevice& device = currentDevice();
  const DType compute = x.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  Kernel& kernel = compute == DType::kFloat64 ? twice : single;
  const int64_t neighbours = compute == DType::kFloat64 ? 2 : 8;
  const bool packed =
      x.colStride == 1 && x.cols % neighbours == 0 && beginsOnVectors(x.data, x.rowStride, x.dtype) && x.rows > 0;
  const int64_t width = packed ? 2 * neighbours : 32;
  const int64_t blocks = (x.cols + width - 1) / width;
  // As many ranges of rows as fill the device; packed, where few blocks would be at their rows for longer than another
  // launch takes.
  const bool inRanges = !packed || blocks < kEnoughTiles / 4;
  const int64_t wanted = inRanges ? std::clamp<int64_t>(4 * kEnoughTiles / blocks, 1, 64) : 1;
  const int64_t ranges = std::clamp<int64_t>(x.rows / (packed ? kRowsOfRange : 64), 1, wanted);
  ColumnSums last{x.data,
                  x.rowStride,
                  x.colStride,
                  static_cast<int>(x.dtype),
                  static_cast<int>(x.cols),
                  packed,
                  x.rows,
                  x.rows,
                  to.data,
                  static_cast<int>(to.dtype),
                  to.strides[0],
                  accumulate,
                  accumulate ? device.failureWord() : nullptr};
  if (ranges > 1) {
    ColumnSums first = last;
    first.rowsOfRange = (x.rows + ranges - 1) / ranges;
    first.to = call.workspace->take(static_cast<size_t>(ranges * x.cols) * itemSize(compute));
    first.toDType = static_cast<int>(compute);
    first.toStride = 1;
    first.accumulate = 0;
    first.failure = nullptr;
    device.launch(kernel, static_cast<unsigned>(blocks * ranges), kBlock, 0, &first);
    last.from = first.to;
    last.dtype = first.toDType;
    last.row = x.cols;
    last.col = 1;
    last.packed = 0;  // few rows
    last.rows = last.rowsOfRange = ranges;
  }
  if (last.rowsOfRange == 0) last.rowsOfRange = 1;
  device.launch(kernel, static_cast<unsigned>(last.packed ? blocks : (x.cols + 31) / 32), kBlock, 0, &last);
}

}  // namespace gradus::cuda
