// Arguments of linear + cross entropy, shared by host and device.
#pragma once

#include "failure_word.h"

namespace gradus::cuda {

struct LinearLoss {
  const void* target;  // [rows], integers
  int targetDType;
  long long targetStride, ignoreIndex;
  int rows, classes;
  const void* classWeight;  // null: 1 each
  int classWeightDType;
  long long classWeightStride;
  double smoothing, soft;  // soft: smoothing / classes
  int mean;                // divides by the weights of the targets; else by 1
  int skipIgnored;         // leaves rows that are ignored out
  int gradients;
  // Gradients in `logits` are times a power of two and not over the divisor, so that they fill float16's range: as
  // small as they are by themselves, most would vanish there. The products that take them make up for it.
  int scaled;

  int* kept;       // [rows]: the rows that are computed, in their order
  int* count;      // how many
  double* terms;   // divisor, sum of the class weights, that power of two, what makes up for both
  double* losses;  // [rows], in the order of `kept`

  // A chunk: `chunk` of the kept rows from `first` on, of which the last ones may not exist.
  int first, chunk;
  void* logits;  // [chunk, classes] with longer rows, which become their gradients
  long long logitStride;

  const void* x;  // rows of the chunk are gathered from it
  void* rowsOfX;
  const void* rowsOfDx;  // and scattered to dx
  void* dx;
  int width, xDType, rowsDType, dxDType;  // rowsDType: of rowsOfX; rowsOfDx are of the computed one
  long long xRow, xCol, rowsStride;
  int packedRows;  // rows of x and dx begin on 16 bytes and have whole runs of 8 (float64: 2) neighbours

  void *loss, *divisor;
  int lossDType;
  FailureSlot failure;
};

constexpr int kLinearLossTile = 128;  // rows of a chunk are written, or zero, up to the next multiple of this

}  // namespace gradus::cuda
