// From a function's text to a kernel: operands get virtual registers and constants, opcodes get handlers.
#include <algorithm>
#include <bit>

#include "draft.h"

namespace cudasim::lower {

std::vector<std::string> parts(const std::string& opcode) {
  std::vector<std::string> result;
  size_t begin = 0;
  while (begin <= opcode.size()) {
    const size_t end = std::min(opcode.find('.', begin), opcode.size());
    result.push_back(opcode.substr(begin, end - begin));
    begin = end + 1;
  }
  return result;
}

namespace {

uint32_t alignUp(uint64_t value, uint32_t align) { return static_cast<uint32_t>((value + align - 1) / align * align); }

const std::map<std::string, Special>& specialNames() {
  using enum Special;
  static const std::map<std::string, Special> names = {{"%tid.x", kTidX},
                                                       {"%tid.y", kTidY},
                                                       {"%tid.z", kTidZ},
                                                       {"%ntid.x", kNtidX},
                                                       {"%ntid.y", kNtidY},
                                                       {"%ntid.z", kNtidZ},
                                                       {"%ctaid.x", kCtaidX},
                                                       {"%ctaid.y", kCtaidY},
                                                       {"%ctaid.z", kCtaidZ},
                                                       {"%nctaid.x", kNctaidX},
                                                       {"%nctaid.y", kNctaidY},
                                                       {"%nctaid.z", kNctaidZ},
                                                       {"%laneid", kLaneid},
                                                       {"%warpid", kWarpid},
                                                       {"%nwarpid", kNwarpid},
                                                       {"%smid", kSmid},
                                                       {"%nsmid", kNsmid},
                                                       {"%gridid", kGridid},
                                                       {"%lanemask_eq", kLanemaskEq},
                                                       {"%lanemask_le", kLanemaskLe},
                                                       {"%lanemask_lt", kLanemaskLt},
                                                       {"%lanemask_ge", kLanemaskGe},
                                                       {"%lanemask_gt", kLanemaskGt},
                                                       {"%dynamic_smem_size", kDynamicSmemSize},
                                                       {"%total_smem_size", kTotalSmemSize},
                                                       {"%envreg1", kEnvreg1},
                                                       {"%envreg2", kEnvreg2}};
  return names;
}

}  // namespace

Lowering::Lowering(const ptx::ModuleText& module, ptx::Function kernel, std::shared_ptr<const std::string> text)
    : module_(module), kernel_(std::move(kernel)), program_(std::make_shared<Program>()) {
  program_->text = std::move(text);
}

Kernel Lowering::run() {
  Kernel kernel{
      .name = kernel_.name, .reqntid = kernel_.reqntid, .maxntid = kernel_.maxntid, .minBlocks = kernel_.minBlocks};
  if (kernel_.reqntid.count())
    kernel.maxThreads = static_cast<uint32_t>(std::min<uint64_t>(1024, kernel_.reqntid.count()));
  if (kernel_.maxntid.count())
    kernel.maxThreads = static_cast<uint32_t>(std::min<uint64_t>(kernel.maxThreads, kernel_.maxntid.count()));
  for (const ptx::Variable& p : kernel_.params) {
    const uint32_t offset = alignUp(kernel.paramBytes, p.align);
    kernel.params.push_back({offset, static_cast<uint32_t>(p.bytes), p.align});
    kernel.paramBytes = offset + static_cast<uint32_t>(p.bytes);
    places_[p.name] = {.space = Space::kParam, .address = offset};
  }
  if (!kernel_.registerParams.empty())
    ptx::refuse(Fault::kUnknownOpcode, kernel_.line, "an entry with .reg parameters");
  program_->paramBytes = kernel.paramBytes;
  inlineCalls();
  for (const auto& [name, kind] : kernel_.registers) {
    registers_[name] = static_cast<uint32_t>(registerList_.size());
    registerList_.push_back({name, kind});
  }
  placeVariables();
  decodeAll();
  simplifyExits();
  checkDefined();
  findReconvergence();
  allocateRows();
  finish(kernel);
  return kernel;
}

void Lowering::placeVariables() {
  uint32_t staticShared = 0, end = 0;
  const auto addShared = [&](const ptx::Variable& v) {
    if (v.external || v.unsized) return;
    staticShared = alignUp(staticShared, v.align) + static_cast<uint32_t>(v.bytes);
    const uint32_t offset = alignUp(end, std::max(v.align, kSharedRedZone));
    places_[v.name] = {.space = Space::kShared, .address = offset};
    program_->shared.push_back({v.name, offset, static_cast<uint32_t>(v.bytes)});
    end = offset + static_cast<uint32_t>(v.bytes) + kSharedRedZone;
  };
  // A module-level shared variable belongs to every kernel that names it.
  std::map<std::string, bool> named;
  const auto note = [&](auto&& self, const Operand& o) -> void {
    if (!o.name.empty()) named[o.name] = true;
    for (const Operand& e : o.elements) self(self, e);
  };
  for (const Statement& s : kernel_.body)
    for (const Operand& o : s.operands) note(note, o);
  for (const ptx::Variable& v : module_.variables)
    if (v.space == Space::kShared && named.contains(v.name)) addShared(v);
  for (const ptx::Variable& v : kernel_.variables)
    if (v.space == Space::kShared) addShared(v);
  program_->sharedEnd = alignUp(end, 128);
  using List = const std::vector<ptx::Variable>*;
  for (const List list : {List{&module_.variables}, List{&kernel_.variables}})
    for (const ptx::Variable& v : *list)
      if (v.space == Space::kShared && (v.external || v.unsized))
        places_[v.name] = {.space = Space::kShared, .address = program_->sharedEnd};

  uint32_t local = 0;
  for (const ptx::Variable& v : kernel_.variables) {
    if (v.space != Space::kLocal && v.space != Space::kParam) continue;
    const uint32_t offset = alignUp(local, std::max(v.align, kLocalRedZone));
    places_[v.name] = {.space = Space::kLocal, .address = offset, .symbol = {}, .frame = v.space == Space::kParam};
    program_->local.push_back({v.name, offset, static_cast<uint32_t>(v.bytes)});
    local = offset + static_cast<uint32_t>(v.bytes) + kLocalRedZone;
  }
  program_->localEnd = alignUp(local, 16);
  for (const ptx::Variable& v : module_.variables)
    if (v.space == Space::kGlobal || v.space == Space::kConst)
      places_[v.name] = {.space = v.space, .address = 0, .symbol = v.name};
}

bool Lowering::place(const std::string& name, Place* place) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return false;
  *place = found->second;
  return true;
}

