// Errors of what operators find in their data, in the same words on every backend.
#pragma once

#include <cstdint>

#include "error.h"

namespace gradus {

__attribute__((format(printf, 2, 3))) inline Error dataError(ErrorCode code, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return Error(code, text);
}

// printf's %lld
inline long long printed(int64_t x) { return x; }

// `place` is the position in row-major order of the index.
inline Error indexOutOfRange(const char* op, int64_t index, int64_t place, int64_t limit) {
  if (limit == 0) {
    return dataError(
        ErrorCode::kIndex,
        "%s: index is out of range: got %lld at position %lld, expected a dim that is not empty instead of "
        "size 0",
        op, printed(index), printed(place));
  }
  return dataError(ErrorCode::kIndex, "%s: index is out of range: got %lld at position %lld, expected 0 to %lld", op,
                   printed(index), printed(place), printed(limit - 1));
}

inline Error targetOutOfRange(const char* op, int64_t target, int64_t row, int64_t classes, int64_t ignoreIndex) {
  return dataError(ErrorCode::kIndex,
                   "%s: target out of range: got %lld in row %lld, expected 0 to %lld or ignoreIndex %lld", op,
                   printed(target), printed(row), printed(classes - 1), printed(ignoreIndex));
}

inline Error divisionByZero(const char* op) {
  return dataError(ErrorCode::kState, "%s: division of integers by zero: got a divisor of 0; mask it or use div", op);
}

// multinomial: weights, and their sum of a row.
inline Error unusableWeight(double weight, int64_t row, int64_t position) {
  return dataError(
      ErrorCode::kState,
      "multinomial: a weight is not usable: got %g at position %lld of row %lld, expected a finite number of "
      "at least 0",
      weight, printed(position), printed(row));
}

inline Error unusableWeights(double sum, int64_t row) {
  return dataError(ErrorCode::kState,
                   "multinomial: the weights of row %lld have no usable sum: got %g, expected a number above 0",
                   printed(row), sum);
}

inline Error tooFewWeights(int64_t usable, int64_t samples) {
  return dataError(ErrorCode::kState,
                   "multinomial: too few weights above 0 to draw without replacement: got %lld, expected at least %lld",
                   printed(usable), printed(samples));
}

// Attention: `name` is the argument that holds the lengths.
inline Error notCumulative(const char* op, const char* name, int64_t offset, int64_t position, int64_t tokens) {
  return dataError(
      ErrorCode::kIndex,
      "%s: %s is no list of cumulative lengths: got %lld at position %lld, expected 0 at first and then at "
      "least the one before, up to %lld",
      op, name, printed(offset), printed(position), printed(tokens));
}

inline Error notAddingUp(const char* op, const char* name, int64_t total, int64_t tokens) {
  return dataError(ErrorCode::kIndex,
                   "%s: the lengths of %s do not add up: got %lld tokens, expected the operand's %lld", op, name,
                   printed(total), printed(tokens));
}

inline Error lengthOutOfRange(const char* op, int64_t length, int64_t batch, int64_t keys) {
  return dataError(ErrorCode::kIndex,
                   "%s: a length of keyLengths is out of range: got %lld for batch entry %lld, expected 0 to %lld", op,
                   printed(length), printed(batch), printed(keys));
}

}  // namespace gradus
