// Readers and writers that show any operand as contiguous tiles of a compute type. Contiguous operands of that very
// type are used where they stand.
#pragma once

#include <algorithm>

#include "../core/element.h"
#include "../core/loop.h"
#include "parallel.h"
#include "spans.h"

namespace gradus::cpu {

// Copies elements of `Bytes` bytes between a strided operand and a tile, run by run of the innermost dim.
template <class Element, bool kGather>
void moveRuns(const Loop& loop, const int64_t* strides, char* memory, int64_t at, int64_t n, Element* tile) {
  int64_t index[kMaxRank], offset = 0;
  for (int d = loop.rank - 1; d >= 0; --d) {
    index[d] = d == 0 ? at : at % loop.sizes[d];
    offset += index[d] * strides[d];
    if (d > 0) at /= loop.sizes[d];
  }
  const int inner = loop.rank - 1;
  const int64_t step = strides[inner];
  while (n > 0) {
    const int64_t run = std::min(n, loop.sizes[inner] - index[inner]);
    auto* element = reinterpret_cast<Element*>(memory) + offset;
    if (kGather) {
      for (int64_t i = 0; i < run; ++i) tile[i] = element[i * step];
    } else {
      for (int64_t i = 0; i < run; ++i) element[i * step] = tile[i];
    }
    tile += run;
    n -= run;
    offset += run * step;
    index[inner] += run;
    for (int d = inner; d > 0 && index[d] == loop.sizes[d]; --d) {
      offset += strides[d - 1] - loop.sizes[d] * strides[d];
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

template <bool kGather>
void moveRuns(size_t itemSize, const Loop& loop, const int64_t* strides, void* memory, int64_t at, int64_t n,
              void* tile) {
  auto* bytes = static_cast<char*>(memory);
  switch (itemSize) {
    case 1: return moveRuns<uint8_t, kGather>(loop, strides, bytes, at, n, static_cast<uint8_t*>(tile));
    case 2: return moveRuns<uint16_t, kGather>(loop, strides, bytes, at, n, static_cast<uint16_t*>(tile));
    case 4: return moveRuns<uint32_t, kGather>(loop, strides, bytes, at, n, static_cast<uint32_t*>(tile));
    default: return moveRuns<uint64_t, kGather>(loop, strides, bytes, at, n, static_cast<uint64_t*>(tile));
  }
}

template <class C>
constexpr DType kComputeDType = std::is_same_v<C, float>    ? DType::kFloat32
                                : std::is_same_v<C, double> ? DType::kFloat64
                                                            : DType::kInt64;

// Consecutive positions of a loop: any, or (rowWise) within one row of the innermost dim.
struct Chunk {
  int64_t at, n;
  bool rowWise;
  int64_t offsets[kMaxOperands];  // of the first element; rowWise only
};

// How one operand is reached; shared by the threads, which bring their own tiles.
template <class C>
struct Access {
  char* data = nullptr;
  size_t itemSize = 0;
  bool native = false;   // memory holds C
  bool linear = false;   // see Loop
  bool uniform = false;  // one value everywhere: its tile is filled once, by the driver
  Loader<C> load = nullptr;
  Storer<C> store = nullptr;
  C value{};  // of a uniform operand

  Access() = default;
  Access(const TensorView& view, const Loop& loop, int operand)
      : data(static_cast<char*>(view.data)),
        itemSize(gradus::itemSize(view.dtype)),
        native(view.dtype == kComputeDType<C>),
        linear(loop.linear(operand)),
        uniform(operand > 0 && !linear && loop.uniform(operand)),
        load(operand > 0 ? loaderOf<C>(view.dtype) : nullptr),
        store(operand > 0 ? nullptr : storerOf<C>(view.dtype)) {
    if (uniform && loop.numel > 0) load(data, &value, 1);
  }
  static Access scalar(C value) {
    Access access;
    access.uniform = true;
    access.value = value;
    return access;
  }

  // Needs no tile, whatever the length of a chunk.
  bool inPlace(const Loop& loop, int operand, bool rowWise) const {
    return native && (linear || (rowWise && !uniform && loop.innerStride(operand) == 1));
  }

  char* address(int64_t element) const { return data + element * static_cast<int64_t>(itemSize); }

  const C* read(const Loop& loop, int operand, const Chunk& chunk, C* tile, uint64_t* raw) const {
    if (uniform) return tile;
    const int64_t step = linear ? 1 : loop.innerStride(operand);
    if (linear || (chunk.rowWise && step == 1)) {
      const void* memory = address(linear ? chunk.at : chunk.offsets[operand]);
      if (native) return static_cast<const C*>(memory);
      load(memory, tile, chunk.n);
    } else if (chunk.rowWise && step == 0) {
      C value;
      load(address(chunk.offsets[operand]), &value, 1);
      std::fill_n(tile, chunk.n, value);
    } else {
      void* gathered = native ? static_cast<void*>(tile) : raw;
      moveRuns<true>(itemSize, loop, loop.strides[operand], data, chunk.at, chunk.n, gathered);
      if (!native) load(gathered, tile, chunk.n);
    }
    return tile;
  }

  // Where a span may write at once, or null: then it writes a tile and write() moves that.
  C* target(const Loop& loop, const Chunk& chunk) const {
    if (!native) return nullptr;
    if (linear) return reinterpret_cast<C*>(address(chunk.at));
    return chunk.rowWise && loop.innerStride(0) == 1 ? reinterpret_cast<C*>(address(chunk.offsets[0])) : nullptr;
  }

  void write(const Loop& loop, const Chunk& chunk, const C* tile, uint64_t* raw) const {
    if (linear || (chunk.rowWise && loop.innerStride(0) == 1)) {
      store(tile, address(linear ? chunk.at : chunk.offsets[0]), chunk.n);
      return;
    }
    if (!native) store(tile, raw, chunk.n);
    void* stored = native ? const_cast<C*>(tile) : static_cast<void*>(raw);
    moveRuns<false>(itemSize, loop, loop.strides[0], data, chunk.at, chunk.n, stored);
  }
};

// `in` itself, or, where it lies across the output (another dim is contiguous), a contiguous copy in scratch memory:
// tile by tile every element of it would fetch a cache line of its own. In copy.cc.
TensorView untransposed(const TensorView& in, const TensorView& out, Workspace* workspace);

// The operands of one call in compute type C, and the walk over their common iteration space.
template <class C>
struct Tiles {
  Loop loop;
  Access<C> out, in[3];
  int inputs = 0;
  bool stream = false;  // the output goes around the caches

  // A null span copies the first operand.
  void run(Span<C> span, const double* s, int64_t grain) const {
    if (loop.numel == 0) return;
    bool rowWise = !out.linear;
    for (int k = 0; k < inputs; ++k) rowWise |= !in[k].linear && !in[k].uniform;
    rowWise &= loop.inner() >= kShortRow;
    bool noTiles = span != nullptr && !stream && out.inPlace(loop, 0, rowWise);
    for (int k = 0; k < inputs; ++k) noTiles &= in[k].inPlace(loop, k + 1, rowWise);
    const int64_t longest = noTiles ? loop.numel : kTile;
    const int64_t blocks = (loop.numel + kTile - 1) / kTile;
    parallelFor(blocks, std::max<int64_t>(1, grain / kTile), [&](int64_t first, int64_t last) {
      alignas(64) C tiles[4][kTile];
      alignas(64) uint64_t raw[kTile];
      for (int k = 0; k < inputs; ++k) {
        if (in[k].uniform) std::fill_n(tiles[k], std::min(kTile, loop.numel), in[k].value);
      }
      const int64_t end = std::min(last * kTile, loop.numel);
      Chunk chunk{first * kTile, 0, rowWise, {}};
      for (; chunk.at < end; chunk.at += chunk.n) {
        chunk.n = std::min(longest, end - chunk.at);
        if (rowWise) {
          const int64_t within = loop.seek(chunk.at, chunk.offsets, inputs + 1);
          chunk.n = std::min(chunk.n, loop.inner() - within);
        }
        const C* operands[3] = {};
        for (int k = 0; k < inputs; ++k) operands[k] = in[k].read(loop, k + 1, chunk, tiles[k], raw);
        const C* result = operands[0];
        if (span) {
          C* target = stream ? nullptr : out.target(loop, chunk);
          span(operands[0], operands[1], operands[2], target ? target : tiles[3], chunk.n, s);
          if (target) continue;
          result = tiles[3];
        }
        if (stream) {
          streamCopy(result, out.address(chunk.at), chunk.n * static_cast<int64_t>(sizeof(C)));
        } else {
          out.write(loop, chunk, result, raw);
        }
      }
      if (stream) streamEnd();
    });
  }

 private:
  static constexpr int64_t kShortRow = 64;  // shorter rows are gathered, several to a tile
};

}  // namespace gradus::cpu