void Lowering::decodeAll() {
  std::unordered_map<std::string, uint32_t> labels;
  std::vector<std::pair<uint32_t, const Statement*>> jumps;
  drafts_.reserve(kernel_.body.size() + kernel_.body.size() / 8);
  for (const Statement& s : kernel_.body) {
    if (!s.label.empty()) {
      labels[s.label] = static_cast<uint32_t>(drafts_.size());
      continue;
    }
    if (!s.targets.empty()) jumps.emplace_back(static_cast<uint32_t>(drafts_.size()), &s);
    decode(s);
  }
  // Falling off the end returns, and a label at the end needs something to point at.
  const Statement end{.line = drafts_.empty() ? kernel_.line : drafts_.back().line, .opcode = "ret"};
  decode(end);
  for (const auto& [index, s] : jumps)
    for (const std::string& target : s->targets) drafts_[index].targets.push_back(labels.at(target));
}

void Lowering::decode(const Statement& s) {
  drafts_.push_back({.opcode = s.opcode, .line = s.line});
  current_ = &drafts_.back();
  if (!s.guard.empty()) {
    const auto found = registers_.find(s.guard);
    if (found == registers_.end() || registerList_[found->second].kind != RegisterClass::kPredicate)
      malformed("guard '" + s.guard + "' is no predicate register");
    current_->guard = found->second;
    current_->insn.guardFlip = s.guardNegated ? ~0u : 0;
  }
  const std::vector<std::string> words = parts(s.opcode);
  if (const Decoder decoder = findDecoder(words[0]))
    decoder(*this, s, words);
  else
    table(s);
}

Draft& Lowering::extraDraft() {
  const Draft& first = drafts_.back();
  Draft extra{.opcode = first.opcode, .line = first.line, .guard = first.guard};
  extra.insn.guardFlip = first.insn.guardFlip;
  extra.hidden = true;
  drafts_.push_back(std::move(extra));
  return *(current_ = &drafts_.back());
}

