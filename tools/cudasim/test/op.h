// Tests of single opcodes. A test writes the instruction as PTX, says what the registers are, and gives rows of inputs
// and expected results as bits; each row runs in a lane of its own. Expected values come from the PTX ISA document,
// from the host's arithmetic, or from exact arithmetic in reference.h, never from the machine's own number code.
//
//   Op("add.cc.u32 %d0, %a0, %a1; addc.u32 %d1, %a2, %a3;", "ww", "wwww").row({~0u, 1, 5, 6}, {0, 12});
//   Op::of("min.ftz.f32", "w", "ww").sweep({kFloats, kFloats}, [](Bits a, Bits b) -> Bits { ... });
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "test.h"

namespace cudasim::test {

using Bits = uint64_t;
using Row = std::vector<Bits>;

// A result that a test does not look at, or one that may be any NaN of its width.
constexpr Bits kAny = 0xa11a11a11a11a11a, kAnyNan = 0xa11a11a11a11a11b;

class Op {
 public:
  // Registers are %d0, %d1, ... and %a0, %a1, ...; types are p (predicate), h, w, d for 16, 32 and 64 bits.
  Op(std::string text, std::string outputs, std::string inputs, int line = __builtin_LINE());
  // "opcode %d0, %a0, %a1, ...;"
  static Op of(const std::string& opcode, const std::string& outputs, const std::string& inputs,
               int line = __builtin_LINE());
  ~Op() noexcept(false);
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  Op& row(const Row& inputs, const Row& expected);
  // Every combination of the values; `expected` returns the first result.
  Op& sweep(const std::vector<Row>& values, const std::function<Bits(const Row&)>& expected);

 private:
  std::string ptx() const;
  void run() const;

  std::string text_, outputs_, inputs_;
  int line_;
  std::vector<Row> rows_, expected_;
};

// Whether a text is refused when it is loaded.
bool isRefused(const std::string& instruction, const std::string& outputs, const std::string& inputs);

inline Bits bitsOf(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}
inline Bits bitsOf(double d) {
  Bits bits;
  std::memcpy(&bits, &d, 8);
  return bits;
}
inline float floatOf(Bits bits) {
  const auto low = static_cast<uint32_t>(bits);
  float f;
  std::memcpy(&f, &low, 4);
  return f;
}
inline double doubleOf(Bits bits) {
  double d;
  std::memcpy(&d, &bits, 8);
  return d;
}

// Values at which something changes.
extern const Row kFloats;                  // float32
extern const Row kDoubles;                 // float64
extern const Row kHalves;                  // float16
extern const Row kBrains;                  // bfloat16
extern const Row kWords, kLongs, kShorts;  // integers of 32, 64 and 16 bits

}  // namespace cudasim::test
