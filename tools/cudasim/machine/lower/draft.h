// Instructions between the parser and the program: operands are virtual registers, targets are draft indices.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "../exec/registry.h"
#include "../program.h"
#include "../ptx/ast.h"

namespace cudasim::lower {

using ptx::Operand;
using ptx::RegisterClass;
using ptx::Space;
using ptx::Statement;

constexpr uint32_t kNoRegister = ~0u;

struct Draft {
  Insn insn;
  std::string opcode;
  int line = 0;
  struct Ref {
    uint8_t slot;  // below kSlots: insn.r; else more[slot - kSlots]
    bool defines;
    uint32_t reg;
  };
  struct Const {
    uint8_t slot;
    bool wide;
    uint32_t index;
  };
  std::vector<Ref> refs;
  std::vector<Const> constants;
  std::vector<uint32_t> more;
  uint32_t guard = kNoRegister;
  bool copies = false;  // a move: an undefined source makes the destination undefined, no more
  bool apart = false;   // its destination must not share a row with a source: lanes read other lanes
  bool memory = false;  // has an address
  bool hidden = false;  // made by checkDefined, not counted
  bool branch = false, exits = false;
  std::vector<uint32_t> targets;
};

struct Register {
  std::string name;
  RegisterClass kind;
};

// One kernel on its way to a Program.
class Lowering {
 public:
  Lowering(const ptx::ModuleText& module, ptx::Function kernel, std::shared_ptr<const std::string> text);
  Kernel run();

  // For the decoders (decode_*.cc).
  Draft& draft() { return *current_; }
  void use(int slot, const Operand& o, char width);  // register, immediate, special register or address of a variable
  void def(int slot, const Operand& o, char width);  // register or _
  // A register at least `bits` wide, as ld, st and cvt allow; returns its size in bits.
  int useLoose(int slot, const Operand& o, int bits);
  int defLoose(int slot, const Operand& o, int bits);
  void table(const Statement& s);  // the opcode as a whole is a name in the registry
  void setHandler(const std::string& name);
  void constant(int slot, uint64_t bits, bool wide, const std::string& symbol = {});
  Draft& extraDraft();  // another instruction after this one, under the same guard; becomes draft()
  bool isRegister(const std::string& name) const { return registers_.contains(name); }
  int registerBits(const std::string& name) const;  // 1 for predicates
  [[noreturn]] void unknown(const std::string& problem = {}) const;
  [[noreturn]] void malformed(const std::string& problem) const;
  void expectOperands(const Statement& s, size_t count) const;
  // [register + offset], [variable + offset], [offset]: the base in `slot`, the displacement in insn.imm; returns
  // whether the base is a 32-bit register. A variable must be in `space`, unless that is generic.
  bool address(int slot, const Operand& o, Space space);
  // The place of a variable: its space and its address in that space (offset; module variables: symbol).
  struct Place {
    Space space;
    uint64_t address = 0;
    std::string symbol;
    bool frame = false;  // a .param of a call: lives in local memory
  };
  bool place(const std::string& name, Place* place) const;
  void noteAccess(Space space, int bytes);  // for the granule of race checks
  Program& program() { return *program_; }
  const Draft& at(size_t i) const { return drafts_[i]; }

  // Stages, each in its own file.
  void inlineCalls();    // inline.cc
  void decodeAll();      // lower.cc
  void simplifyExits();  // flow.cc
  void findReconvergence();
  void checkDefined();  // defined.cc
  void allocateRows();  // allocate.cc
  void finish(Kernel& kernel);

 private:
  void placeVariables();
  void decode(const Statement& s);
  void refer(int slot, const std::string& reg, bool defines);
  bool useSpecial(int slot, const std::string& name, char width);

  struct Flow {
    std::vector<uint32_t> begin;  // first draft of each block, and the end
    std::vector<std::vector<uint32_t>> next;
    std::vector<uint32_t> blockOf;  // of each draft
  };
  Flow flow() const;

  static constexpr RegisterClass kindOf(char width) {
    return width == 'p'   ? RegisterClass::kPredicate
           : width == 'h' ? RegisterClass::k16
           : width == 'w' ? RegisterClass::k32
                          : RegisterClass::k64;
  }

  const ptx::ModuleText& module_;
  ptx::Function kernel_;  // inlining changes it
  std::shared_ptr<Program> program_;
  std::unordered_map<std::string, uint32_t> registers_;
  std::vector<Register> registerList_;
  std::map<std::string, Place> places_;
  std::map<std::pair<uint64_t, std::string>, uint32_t> constants32_, constants64_;
  std::vector<Program::Constant> narrow_, wide_;
  std::map<Special, uint32_t> specials_;  // -> virtual register
  std::vector<Draft> drafts_;
  Draft* current_ = nullptr;
  std::vector<uint32_t> trackedSlot_;  // by virtual register
};

// "ld.global.v4.f32" -> ld, global, v4, f32
std::vector<std::string> parts(const std::string& opcode);

using Decoder = void (*)(Lowering&, const Statement&, const std::vector<std::string>&);
Decoder findDecoder(const std::string& base);  // null: the opcode is looked up as a whole

}  // namespace cudasim::lower
