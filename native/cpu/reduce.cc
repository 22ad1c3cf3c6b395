// Reductions over any dims of any strides. Work is cut into blocks of outputs and, where these are few and long, into
// fixed pieces of the reduced range; neither depends on the number of threads, so results do not either.
#include <cmath>

#include "../core/geometry.h"
#include "folds.h"
#include "tiles.h"

namespace gradus::cpu {
namespace {

constexpr int64_t kBlockWork = 32768;  // elements that are worth a fork
constexpr int64_t kPiece = 65536, kMostPieces = 64;
constexpr int64_t kLeafRows = 32;  // rows that are added in float32 before float64 takes over

double finished(Finish finish, double folded, double param, double count, double attribute) {
  switch (finish) {
    case Finish::kDivided:
      return folded / count;
    case Finish::kRooted:
      return attribute == 2 ? std::sqrt(folded) : std::pow(folded, 1 / attribute);
    case Finish::kVaried:
      return folded / std::max(0.0, count - attribute);
    case Finish::kLogged:
      return std::log(folded) + param;
    case Finish::kFiniteMaximum:
      return std::isinf(folded) ? 0 : folded;
    default:
      return folded;
  }
}

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
    for (int64_t i = 0; i < block.n; ++i) params[i] = static_cast<C>(recipe_.count > 1 ? param[i] : recipe_.scalar);
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
    for (int64_t i = 0; i < n; ++i) {
      param[i] = finished(recipe_.passes[0].finish, static_cast<double>(folded[i]), 0, count, recipe_.attribute);
    }
  }

  void finish(const Block& block, A* folded, const double* param) const {
    void* target = out_.as<char>() + block.first * static_cast<int64_t>(itemSize(out_.dtype));
    if (const Finish last = recipe_.passes[recipe_.count - 1].finish; last != Finish::kNone) {
      const double count = static_cast<double>(geometry_.count);
      for (int64_t i = 0; i < block.n; ++i) {
        const double value = finished(last, static_cast<double>(folded[i]), param[i], count, recipe_.attribute);
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

}  // namespace

#include "../core/reduce_calls.h"

}  // namespace gradus::cpu
