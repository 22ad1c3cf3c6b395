// Arguments of the kernels that join tensors and pick their parts, shared by host and device.
#pragma once

namespace gradus::cuda {

constexpr int kJoinChunk = 1 << 13;  // units of one part that a block handles at a time
constexpr int kJoinParts = 96;       // of one launch, whose arguments hold 4096 bytes

// Rows of a part stand side by side; in the output they stand `width` units apart.
struct JoinPart {
  const void* from;
  unsigned long long units;
  long long width;   // of its rows, in units
  long long offset;  // of its rows within those of the output
  int firstChunk;    // of this launch
};

struct JoinCat {
  int count, chunks;
  void* out;
  long long width;
  JoinPart parts[kJoinParts];
};

// Row r of a matrix keeps columns [r + first, r + last] of [0, width); the rest becomes 0.
struct JoinTriangle {
  const void* in;
  void* out;
  unsigned long long units;  // of `lanes` elements of a row
  long long height, rowUnits;
  long long first, last;
};

constexpr int kNonzeroTile = 2048;  // elements of a block: 8 for each of 256 threads
constexpr int kNonzeroRank = 8;

struct JoinNonzero {
  const char* in;  // contiguous
  int dtype, itemSize;
  unsigned long long count;
  unsigned* counts;  // [blocks]: first how many there are in each tile, then how many before it
  unsigned tiles;
  long long* out;  // [rows, rank], or one total
  long long rows;
  int rank;
  long long sizes[kNonzeroRank];
};

}  // namespace gradus::cuda
