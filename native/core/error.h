// The one exception type of the native side. The binding turns it into the JavaScript class of the
// same code; nothing else may cross a thread or the Node-API boundary.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <string>

#define GRADUS_API __attribute__((visibility("default")))

namespace gradus {

enum class ErrorCode : uint8_t {
  kShape = 0,
  kDType = 1,
  kDevice = 2,
  kIndex = 3,
  kState = 4,
  kOutOfMemory = 5,
  kNative = 6,
};

class GRADUS_API Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
  std::string message_;
};

// Message template, that of lib/errors.ts: "op: problem: got ..., expected ...; what to do."
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(ErrorCode code, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(code, text);
}

}  // namespace gradus

// Rules use this: cheap on the hot path, and the message is only built when it fails.
#define GRADUS_CHECK(condition, code, ...)                                    \
  do {                                                                        \
    if (__builtin_expect(!(condition), 0)) ::gradus::fail(code, __VA_ARGS__); \
  } while (0)
