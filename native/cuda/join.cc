// Putting tensors together and picking their parts: launchers of kernels/join.cu.
#include "kernels/join.h"

#include <climits>
#include <vector>

#include "kernels/sort.h"
#include "views.h"

namespace gradus::cuda {
namespace {

static_assert(kNonzeroRank == kMaxRank && sizeof(JoinCat) <= 4096);

// One kernel for each size of a unit.
struct SizedKernels {
  explicit SizedKernels(const std::string& what, const std::string& end = "")
      : kernels{{"join", what + "_1" + end},
                {"join", what + "_2" + end},
                {"join", what + "_4" + end},
                {"join", what + "_8" + end},
                {"join", what + "_16" + end}} {}
  Kernel& of(int64_t bytes) { return kernels[bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : 4]; }
  Kernel kernels[5];
};

// A part of the output's rows that an operand fills, in bytes.
struct Part {
  const void* from;
  int64_t bytes, width, offset;
};

void joinParts(const std::vector<Part>& parts, void* out, int64_t width, int64_t item) {
  static SizedKernels kernels("gradus_join_cat");
  bool wide = isWide(out) && width % 16 == 0;
  for (const Part& part : parts) wide = wide && isWide(part.from) && part.width % 16 == 0 && part.offset % 16 == 0;
  const int64_t unit = wide ? 16 : item;
  JoinCat arguments{0, 0, out, width / unit, {}};
  const auto flush = [&] {
    if (arguments.chunks == 0) return;
    const int most = 64 * currentDevice().opened.multiprocessors;
    launchBlocks(currentDevice(), kernels.of(unit), std::min(arguments.chunks, most), arguments);
    arguments.count = arguments.chunks = 0;
  };
  for (const Part& part : parts) {
    const auto units = static_cast<uint64_t>(part.bytes / unit);
    const auto chunks = static_cast<int>((units + kJoinChunk - 1) / kJoinChunk);
    if (arguments.count == kJoinParts || arguments.chunks > INT_MAX - chunks) flush();
    arguments.parts[arguments.count++] = {part.from, units, part.width / unit, part.offset / unit, arguments.chunks};
    arguments.chunks += chunks;
  }
  flush();
}

// Diagonals from `first` to `last` stay: column minus row.
void triangle(const OpCall& call, int64_t first, int64_t last) {
  static SizedKernels single("gradus_join_triangle", "_1"), many("gradus_join_triangle", "_many");
  const TensorView x = contiguousOf(call, call.in[0]);
  if (x.numel == 0) return;
  void* out = call.out[0].data;
  const auto item = static_cast<int64_t>(itemSize(x.dtype));
  const bool packed = x.size(-1) * item % 16 == 0 && isWide(x.data) && isWide(out);
  const int64_t lanes = packed ? 16 / item : 1;
  const JoinTriangle arguments{x.data, out, static_cast<uint64_t>(x.numel / lanes), x.size(-2), x.size(-1) / lanes,
                               first,  last};
  launch(currentDevice(), (packed ? many : single).of(item), arguments.units, arguments);
}

// How many of each tile are not zero.
JoinNonzero countTiles(const OpCall& call) {
  static Kernel count("join", "gradus_join_count");
  const TensorView x = contiguousOf(call, call.in[0]);
  GRADUS_CHECK(x.numel < int64_t{1} << 32, ErrorCode::kShape,
               "%s: too many elements for cuda: got %lld, expected fewer than 2^32", call.name,
               static_cast<long long>(x.numel));
  JoinNonzero arguments{};
  arguments.in = x.as<char>();
  arguments.dtype = static_cast<int>(x.dtype);
  arguments.itemSize = static_cast<int>(itemSize(x.dtype));
  arguments.count = static_cast<uint64_t>(x.numel);
  arguments.tiles = static_cast<unsigned>((x.numel + kNonzeroTile - 1) / kNonzeroTile);
  arguments.counts = call.scratch<unsigned>(std::max(1u, arguments.tiles));
  arguments.out = call.out[0].as<long long>();
  arguments.rank = x.rank;
  std::copy_n(x.sizes, kMaxRank, arguments.sizes);
  if (x.numel > 0) launch(currentDevice(), count, uint64_t{arguments.tiles} * kBlock, arguments);
  return arguments;
}

}  // namespace

// Operands of the output's dtype that are contiguous share launches; others are converted or walked one by one.
void run_cat(const OpCall& call) {
  const TensorView& out = call.out[0];
  const int dim = static_cast<int>(call.integer(0));
  const auto item = static_cast<int64_t>(itemSize(out.dtype));
  int64_t inner = item;  // bytes of what lies inside of the dim
  for (int d = dim + 1; d < out.rank; ++d) inner *= out.sizes[d];
  std::vector<Part> parts;
  int64_t at = 0;
  for (int i = 0; i < call.nIn; ++i) {
    const TensorView& x = call.in[i];
    const int64_t offset = at;
    at += x.sizes[dim];
    if (x.numel == 0) continue;
    if (out.contiguous && x.contiguous && x.dtype == out.dtype) {
      parts.push_back({x.data, static_cast<int64_t>(x.bytes()), x.sizes[dim] * inner, offset * inner});
      continue;
    }
    TensorView part = out;  // the slice of the output that this operand fills
    part.sizes[dim] = x.sizes[dim];
    part.numel = x.numel;
    part.data = out.as<char>() + offset * out.strides[dim] * item;
    for (int d = 0; d < dim; ++d) part.contiguous = part.contiguous && part.sizes[d] == 1;
    copyView(call, x, part);
  }
  joinParts(parts, out.data, out.sizes[dim] * inner, item);
}

void run_tril(const OpCall& call) { triangle(call, LLONG_MIN, call.integer(0)); }
void run_triu(const OpCall& call) { triangle(call, call.integer(0), LLONG_MAX); }

void run_countNonzero(const OpCall& call) {
  static Kernel total("join", "gradus_join_total");
  launchBlocks(currentDevice(), total, 1, countTiles(call));
}

void run_nonzeroInto(const OpCall& call) {
  static Kernel scan("sort", "gradus_sort_scan"), positions("join", "gradus_join_positions");
  const TensorView& out = call.out[0];
  zeroBytes(out.data, out.bytes());
  JoinNonzero arguments = countTiles(call);
  arguments.rows = out.sizes[0];
  if (arguments.tiles == 0 || out.numel == 0) return;
  RadixScan sums{arguments.counts, arguments.tiles};
  currentDevice().launch(scan, 1, kScanThreads, 0, &sums);
  launch(currentDevice(), positions, uint64_t{arguments.tiles} * kBlock, arguments);
}

}  // namespace gradus::cuda
