// Decoded kernels: what the front end makes and the interpreter runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "machine.h"
#include "ptx/ast.h"

namespace cudasim {

struct Warp;
struct Insn;
struct SpareWorkers;  // run/launch_state.h

// Executes one instruction for the lanes in `exec`, never empty but for control flow.
using Handler = void (*)(Warp&, const Insn&, uint32_t exec);

// Operand encoding: byte offset of a row in the warp's register file, or, with kConstantRow set, in the launch's
// constant rows. Predicates are slot numbers.
constexpr uint32_t kConstantRow = 1u << 31;
constexpr uint32_t kFalseSlot = 0, kTrueSlot = 1;  // predicate slots that never change
constexpr uint32_t kNoPc = ~0u;
constexpr int kSlots = 6;

struct Insn {
  Handler run = nullptr;
  uint32_t guard = kTrueSlot;
  uint32_t guardFlip = 0;  // all ones for @!p
  uint32_t r[kSlots] = {};
  const uint32_t* more = nullptr;  // operands beyond r: fragments of mma, tables of brx
  int64_t imm = 0;                 // displacement of an address, target of a branch
  uint32_t reconverge = kNoPc;     // of a branch: where its lanes meet again; of an access to memory: its site
  uint16_t sub = 0;                // modifiers; their meaning is the handler's
  uint8_t control = 0;             // runs even when no lane is active
  uint8_t count = 0;               // elements of a vector access, targets of brx
};

enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneid,
  kWarpid,
  kNwarpid,
  kSmid,
  kNsmid,
  kGridid,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kDynamicSmemSize,
  kTotalSmemSize,
  kEnvreg1,
  kEnvreg2,
  kClock,
  kClock64,
  kClockHi,
  kGlobaltimer,
  kGlobaltimerLo,
  kGlobaltimerHi,
};

struct Program {
  struct Constant {
    uint64_t bits = 0;
    bool wide = false;
    std::string symbol;  // a module variable whose address is added at launch
  };
  struct SpecialRow {
    Special special;
    uint32_t row;
  };
  struct Placed {  // a variable in shared or local memory; red zones lie between them
    std::string name;
    uint32_t offset, bytes;
  };
  struct Origin {
    int line = 0;
    uint32_t opcode = 0;  // index into opcodes
  };

  std::vector<Insn> code;
  std::vector<Origin> origins;
  std::shared_ptr<const std::vector<std::string>> opcodes;
  std::vector<std::unique_ptr<uint32_t[]>> more;
  std::vector<Constant> constants;  // wide ones first, rows in this order
  std::vector<SpecialRow> specials;
  uint32_t registerBytes = 0, predicates = 2, tracked = 0, sites = 0;
  std::vector<Placed> shared, local;
  uint32_t sharedEnd = 0;  // static variables with red zones; dynamic shared memory starts here
  uint32_t localEnd = 0;
  uint32_t paramBytes = 0;
  int sharedShift = 4, globalShift = 4;  // log2 of the granule that races are told apart by: the narrowest access
  bool hasFences = false;
  std::shared_ptr<const std::string> text;
  std::shared_ptr<SpareWorkers> spareWorkers;

  uint32_t constantOffset(size_t index) const;
  size_t wideConstants() const;
  std::string_view lineText(int line) const;
};

std::shared_ptr<SpareWorkers> makeSpareWorkers();

constexpr uint32_t kHiddenOpcode = ~0u;   // of instructions that the front end added
constexpr uint32_t kSharedRedZone = 128;  // keeps every variable's bank
constexpr uint32_t kLocalRedZone = 16;

// Generic addresses of the windows; a device's global memory lies far below.
constexpr uint64_t kSharedWindow = uint64_t{1} << 56, kLocalWindow = uint64_t{2} << 56,
                   kParamWindow = uint64_t{3} << 56;
constexpr uint64_t kWindowMask = uint64_t{0xff} << 56;

}  // namespace cudasim
