// Arguments of the sorting kernels, shared by host and device.
#pragma once

#include "walk.h"

namespace gradus::cuda {

constexpr int kRadixDigits = 256;
constexpr int kRadixTile = 2048;  // pairs of a block: 8 for each of 256 threads
constexpr int kScanThreads = 1024;

// One digit of a stable sort of pairs by key, least significant digit first.
struct RadixPass {
  const unsigned *keys, *values;
  unsigned *keysOut, *valuesOut;
  unsigned* counts;  // [digit][block]; scanned between counting and scattering
  unsigned n;
  int shift, blocks;
};

// counts[i] becomes the sum of those before it.
struct RadixScan {
  unsigned* counts;
  unsigned n;
};

// Lines along a dim, one behind the other: element p is number p % size of line p / size.
struct OrderLines {
  const char* in;
  int dtype, itemSize;
  unsigned count, size;
  long long stride;  // along a line, in bytes
  Walk rest;
  int descending;
};

enum OrderWord : int { kLowWord, kHighWord, kLineWord };

// keys[i]: a word of the key of element values[i], whose order is that of the elements, or its line.
struct OrderKeys {
  OrderLines lines;
  int word;
  int fresh;  // values[i] = i
  unsigned *keys, *values;
};

// The first `kept` of each line, from elements in the order of lines and keys.
struct OrderPick {
  OrderLines lines;
  const unsigned* order;
  unsigned kept;
  char* values;  // null: not wanted
  long long* indices;
  Walk rest;         // of both, in elements
  long long stride;  // along a line
};

}  // namespace gradus::cuda
