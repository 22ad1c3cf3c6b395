// Copies, casts and fills. Copies within a dtype move raw elements; a copy whose source runs along another dim than
// its target (a transpose) goes block by block, so that both sides use whole cache lines.
#include <cmath>

#include "tiles.h"

namespace gradus::cpu {
namespace {

constexpr int64_t kGrain = 65536;

void copyDense(const TensorView& in, const TensorView& out) {
  const auto* from = in.as<const char>();
  auto* to = out.as<char>();
  const auto bytes = static_cast<int64_t>(in.bytes());
  if (from < to + bytes && to < from + bytes) {  // a view of what is copied
    std::memmove(to, from, bytes);
    return;
  }
  parallelFor(bytes, 4 * kGrain,
              [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, end - begin); });
}

// The dim along which the source is contiguous, when the target's innermost dim is another one; -1: none.
int transposedDim(const Loop& loop) {
  const int inner = loop.rank - 1;
  if (loop.strides[0][inner] != 1 || loop.strides[1][inner] <= 1) return -1;
  for (int d = inner - 1; d >= 0; --d) {
    if (loop.strides[1][d] == 1) return d;
  }
  return -1;
}

// Columns of the source become rows of the target: rows x columns elements, to[r * toStride + c] = from[c * fromStride
// + r].
template <class T>
void transposeBlock(const T* from, int64_t fromStride, T* to, int64_t toStride, int64_t rows, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T);
  if (rows == kLine && columns == kLine) {  // constant bounds let the compiler unroll
    for (int64_t r = 0; r < kLine; ++r) {
      for (int64_t c = 0; c < kLine; ++c) to[r * toStride + c] = from[c * fromStride + r];
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[r * toStride + c] = from[c * fromStride + r];
  }
}

template <class T>
void copyTransposed(const Loop& loop, int dim, const T* from, T* to) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int inner = loop.rank - 1;
  const int64_t rows = loop.sizes[dim], columns = loop.sizes[inner];
  const int64_t fromStride = loop.strides[1][inner], toStride = loop.strides[0][dim];
  const int64_t bands = (rows + kLine - 1) / kLine;
  const int64_t outer = loop.numel / (rows * columns);
  parallelFor(outer * bands, std::max<int64_t>(1, kGrain / (kLine * columns)), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      int64_t rest = i / bands, source = 0, target = 0;
      for (int d = inner - 1; d >= 0; --d) {
        if (d == dim) continue;
        const int64_t index = rest % loop.sizes[d];
        rest /= loop.sizes[d];
        target += index * loop.strides[0][d];
        source += index * loop.strides[1][d];
      }
      const int64_t row = i % bands * kLine, height = std::min(kLine, rows - row);
      for (int64_t column = 0; column < columns; column += kLine) {
        transposeBlock(from + source + row + column * fromStride, fromStride, to + target + row * toStride + column,
                       toStride, height, std::min(kLine, columns - column));
      }
    }
  });
}

// Rows that are contiguous on both sides, or anything, through tiles.
void copyRuns(const Loop& loop, size_t itemSize, char* from, char* to) {
  const bool rows = loop.innerStride(0) == 1 && loop.innerStride(1) == 1;
  const bool linear = loop.linear(0);
  parallelFor((loop.numel + kTile - 1) / kTile, kGrain / kTile, [&](int64_t first, int64_t last) {
    uint64_t tile[kTile];
    const int64_t end = std::min(last * kTile, loop.numel);
    for (int64_t at = first * kTile, n; at < end; at += n) {
      if (rows) {
        int64_t offsets[2];
        n = std::min(end - at, loop.inner() - loop.seek(at, offsets, 2));
        // both may be views of the same memory
        std::memmove(to + offsets[0] * static_cast<int64_t>(itemSize),
                     from + offsets[1] * static_cast<int64_t>(itemSize), n * itemSize);
        continue;
      }
      n = std::min(kTile, end - at);
      void* gathered = linear ? static_cast<void*>(to + at * static_cast<int64_t>(itemSize)) : tile;
      moveRuns<true>(itemSize, loop, loop.strides[1], from, at, n, gathered);
      if (!linear) moveRuns<false>(itemSize, loop, loop.strides[0], to, at, n, gathered);
    }
  });
}

void copySameType(const TensorView& in, const TensorView& out) {
  if (in.contiguous && out.contiguous && in.numel == out.numel) return copyDense(in, out);
  const TensorView* views[] = {&out, &in};
  const Loop loop = makeLoop(views, 2);
  const size_t itemSize = gradus::itemSize(in.dtype);
  const int dim = transposedDim(loop);
  if (dim < 0) return copyRuns(loop, itemSize, in.as<char>(), out.as<char>());
  switch (itemSize) {
    case 1:
      return copyTransposed(loop, dim, in.as<const uint8_t>(), out.as<uint8_t>());
    case 2:
      return copyTransposed(loop, dim, in.as<const uint16_t>(), out.as<uint16_t>());
    case 4:
      return copyTransposed(loop, dim, in.as<const uint32_t>(), out.as<uint32_t>());
    default:
      return copyTransposed(loop, dim, in.as<const uint64_t>(), out.as<uint64_t>());
  }
}