void Lowering::table(const Statement& s) {
  const OpEntry* op = Registry::get().find(s.opcode);
  if (!op || s.opcode[0] == '@') unknown();
  expectOperands(s, op->signature.size());
  current_->insn.run = op->run;
  for (size_t i = 0; i < op->signature.size(); ++i) {
    const char c = op->signature[i];
    if (c >= 'A' && c <= 'Z')
      def(static_cast<int>(i), s.operands[i], static_cast<char>(c - 'A' + 'a'));
    else
      use(static_cast<int>(i), s.operands[i], c);
  }
}

void Lowering::unknown(const std::string& problem) const {
  ptx::refuse(Fault::kUnknownOpcode, current_->line,
              "'" + current_->opcode + "' is not supported" + (problem.empty() ? "" : ": " + problem));
}

void Lowering::malformed(const std::string& problem) const {
  ptx::refuse(Fault::kBadPtx, current_->line, "'" + current_->opcode + "': " + problem);
}

void Lowering::expectOperands(const Statement& s, size_t count) const {
  if (s.operands.size() != count)
    malformed("expected " + std::to_string(count) + " operands but found " + std::to_string(s.operands.size()));
}

void Lowering::setHandler(const std::string& name) {
  const OpEntry* op = Registry::get().find(name);
  if (!op) unknown();
  current_->insn.run = op->run;
}

int Lowering::registerBits(const std::string& name) const {
  switch (registerList_[registers_.at(name)].kind) {
    case RegisterClass::kPredicate:
      return 1;
    case RegisterClass::k16:
      return 16;
    case RegisterClass::k32:
      return 32;
    case RegisterClass::k64:
      return 64;
  }
  return 0;
}

void Lowering::refer(int slot, const std::string& reg, bool defines) {
  if (slot >= kSlots && current_->more.size() <= static_cast<size_t>(slot - kSlots))
    current_->more.resize(slot - kSlots + 1);
  current_->refs.push_back({static_cast<uint8_t>(slot), defines, registers_.at(reg)});
}

void Lowering::constant(int slot, uint64_t bits, bool wide, const std::string& symbol) {
  auto& known = wide ? constants64_ : constants32_;
  auto& list = wide ? wide_ : narrow_;
  if (!wide) bits &= 0xffffffff;
  const auto [found, added] = known.try_emplace({bits, symbol}, static_cast<uint32_t>(list.size()));
  if (added) list.push_back({bits, wide, symbol});
  if (slot >= kSlots && current_->more.size() <= static_cast<size_t>(slot - kSlots))
    current_->more.resize(slot - kSlots + 1);
  current_->constants.push_back({static_cast<uint8_t>(slot), wide, found->second});
}

bool Lowering::useSpecial(int slot, const std::string& name, char width) {
  if (name == "WARP_SZ") {
    constant(slot, 32, width == 'd');
    return true;
  }
  const auto found = specialNames().find(name);
  if (found == specialNames().end()) return false;
  if (width != 'w') malformed("'" + name + "' is a 32-bit register");
  if (specials_.try_emplace(found->second, static_cast<uint32_t>(registerList_.size())).second) {
    registers_[name] = static_cast<uint32_t>(registerList_.size());
    registerList_.push_back({name, RegisterClass::k32});
  }
  refer(slot, name, false);
  return true;
}

