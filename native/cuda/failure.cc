#include "failure.h"

namespace gradus::cuda {

unsigned FailureLog::begin(const char* name) {
  std::lock_guard lock(mutex_);
  if (++last_ == 0) ++last_;
  names_[last_ % kRemembered] = name;
  return last_;
}

std::shared_ptr<const Failure> FailureLog::read(const FailureWord& word) {
  if (word.serial == 0) return nullptr;
  std::lock_guard lock(mutex_);
  if (word.serial == reported_) return nullptr;  // copied before it was cleared; clearing again might hide a new one
  reported_ = word.serial;
  clear_.store(true);
  const char* name = last_ - word.serial < kRemembered ? names_[word.serial % kRemembered] : "cuda";
  char text[256];
  const auto describe = [&](ErrorCode code, const char* format) {
    snprintf(text, sizeof text, format, name, word.value);
    return std::make_shared<Failure>(Failure{code, text, 0});
  };
  switch (word.kind) {
    case kDivisionByZero:
      return describe(ErrorCode::kState, "%s: division of integers by zero: got a divisor of 0; mask it or use div");
    case kUnusableWeight:
      return describe(ErrorCode::kState,
                      "%s: a weight is not usable: got one at place %lld, expected finite numbers of at least 0");
    case kUnusableSum:
      return describe(ErrorCode::kState, "%s: the weights of row %lld have no usable sum: expected a number above 0");
    case kTooFewWeights:
      return describe(ErrorCode::kState, "%s: too few weights above 0 to draw without replacement: got %lld");
    default:
      return describe(ErrorCode::kIndex, "%s: an index is out of range: got %lld");
  }
}

}  // namespace gradus::cuda
