// What the parser makes of PTX text: declarations and statements, names resolved through scopes, nothing interpreted.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../fault.h"

namespace cudasim::ptx {

enum class Space : uint8_t { kGeneric, kGlobal, kConst, kShared, kLocal, kParam };

struct Operand {
  enum Kind : uint8_t {
    kName,     // a register (negated for !%p), a special register, a variable (+ offset), a function, a label
    kInteger,  // bits
    kFloat32,  // bits, from 0f3F800000
    kFloat64,  // bits, from 0d3FF0000000000000 or 1.0
    kAddress,  // [name + offset], name a register, a variable, or empty
    kVector,   // {a, b, ...}
    kTuple,    // (a, b, ...) of call
    kPair,     // a|b
    kSink,     // _
  };
  Kind kind = kSink;
  bool negated = false;
  std::string name;
  uint64_t bits = 0;
  int64_t offset = 0;
  std::vector<Operand> elements;
};

struct Statement {
  int line = 0;
  std::string label;  // when set, the statement is only a label
  std::string guard;  // predicate register, or empty
  bool guardNegated = false;
  std::string opcode;  // with all modifiers: "ld.global.v4.f32"
  std::vector<Operand> operands;
  std::vector<std::string> targets;  // of brx.idx
};

enum class RegisterClass : uint8_t { kPredicate, k16, k32, k64 };

struct Initializer {  // a piece of a variable's initial value
  uint64_t offset = 0;
  uint32_t bytes = 0;
  uint64_t bits = 0;
  std::string symbol;  // its address is added to bits when set
};

struct Variable {
  std::string name;
  Space space = Space::kGlobal;
  uint32_t align = 1;
  uint64_t bytes = 0;
  bool unsized = false;  // extern shared: name[]
  bool external = false;
  std::vector<Initializer> initial;
  int line = 0;
};

struct Function {
  std::string name;
  bool entry = false;
  bool hasBody = false;
  int line = 0;
  std::vector<Variable> params, results;           // .param
  std::map<std::string, RegisterClass> registers;  // also parameters and results declared .reg
  std::vector<std::string> registerParams, registerResults;
  std::vector<Variable> variables;  // .shared, .local, .param of the body
  std::vector<Statement> body;
  Dim3 reqntid{0, 0, 0}, maxntid{0, 0, 0};
  uint32_t minBlocks = 0;
};

struct ModuleText {
  int version = 0, target = 0;
  std::vector<Variable> variables;
  std::map<std::string, Function> functions;
  std::vector<std::string> order;  // entries, as in the text
};

ModuleText parse(std::string_view text);

[[noreturn]] void refuse(Fault fault, int line, const std::string& problem);

}  // namespace cudasim::ptx