void Lowering::use(int slot, const Operand& o, char width) {
  if (width == 'p') {
    if (o.kind == Operand::kInteger) {
      current_->insn.r[slot] = o.bits ? kTrueSlot : kFalseSlot;
      return;
    }
    if (o.kind != Operand::kName || o.negated || !isRegister(o.name) || registerBits(o.name) != 1)
      malformed("operand " + std::to_string(slot + 1) + " must be a predicate");
    return refer(slot, o.name, false);
  }
  switch (o.kind) {
    case Operand::kInteger:
      return constant(slot, width == 'h' ? o.bits & 0xffff : o.bits, width == 'd');
    case Operand::kFloat32:
      if (width != 'w')
        malformed("a float32 literal where " + std::string(width == 'd' ? "64" : "16") + " bits are needed");
      return constant(slot, o.bits, false);
    case Operand::kFloat64: {
      if (width == 'd') return constant(slot, o.bits, true);
      if (width != 'w') malformed("a float64 literal where 16 bits are needed");
      return constant(slot, std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(o.bits))), false);
    }
    case Operand::kName:
      break;
    default:
      malformed("operand " + std::to_string(slot + 1) + " is of the wrong kind");
  }
  if (o.negated) malformed("'!' is for predicates");
  if (isRegister(o.name)) {
    if (registerList_[registers_[o.name]].kind != kindOf(width))
      malformed("register '" + o.name + "' has " + std::to_string(registerBits(o.name)) + " bits");
    return refer(slot, o.name, false);
  }
  if (useSpecial(slot, o.name, width)) return;
  Place p;
  if (!place(o.name, &p)) malformed("'" + o.name + "' is not declared");
  if (width == 'h') malformed("an address does not fit 16 bits");
  if (p.frame) unknown("the address of a parameter of a call");
  constant(slot, p.address + static_cast<uint64_t>(o.offset), width == 'd', p.symbol);
}

void Lowering::def(int slot, const Operand& o, char width) {
  if (o.kind == Operand::kSink) {  // a scratch register that nobody reads
    const std::string name = std::string("#") + width;
    if (!registers_.contains(name)) {
      registers_[name] = static_cast<uint32_t>(registerList_.size());
      registerList_.push_back({name, kindOf(width)});
    }
    return refer(slot, name, true);
  }
  if (o.kind != Operand::kName || !isRegister(o.name) || o.negated || specialNames().contains(o.name))
    malformed("the destination must be a register");
  if (registerList_[registers_[o.name]].kind != kindOf(width))
    malformed("register '" + o.name + "' has " + std::to_string(registerBits(o.name)) + " bits");
  refer(slot, o.name, true);
}

int Lowering::useLoose(int slot, const Operand& o, int bits) {
  if (o.kind == Operand::kName && isRegister(o.name) && registerBits(o.name) >= bits && registerBits(o.name) > 1) {
    refer(slot, o.name, false);
    return registerBits(o.name);
  }
  use(slot, o, bits <= 16 ? 'h' : bits == 32 ? 'w' : 'd');
  return std::max(bits, 16);
}

int Lowering::defLoose(int slot, const Operand& o, int bits) {
  if (o.kind == Operand::kName && isRegister(o.name) && registerBits(o.name) >= bits && registerBits(o.name) > 1) {
    refer(slot, o.name, true);
    return registerBits(o.name);
  }
  def(slot, o, bits <= 16 ? 'h' : bits == 32 ? 'w' : 'd');
  return std::max(bits, 16);
}

bool Lowering::address(int slot, const Operand& o, Space space) {
  if (o.kind != Operand::kAddress) malformed("operand " + std::to_string(slot + 1) + " must be an address");
  current_->memory = true;
  if (!o.name.empty() && isRegister(o.name)) {
    const int bits = registerBits(o.name);
    if (bits < 32) malformed("'" + o.name + "' is too narrow for an address");
    refer(slot, o.name, false);
    current_->insn.imm = o.offset;
    return bits == 32;
  }
  if (o.name.empty()) {
    constant(slot, static_cast<uint64_t>(o.offset), true);
    return false;
  }
  Place p;
  if (!place(o.name, &p)) malformed("'" + o.name + "' is not declared");
  uint64_t base = p.address + static_cast<uint64_t>(o.offset);
  if (space == Space::kGeneric) {
    if (p.space == Space::kShared) base += kSharedWindow;
    if (p.space == Space::kLocal) base += kLocalWindow;
    if (p.space == Space::kParam) base += kParamWindow;
  } else if (p.space != space) {
    malformed("'" + o.name + "' is not in the instruction's state space");
  }
  constant(slot, base, true, p.symbol);
  return false;
}

void Lowering::noteAccess(Space space, int bytes) {
  const int shift = std::bit_width(static_cast<unsigned>(bytes)) - 1;
  if (space == Space::kShared || space == Space::kGeneric)
    program_->sharedShift = std::min(program_->sharedShift, shift);
  if (space == Space::kGlobal || space == Space::kGeneric)
    program_->globalShift = std::min(program_->globalShift, shift);
}

}  // namespace cudasim::lower
