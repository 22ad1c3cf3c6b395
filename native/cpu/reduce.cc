// Reductions over any dims of any strides. Work is cut into blocks of outputs and, where these are few and long, into
// fixed pieces of the reduced range; neither depends on the number of threads, so results do not either.
#include "reduce.h"

#include <cmath>

namespace gradus::cpu {
namespace {

constexpr int64_t kBlockWork = 32768;  // elements that are worth a fork
constexpr int64_t kPiece = 65536, kMostPieces = 64;
constexpr int64_t kLeafRows = 32;  // rows that are added in float32 before float64 takes over

// One pass: what is folded, and what its elements are compared with.
struct Pass {
  Fold fold;
  double scalar = 0;  // param of every output, when no pass goes before
};

// A reduction is one pass, or two of which the second uses the first one's result.
using Finish = double (*)(double folded, double param, double count, double attribute);
struct Recipe {
  Pass passes[2];
  int count;
  double (*between)(double folded, double count);
  Finish finish;
  double attribute = 0;
};

template <class C>
class Reducer {
 public:
  using A = Accumulator<C>;

  Reducer(const OpCall& call, const Recipe& recipe)
      : recipe_(recipe),
        geometry_(call.in[0], static_cast<uint64_t>(call.attr[0]), false),
        input_(call.in[0], geometry_.reduced, 1),
        out_(call.out[0]),
        workspace_(call.workspace),
        byColumns_(geometry_.byColumns()),
        rowWise_(!input_.linear && geometry_.reduced.inner() >= kShortRow) {
    input_.uniform = false;
    const int64_t inner = geometry_.kept.inner();
    blockSize_ = byColumns_ ? std::min(kTile, inner)
                            : std::clamp<int64_t>(kBlockWork / std::max<int64_t>(1, geometry_.count), 1, kTile);
    blocksPerRow_ = byColumns_ ? (inner + blockSize_ - 1) / blockSize_ : 0;
    blocks_ = byColumns_ ? geometry_.outputs / inner * blocksPerRow_ : (geometry_.outputs + blockSize_ - 1) / blockSize_;
  }

  void run() {
    const int64_t work = geometry_.count * (byColumns_ ? blockSize_ : 1);
    if (blocks_ < 16 && work >= 2 * kPiece) return runPieces(std::min(kMostPieces, work / kPiece));
    const int64_t blockWork = geometry_.count * std::min(blockSize_, geometry_.outputs);
    parallelFor(blocks_, std::max<int64_t>(1, kBlockWork / std::max<int64_t>(1, blockWork)),
                [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        const Block block = blockAt(b);
        A folded[kTile];
        double param[kTile] = {};
        for (int p = 0; p < recipe_.count; ++p) {
          if (p == 1) between(folded, param, block.n);
          fold(recipe_.passes[p], block, 0, geometry_.count, param, folded);
        }
        finish(block, folded, param);
      }
    });
  }

 private:
  struct Block {
    int64_t first, n;  // outputs
  };

  Block blockAt(int64_t b) const {
    if (!byColumns_) return {b * blockSize_, std::min(blockSize_, geometry_.outputs - b * blockSize_)};
    const int64_t inner = geometry_.kept.inner(), column = b % blocksPerRow_ * blockSize_;
    return {b / blocksPerRow_ * inner + column, std::min(blockSize_, inner - column)};
  }

