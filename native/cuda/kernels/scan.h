// Arguments of the kernels that walk along a dim, shared by host and device.
#pragma once

#include "walk.h"

namespace gradus::cuda {

// The largest or smallest of `count` elements and its place, for each of `outputs` ranges in `pieces` parts. With more
// than one piece the parts go to partialValues and partialIndices [outputs, pieces], and a second kernel chooses.
struct ScanExtreme {
  const char* in;
  int dtype;
  int largest;
  long long outputs, count;
  int pieces;
  int threads;  // that share a piece
  Walk kept, line;
  void* partialValues;  // in the type that is computed in
  long long* partialIndices;
  char* values;  // null: not wanted
  int itemSize;
  long long* indices;
};

// Running sums along lines of `count` elements; `chunks` of a line are summed first, when there is more than one.
struct ScanSum {
  const char* in;
  char* out;
  int inDType, outDType;
  long long lines, count;
  long long inStride, outStride;  // along a line, in bytes; a line that runs backwards begins at its end
  Walk inRest, outRest;
  long long chunk;  // elements
  long long chunks;
  void* starts;  // [lines, chunks]: what comes before a chunk; float64, or int64 for whole numbers
};

}  // namespace gradus::cuda