template <class C>
void castAs(const TensorView& in, const TensorView& out) {
  const TensorView* views[] = {&out, &in};
  Tiles<C> tiles{makeLoop(views, 2), {}, {}, 1, false};
  tiles.out = Access<C>(out, tiles.loop, 0);
  tiles.in[0] = Access<C>(in, tiles.loop, 1);
  tiles.run(nullptr, nullptr, kGrain);
}

template <class C>
void fillAs(const TensorView& out, double value) {
  const TensorView* views[] = {&out};
  Tiles<C> tiles{makeLoop(views, 1), {}, {}, 1, false};
  tiles.out = Access<C>(out, tiles.loop, 0);
  tiles.in[0] = Access<C>::scalar(Narrow<C>::from(value));
  tiles.run(nullptr, nullptr, kGrain);
}

template <class C>
void arangeAs(const TensorView& out, C start, C step) {
  const TensorView* views[] = {&out};
  const Loop loop = makeLoop(views, 1);
  const Access<C> access(out, loop, 0);
  parallelFor((loop.numel + kTile - 1) / kTile, kGrain / kTile, [&](int64_t first, int64_t last) {
    C tile[kTile];
    uint64_t raw[kTile];
    Chunk chunk{first * kTile, 0, false, {}};
    for (; chunk.at < std::min(last * kTile, loop.numel); chunk.at += chunk.n) {
      chunk.n = std::min(kTile, loop.numel - chunk.at);
      for (int64_t i = 0; i < chunk.n; ++i) tile[i] = start + static_cast<C>(chunk.at + i) * step;
      access.write(loop, chunk, tile, raw);
    }
  });
}

}  // namespace

TensorView untransposed(const TensorView& in, const TensorView& out, Workspace* workspace) {
  constexpr int64_t kWorthwhile = 16384;
  if (in.contiguous || !out.contiguous || in.numel < kWorthwhile || !sameSizes(in, out)) return in;
  const TensorView* views[] = {&out, &in};
  if (transposedDim(makeLoop(views, 2)) < 0) return in;
  TensorView copy = in;
  std::memcpy(copy.strides, out.strides, sizeof copy.strides);
  copy.contiguous = true;
  copy.data = workspace->take(in.bytes());
  copySameType(in, copy);
  return copy;
}

void run_copy(const OpCall& call) {
  const TensorView &in = call.in[0], &out = call.out[0];
  if (out.numel == 0) return;
  if (in.dtype == out.dtype) return copySameType(in, out);
  if (in.dtype == DType::kFloat64) return castAs<double>(in, out);
  return isFloating(in.dtype) ? castAs<float>(in, out) : castAs<int64_t>(in, out);
}

// The source is read once, and the caches, which have no room for three such tensors, are gone around.
void run_copyTwice(const OpCall& call) {
  constexpr int64_t kLine = 64, kWorthwhile = 8 << 20;
  const TensorView &in = call.in[0], &first = call.out[0], &second = call.out[1];
  const auto* from = in.as<const char>();
  const auto bytes = static_cast<int64_t>(in.bytes());
  const auto fits = [&](const TensorView& out) {
    const auto* to = out.as<const char>();
    return out.dtype == in.dtype && out.contiguous && out.numel == in.numel &&
           reinterpret_cast<uintptr_t>(to) % kLine == 0 && (from >= to + bytes || to >= from + bytes);
  };
  if (in.contiguous && bytes >= kWorthwhile && fits(first) && fits(second)) {
    return parallelFor((bytes + kLine - 1) / kLine, 1, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * kLine;
      streamCopyTwice(from + at, first.as<char>() + at, second.as<char>() + at, std::min(end * kLine, bytes) - at);
      streamEnd();
    });
  }
  OpCall other = call;
  other.out = call.out + 1;
  run_copy(call);
  run_copy(other);
}

void run_fill(const OpCall& call) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const double value = call.attr[0];
  if (isFloating(out.dtype) && out.dtype != DType::kFloat64) return fillAs<float>(out, value);
  const bool exact = isIntegral(out.dtype) && value == std::trunc(value);  // through float64, bool of 0.5 is true
  exact ? fillAs<int64_t>(out, value) : fillAs<double>(out, value);
}

// In float64 for every floating dtype: start + i * step has one rounding to the dtype.
void run_arange(const OpCall& call) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  if (isIntegral(out.dtype)) return arangeAs<int64_t>(out, toInteger(call.attr[0]), toInteger(call.attr[1]));
  arangeAs<double>(out, call.attr[0], call.attr[1]);
}

}  // namespace gradus::cpu
