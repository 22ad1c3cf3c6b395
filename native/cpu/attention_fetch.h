// Fetches what attention reads next while it computes.
#pragma once

#include <hwy/cache_control.h>

#include <algorithm>
#include <cstdint>

namespace gradus::cpu {

// Rows of operands on their way into the cache, a few at a time. A head's rows lie apart from each other and each is
// short, which the processor's own prefetching does not follow; asked for all at once they would hold up the loads of
// the products.
class Ahead {
 public:
  // Rows [first, first + rows) of a Matrix.
  template <class M>
  void add(const M& from, int64_t first, int64_t rows, int64_t columns) {
    if (from.columnStride != 1 || count_ == kMost || rows <= 0) return;
    const auto size = static_cast<int64_t>(sizeof(*from.data));
    pieces_[count_++] = {reinterpret_cast<const char*>(from.row(first)), from.rowStride * size, columns * size, rows};
  }

  void some() {
    for (int64_t left = kRows; left > 0 && at_ < count_;) {
      Piece& piece = pieces_[at_];
      const int64_t rows = std::min(left, piece.rows);
      for (int64_t r = 0; r < rows; ++r, piece.row += piece.stride) {
        for (int64_t byte = 0; byte < piece.bytes; byte += kLine) hwy::Prefetch(piece.row + byte);
      }
      left -= rows;
      piece.rows -= rows;
      at_ += piece.rows == 0;
    }
    if (at_ == count_) at_ = count_ = 0;
  }

 private:
  static constexpr int kMost = 8, kRows = 24, kLine = 64;
  struct Piece {
    const char* row;
    int64_t stride, bytes, rows;
  };
  Piece pieces_[kMost];
  int count_ = 0, at_ = 0;
};

}  // namespace gradus::cpu
