// Module-level PTX: version, variables with initializers, function headers.
#include <algorithm>
#include <cstdlib>

#include "parser.h"

namespace cudasim::ptx {

namespace {

uint32_t typeBytes(const std::string& type) {  // 0 for what is no type with a size
  static const std::map<std::string, uint32_t> sizes = {
      {".b8", 1},    {".u8", 1},     {".s8", 1},  {".b16", 2}, {".u16", 2}, {".s16", 2},
      {".f16", 2},   {".bf16", 2},   {".b32", 4}, {".u32", 4}, {".s32", 4}, {".f32", 4},
      {".f16x2", 4}, {".bf16x2", 4}, {".b64", 8}, {".u64", 8}, {".s64", 8}, {".f64", 8}};
  const auto found = sizes.find(type);
  return found == sizes.end() ? 0 : found->second;
}

}  // namespace

ModuleText parse(std::string_view text) { return Parser(text).run(); }

ModuleText Parser::run() {
  while (!in_.atEnd()) header();
  if (!module_.version) in_.fail("no .version directive: is this PTX text?");
  return std::move(module_);
}

void Parser::header() {
  const int line = in_.line();
  if (in_.peek() != '.') in_.fail("expected a directive at module level");
  const std::string d = in_.directive();
  if (d == ".version") {
    const int major = std::atoi(in_.word().c_str());
    in_.expect('.');
    module_.version = major * 10 + std::atoi(in_.word().c_str());
  } else if (d == ".target") {
    const std::string target = in_.word();
    if (target.compare(0, 3, "sm_") != 0) in_.fail("unknown target '" + target + "'");
    module_.target = std::atoi(target.c_str() + 3);
    while (in_.accept(',')) in_.word();
  } else if (d == ".address_size") {
    if (in_.integer() != 64) in_.fail("only 64-bit addresses are supported");
  } else if (d == ".visible" || d == ".weak" || d == ".extern" || d == ".common") {
    // The linker's business; what follows is declared all the same.
  } else if (d == ".entry" || d == ".func") {
    function(d == ".entry");
  } else if (d == ".global" || d == ".const" || d == ".shared") {
    do {
      module_.variables.push_back(variable(d == ".global"  ? Space::kGlobal
                                           : d == ".const" ? Space::kConst
                                                           : Space::kShared));
    } while (in_.accept(','));
    in_.expect(';');
  } else if (d == ".file" || d == ".loc") {
    in_.skipLine();
  } else if (d == ".section") {
    in_.skipLine();
    if (in_.peek() == '{') in_.skipBraces();
  } else if (d == ".pragma") {
    in_.quoted();
    in_.expect(';');
  } else {
    refuse(Fault::kUnknownOpcode, line, "directive '" + d + "' is not supported at module level");
  }
}

Variable Parser::variable(Space space) {
  Variable v{.space = space, .line = in_.line()};
  uint32_t element = 0;
  while (in_.peek() == '.') {
    const std::string d = in_.directive();
    if (d == ".align") {
      v.align = static_cast<uint32_t>(in_.integer());
      if (!v.align || (v.align & (v.align - 1))) in_.fail(".align needs a power of two");
    } else if (typeBytes(d)) {
      element = typeBytes(d);
    } else if (d == ".v2" || d == ".v4") {
      in_.fail("vector variables are not supported");
    } else if (d == ".ptr" || d == ".global" || d == ".shared" || d == ".const" || d == ".local" || d == ".generic") {
      // hints on what a pointer parameter points at; a later .align would be the pointee's
      if (d == ".ptr") {
        while (in_.peek() == '.')
          if (in_.directive() == ".align") in_.integer();
      }
    } else if (d == ".attribute" || d == ".unified") {
      refuse(Fault::kUnknownOpcode, v.line, "variable attribute '" + d + "' is not supported");
    } else {
      in_.fail("unknown type '" + d + "' of a variable");
    }
  }
  if (!element) in_.fail("a variable needs a type");
  v.name = in_.word();
  v.align = std::max(v.align, element);
  uint64_t count = 1;
  while (in_.accept('[')) {
    if (in_.accept(']')) {
      v.unsized = true;
      count = 0;
    } else {
      count *= static_cast<uint64_t>(in_.integer());
      in_.expect(']');
    }
  }
  v.bytes = count * element;
  if (in_.accept('=')) {
    initializer(v, element);
    if (v.unsized) {  // its size is what the initializer has
      for (const Initializer& i : v.initial) v.bytes = std::max(v.bytes, i.offset + i.bytes);
      v.unsized = false;
    }
  }
  return v;
}

void Parser::initializer(Variable& v, uint32_t element) {
  uint64_t offset = 0;
  const auto one = [&] {
    Initializer piece{.offset = offset, .bytes = element};
    const char c = in_.peek();
    if ((c >= '0' && c <= '9') || c == '-' || c == '~') {
      const Operand n = in_.number();
      piece.bits = n.bits;
      if (n.kind == Operand::kFloat64 && element == 4) {  // a decimal fraction for a float32
        const float narrow = static_cast<float>(__builtin_bit_cast(double, n.bits));
        piece.bits = __builtin_bit_cast(uint32_t, narrow);
      }
    } else {
      piece.symbol = in_.word();
      if (piece.symbol == "generic") {
        in_.expect('(');
        piece.symbol = in_.word();
        in_.expect(')');
      }
      if (in_.accept('+')) piece.bits = static_cast<uint64_t>(in_.integer());
      if (element != 8) in_.fail("an address in an initializer needs a 64-bit element");
    }
    v.initial.push_back(piece);
    offset += element;
  };
  const auto list = [&](auto&& self) -> void {
    if (!in_.accept('{')) return one();
    if (in_.accept('}')) return;
    do self(self);
    while (in_.accept(','));
    in_.expect('}');
  };
  list(list);
  if (!v.unsized && offset > v.bytes) in_.fail("more initial values than '" + v.name + "' has elements");
}

std::vector<Variable> Parser::parameters(Function& f, std::vector<std::string>& registers) {
  std::vector<Variable> result;
  in_.expect('(');
  if (in_.accept(')')) return result;
  do {
    const std::string d = in_.directive();
    if (d == ".param") {
      result.push_back(variable(Space::kParam));
      if (result.back().unsized) in_.fail("variadic functions are not supported");
      scopes_.back().names[result.back().name] = result.back().name;
    } else if (d == ".reg") {
      const std::string type = in_.directive(), name = in_.word();
      const uint32_t bytes = typeBytes(type);
      if (type != ".pred" && bytes < 2) in_.fail("register type '" + type + "' is not supported");
      f.registers[name] = type == ".pred" ? RegisterClass::kPredicate
                          : bytes == 2    ? RegisterClass::k16
                          : bytes == 4    ? RegisterClass::k32
                                          : RegisterClass::k64;
      scopes_.back().names[name] = name;
      registers.push_back(name);
    } else {
      in_.fail("expected .param or .reg in a parameter list");
    }
  } while (in_.accept(','));
  in_.expect(')');
  return result;
}

void Parser::function(bool entry) {
  Function f{.entry = entry, .line = in_.line()};
  scopes_.assign(1, {0, {}});
  nextScope_ = 1;
  if (!entry && in_.peek() == '(') f.results = parameters(f, f.registerResults);
  f.name = in_.word();
  if (in_.peek() == '(') f.params = parameters(f, f.registerParams);
  performanceDirectives(f);
  if (in_.accept(';')) {
    module_.functions.try_emplace(f.name, std::move(f));  // a prototype never replaces a body
    return;
  }
  f.hasBody = true;
  body(f);
  if (entry) module_.order.push_back(f.name);
  module_.functions[f.name] = std::move(f);
}

void Parser::performanceDirectives(Function& f) {
  const auto dims = [&] {
    Dim3 d;
    d.x = static_cast<uint32_t>(in_.integer());
    if (in_.accept(',')) d.y = static_cast<uint32_t>(in_.integer());
    if (in_.accept(',')) d.z = static_cast<uint32_t>(in_.integer());
    return d;
  };
  while (in_.peek() == '.') {
    const int line = in_.line();
    const std::string d = in_.directive();
    if (d == ".maxntid") {
      f.maxntid = dims();
    } else if (d == ".reqntid") {
      f.reqntid = dims();
    } else if (d == ".minnctapersm") {
      f.minBlocks = static_cast<uint32_t>(in_.integer());
    } else if (d == ".maxnreg") {
      in_.integer();  // ptxas's business
    } else if (d == ".pragma") {
      in_.quoted();
      in_.expect(';');
    } else if (d != ".noreturn") {
      refuse(Fault::kUnknownOpcode, line, "directive '" + d + "' of a function is not supported");
    }
  }
}

void Parser::registers(Function& f) {
  const std::string type = in_.directive();
  const uint32_t bytes = typeBytes(type);
  RegisterClass kind = RegisterClass::kPredicate;
  if (type != ".pred") {
    if (!bytes) refuse(Fault::kUnknownOpcode, in_.line(), "registers of type '" + type + "' are not supported");
    kind = bytes <= 2 ? RegisterClass::k16 : bytes == 4 ? RegisterClass::k32 : RegisterClass::k64;
  }
  do {
    const std::string name = in_.word();
    if (in_.accept('<')) {
      const int64_t count = in_.integer();
      in_.expect('>');
      for (int64_t i = 0; i < count; ++i) f.registers[declare(name + std::to_string(i))] = kind;
    } else {
      f.registers[declare(name)] = kind;
    }
  } while (in_.accept(','));
  in_.expect(';');
}

}  // namespace cudasim::ptx