  // Few outputs, long ranges: partial results in scratch memory, combined in order.
  void runPieces(int64_t pieces) {
    A* partial = static_cast<A*>(workspace_->take(sizeof(A) * kTile * blocks_ * pieces));
    double* params = static_cast<double*>(workspace_->take(sizeof(double) * kTile * blocks_));
    std::fill_n(params, kTile * blocks_, 0.0);
    for (int p = 0; p < recipe_.count; ++p) {
      parallelFor(blocks_ * pieces, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const int64_t b = i / pieces, piece = i % pieces;
          fold(recipe_.passes[p], blockAt(b), geometry_.count * piece / pieces, geometry_.count * (piece + 1) / pieces,
               params + b * kTile, partial + i * kTile);
        }
      });
      for (int64_t b = 0; b < blocks_; ++b) {
        A* total = partial + b * pieces * kTile;
        const Block block = blockAt(b);
        for (int64_t piece = 1; piece < pieces; ++piece) {
          for (int64_t i = 0; i < block.n; ++i) {
            total[i] = combine(recipe_.passes[p].fold, total[i], total[piece * kTile + i]);
          }
        }
        if (p + 1 < recipe_.count) {
          between(total, params + b * kTile, block.n);
        } else {
          finish(block, total, params + b * kTile);
        }
      }
    }
  }

  void fold(const Pass& pass, const Block& block, int64_t begin, int64_t end, const double* param, A* folded) const {
    C params[kTile];
    for (int64_t i = 0; i < block.n; ++i) params[i] = static_cast<C>(recipe_.count > 1 ? param[i] : pass.scalar);
    std::fill_n(folded, block.n, identityOf<A>(pass.fold));
    if (byColumns_) {
      foldColumns(pass.fold, block, begin, end, params, folded);
    } else {
      foldRows(pass.fold, block, begin, end, params, folded);
    }
  }

  void foldRows(Fold fold, const Block& block, int64_t begin, int64_t end, const C* params, A* folded) const {
    const auto row = foldsOf<C>(fold).row;
    const Loop& reduced = geometry_.reduced;
    alignas(64) C tile[kTile];
    alignas(64) uint64_t raw[kTile];
    Access<C> input = input_;
    for (int64_t i = 0; i < block.n; ++i) {
      int64_t offsets[2];
      geometry_.kept.seek(block.first + i, offsets, 2);
      input.data = input_.address(offsets[1]);
      Chunk chunk{begin, 0, rowWise_, {}};
      for (; chunk.at < end; chunk.at += chunk.n) {
        chunk.n = std::min(kTile, end - chunk.at);
        if (rowWise_) chunk.n = std::min(chunk.n, reduced.inner() - reduced.seek(chunk.at, chunk.offsets, 2));
        const C* x = input.read(reduced, 1, chunk, tile, raw);
        folded[i] = combine<A>(fold, folded[i], static_cast<A>(row(x, chunk.n, params[i])));
      }
    }
  }

  void foldColumns(Fold fold, const Block& block, int64_t begin, int64_t end, const C* params, A* folded) const {
    const auto columns = foldsOf<C>(fold).columns;
    alignas(64) C leaf[kTile];
    alignas(64) C tile[kTile];
    int64_t offsets[2], position[2];
    geometry_.kept.seek(block.first, offsets, 2);
    for (int64_t r = begin; r < end;) {
      const int64_t stop = std::min(end, r + kLeafRows);
      std::fill_n(leaf, block.n, identityOf<C>(fold));
      for (; r < stop; ++r) {
        geometry_.reduced.seek(r, position, 2);
        const void* memory = input_.address(offsets[1] + position[1]);
        const C* x = static_cast<const C*>(memory);
        if (!input_.native) {
          input_.load(memory, tile, block.n);
          x = tile;
        }
        columns(x, leaf, block.n, params);
      }
      for (int64_t i = 0; i < block.n; ++i) folded[i] = combine<A>(fold, folded[i], static_cast<A>(leaf[i]));
    }
  }

  void between(const A* folded, double* param, int64_t n) const {
    const double count = static_cast<double>(geometry_.count);
    for (int64_t i = 0; i < n; ++i) param[i] = recipe_.between(static_cast<double>(folded[i]), count);
  }

  void finish(const Block& block, A* folded, const double* param) const {
    void* target = out_.as<char>() + block.first * static_cast<int64_t>(itemSize(out_.dtype));
    if (recipe_.finish) {
      const double count = static_cast<double>(geometry_.count);
      for (int64_t i = 0; i < block.n; ++i) {
        const double value = recipe_.finish(static_cast<double>(folded[i]), param[i], count, recipe_.attribute);
        folded[i] = static_cast<A>(value);
      }
    }
    storerOf<A>(out_.dtype)(folded, target, block.n);
  }

  static constexpr int64_t kShortRow = 64;

  Recipe recipe_;
  Geometry geometry_;
  Access<C> input_;
  TensorView out_;
  Workspace* workspace_;
  bool byColumns_, rowWise_;
  int64_t blockSize_, blocksPerRow_, blocks_;
};

void reduce(const OpCall& call, const Recipe& recipe) {
  if (call.out[0].numel == 0) return;
  const DType dtype = call.in[0].dtype;
  if (dtype == DType::kFloat64) return Reducer<double>(call, recipe).run();
  if (isFloating(dtype)) return Reducer<float>(call, recipe).run();
  GRADUS_CHECK(foldsOf<int64_t>(recipe.passes[0].fold).row, ErrorCode::kDType,
               "%s: not defined for integers: got %s, expected a floating dtype; convert first", call.name,
               dtypeName(dtype));
  Reducer<int64_t>(call, recipe).run();
}

void reduceOnce(const OpCall& call, Fold fold, Finish finish = nullptr, double scalar = 0, double attribute = 0) {
  reduce(call, {{{fold, scalar}, {}}, 1, nullptr, finish, attribute});
}

double divided(double folded, double, double count, double) { return folded / count; }
double rooted(double folded, double, double, double p) { return p == 2 ? std::sqrt(folded) : std::pow(folded, 1 / p); }
double varied(double folded, double, double count, double correction) {
  return folded / std::max(0.0, count - correction);
}
double logged(double folded, double maximum, double, double) { return std::log(folded) + maximum; }

double meanOf(double folded, double count) { return folded / count; }
double finiteMaximum(double folded, double) { return std::isinf(folded) ? 0 : folded; }

}  // namespace

void run_sum(const OpCall& call) { reduceOnce(call, Fold::kSum); }
void run_mean(const OpCall& call) { reduceOnce(call, Fold::kSum, divided); }
void run_prod(const OpCall& call) { reduceOnce(call, Fold::kProduct); }
void run_amax(const OpCall& call) { reduceOnce(call, Fold::kMaximum); }
void run_amin(const OpCall& call) { reduceOnce(call, Fold::kMinimum); }
void run_any(const OpCall& call) { reduceOnce(call, Fold::kAny); }
void run_all(const OpCall& call) { reduceOnce(call, Fold::kAll); }

void run_variance(const OpCall& call) {
  reduce(call, {{{Fold::kSum}, {Fold::kCenteredSquares}}, 2, meanOf, varied, call.attr[1]});
}

// Subtracting the maximum keeps e^x in range; an infinite one is left in the sum, which then is 0 or infinite.
void run_logsumexp(const OpCall& call) {
  reduce(call, {{{Fold::kMaximum}, {Fold::kExponential}}, 2, finiteMaximum, logged});
}

void run_vectorNorm(const OpCall& call) {
  const double p = call.attr[1];
  if (p == 2) return reduceOnce(call, Fold::kSquares, rooted, 0, 2);
  if (p == 1) return reduceOnce(call, Fold::kAbsolute);
  if (p == 0) return reduceOnce(call, Fold::kNonzero);
  if (std::isinf(p)) return reduceOnce(call, p > 0 ? Fold::kAbsoluteMaximum : Fold::kAbsoluteMinimum);
  reduceOnce(call, Fold::kPower, rooted, p, p);
}

}  // namespace gradus::cpu
