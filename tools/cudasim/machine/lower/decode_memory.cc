// Decoders of loads, stores, atomics, asynchronous copies and fences.
#include <algorithm>

#include "../exec/access.h"
#include "decoders.h"

namespace cudasim::lower {

namespace {

// What the modifiers between the base opcode and the type say.
struct Modifiers {
  Space space = Space::kGeneric;
  uint16_t sub = 0;
  int vector = 1;
  bool policy = false;  // an operand with a cache policy follows
  std::string operation;
};

const char* spaceName(Space space) {
  switch (space) {
    case Space::kGlobal:
    case Space::kConst:
      return "global";
    case Space::kShared:
      return "shared";
    case Space::kLocal:
      return "local";
    case Space::kParam:
      return "param";
    case Space::kGeneric:
      return "generic";
  }
  return "";
}

bool isHint(const std::string& m) {
  static const std::vector<std::string> hints = {"ca",
                                                 "cg",
                                                 "cs",
                                                 "lu",
                                                 "cv",
                                                 "wb",
                                                 "wt",
                                                 "L1::evict_normal",
                                                 "L1::evict_unchanged",
                                                 "L1::evict_first",
                                                 "L1::evict_last",
                                                 "L1::no_allocate",
                                                 "L2::evict_normal",
                                                 "L2::evict_first",
                                                 "L2::evict_last",
                                                 "L2::64B",
                                                 "L2::128B",
                                                 "L2::256B"};
  return std::find(hints.begin(), hints.end(), m) != hints.end();
}

bool readModifier(const std::string& m, Modifiers* out) {
  static const std::map<std::string, Space> spaces = {{"global", Space::kGlobal},      {"shared", Space::kShared},
                                                      {"shared::cta", Space::kShared}, {"local", Space::kLocal},
                                                      {"const", Space::kConst},        {"param", Space::kParam},
                                                      {"param::entry", Space::kParam}, {"param::func", Space::kParam}};
  if (const auto s = spaces.find(m); s != spaces.end())
    out->space = s->second;
  else if (m == "volatile")
    out->sub |= kIsStrong | kDeviceScope;
  else if (m == "relaxed")
    out->sub |= kIsStrong;
  else if (m == "acquire")
    out->sub |= kIsStrong | kIsAcquire;
  else if (m == "release")
    out->sub |= kIsStrong | kIsRelease;
  else if (m == "acq_rel")
    out->sub |= kIsStrong | kIsAcquire | kIsRelease;
  else if (m == "gpu" || m == "sys")
    out->sub |= kDeviceScope;
  else if (m == "nc")
    out->sub |= kNonCoherent;
  else if (m == "L2::cache_hint")
    out->policy = true;
  else
    return m == "weak" || m == "cta" || isHint(m);
  return true;
}

// Where a .param address leads: a kernel's parameter, or a slot of a call in local memory.
Space settle(Lowering& l, Space space, const Operand& address) {
  Lowering::Place p;
  if (space == Space::kParam && !l.isRegister(address.name) && l.place(address.name, &p) && p.frame)
    return Space::kLocal;
  return space;
}

const std::vector<Operand>& dataOperands(Lowering& l, const Operand& o, int vector, std::vector<Operand>* single) {
  if (vector == 1) {
    *single = {o};
    return *single;
  }
  if (o.kind != Operand::kVector || static_cast<int>(o.elements.size()) != vector)
    l.malformed("expected a vector of " + std::to_string(vector));
  return o.elements;
}

void decodeLoadStore(Lowering& l, const Statement& s, const std::vector<std::string>& words, bool store) {
  Modifiers m;
  if (words.size() < 2) l.unknown();
  for (size_t i = 1; i + 1 < words.size(); ++i) {
    if (words[i] == "v2")
      m.vector = 2;
    else if (words[i] == "v4")
      m.vector = 4;
    else if (!readModifier(words[i], &m))
      l.unknown();
  }
  const std::string& type = words.back();
  const int bits = typeBits(type);
  if (bits < 8 || bits * m.vector > 128) l.unknown();
  l.expectOperands(s, m.policy ? 3 : 2);
  const Operand &address = s.operands[store ? 0 : 1], &data = s.operands[store ? 1 : 0];
  const Space space = settle(l, m.space, address);
  if (store && (space == Space::kConst || space == Space::kParam || (m.sub & kNonCoherent))) l.unknown("a store there");
  if (type[0] == 's') m.sub |= kSigned;
  if (l.address(0, address, space)) m.sub |= kAddress32;
  std::vector<Operand> single;
  int width = 0;
  for (int i = 0; const Operand& o : dataOperands(l, data, m.vector, &single)) {
    if (!store && o.kind == Operand::kSink) {
      l.def(1 + i, o, typeLetter(bits));
    } else {
      const int w = store ? l.useLoose(1 + i, o, bits) : l.defLoose(1 + i, o, bits);
      if (width && w != width) l.unknown("registers of different widths");
      width = w;
    }
    ++i;
  }
  if (width == 64 && bits < 64) m.sub |= kWideRegister;
  l.draft().insn.count = width == 16;
  l.noteAccess(space, bits / 8 * m.vector);
  l.draft().insn.sub = m.sub;
  if ((m.sub & (kIsAcquire | kIsRelease))) l.program().hasFences = true;
  l.setHandler(std::string(store ? "@st." : "@ld.") + spaceName(space) + "." + std::to_string(bits / 8) + "." +
               std::to_string(m.vector));
}

void decodeLd(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  decodeLoadStore(l, s, words, false);
}
void decodeSt(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  decodeLoadStore(l, s, words, true);
}

void decodeAtomic(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  const bool reduces = words[0] == "red";
  Modifiers m;
  m.sub = kIsStrong;
  bool scoped = false;
  static const std::vector<std::string> operations = {"and", "or",  "xor", "exch", "cas",
                                                      "add", "inc", "dec", "min",  "max"};
  for (size_t i = 1; i + 1 < words.size(); ++i) {
    scoped |= words[i] == "cta" || words[i] == "gpu" || words[i] == "sys";
    if (m.operation.empty() && std::find(operations.begin(), operations.end(), words[i]) != operations.end())
      m.operation = words[i];
    else if (words[i] == "noftz" || words[i] == "async")
      continue;
    else if (!readModifier(words[i], &m))
      l.unknown();
  }
  if (!scoped) m.sub |= kDeviceScope;
  const std::string& type = words.back();
  const int bits = typeBits(type);
  if (bits < 16) l.unknown();
  if (m.space != Space::kGlobal && m.space != Space::kShared && m.space != Space::kGeneric) l.unknown();
  const size_t sources = m.operation == "cas" ? 2 : 1, first = reduces ? 0 : 1;
  l.expectOperands(s, first + 1 + sources + (m.policy ? 1 : 0));
  if (l.address(0, s.operands[first], m.space)) m.sub |= kAddress32;
  const char letter = typeLetter(bits);
  if (reduces)
    m.sub |= kNoResult;
  else
    l.def(1, s.operands[0], letter);
  for (size_t i = 0; i < sources; ++i) l.use(2 + static_cast<int>(i), s.operands[first + 1 + i], letter);
  l.noteAccess(m.space, bits / 8);
  l.draft().insn.sub = m.sub;
  l.draft().apart = true;
  if ((m.sub & (kIsAcquire | kIsRelease))) l.program().hasFences = true;
  l.setHandler(std::string("@atom.") + spaceName(m.space) + "." + m.operation + "." + type);
}

void decodeFence(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  l.expectOperands(s, 0);
  bool device = false;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string& m = words[i];
    if (m == "gl" || m == "gpu" || m == "sys")
      device = true;
    else if (m != "sc" && m != "acq_rel" && m != "cta")
      l.unknown();
  }
  l.program().hasFences = true;
  l.setHandler("@fence");
  l.draft().insn.sub = device ? kDeviceScope : 0;
}

void decodeCpAsync(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() < 3 || words[1] != "async") l.unknown();
  const std::string& what = words[2];
  if (what == "commit_group" || what == "wait_all") {
    if (words.size() != 3) l.unknown();
    l.expectOperands(s, 0);
    return l.setHandler(what == "wait_all" ? "@cp.wait_all" : "@cp.commit");
  }
  if (what == "wait_group") {
    l.expectOperands(s, 1);
    if (words.size() != 3 || s.operands[0].kind != Operand::kInteger)
      l.malformed("the number of groups must be an integer");
    l.draft().insn.imm = static_cast<int64_t>(s.operands[0].bits);
    return l.setHandler("@cp.wait_group");
  }
  if (what != "ca" && what != "cg") l.unknown();
  bool shared = false, global = false, policy = false;
  for (size_t i = 3; i < words.size(); ++i) {
    if (words[i] == "shared" || words[i] == "shared::cta")
      shared = true;
    else if (words[i] == "global")
      global = true;
    else if (words[i] == "L2::cache_hint")
      policy = true;
    else if (!isHint(words[i]))
      l.unknown();
  }
  size_t count = s.operands.size();
  if (policy && count) --count;
  if (!shared || !global) l.unknown();
  if (count < 3 || count > 5 || s.operands[2].kind != Operand::kInteger)
    l.malformed("expected destination, source and size");
  const uint64_t bytes = s.operands[2].bits;
  if ((bytes != 4 && bytes != 8 && bytes != 16) || (what == "cg" && bytes != 16))
    l.malformed("a size of " + std::to_string(bytes) + " bytes");
  uint16_t sub = 0;
  l.setHandler("@cp.async");
  Draft& d = l.draft();
  const bool narrowTo = l.address(0, s.operands[0], Space::kShared);
  const int64_t to = d.insn.imm;
  d.insn.imm = 0;
  if (l.address(1, s.operands[1], Space::kGlobal)) l.unknown("a 32-bit global address");
  // Displacements of both addresses: shared ones fit 32 bits.
  d.insn.imm =
      static_cast<int64_t>((static_cast<uint64_t>(d.insn.imm) << 32) | (static_cast<uint64_t>(to) & 0xffffffff));
  if (narrowTo) sub |= kAddress32;
  for (size_t i = 3; i < count; ++i) {
    const Operand& o = s.operands[i];
    if (o.kind == Operand::kName && l.isRegister(o.name) && l.registerBits(o.name) == 1) {
      l.use(3, o, 'p');
      sub |= kIgnoreSource;
    } else {
      l.use(2, o, 'w');
      sub |= kSourceSize;
    }
  }
  l.noteAccess(Space::kShared, static_cast<int>(bytes));
  l.noteAccess(Space::kGlobal, static_cast<int>(bytes));
  d.insn.sub = sub;
  d.insn.count = static_cast<uint8_t>(bytes);
}

void decodeLdmatrix(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  int count = 0;
  uint16_t sub = 0;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "x1")
      count = 1;
    else if (words[i] == "x2")
      count = 2;
    else if (words[i] == "x4")
      count = 4;
    else if (words[i] == "trans")
      sub |= kTranspose;
    else if (words[i] != "sync" && words[i] != "aligned" && words[i] != "m8n8" && words[i] != "shared" &&
             words[i] != "shared::cta" && words[i] != "b16")
      l.unknown();
  }
  if (!count || words.back() != "b16") l.unknown();
  l.expectOperands(s, 2);
  std::vector<Operand> single;
  const bool list = s.operands[0].kind == Operand::kVector;
  if (static_cast<int>(list ? s.operands[0].elements.size() : 1) != count)
    l.malformed("expected " + std::to_string(count) + " registers");
  if (l.address(0, s.operands[1], Space::kShared)) sub |= kAddress32;
  for (int i = 0; i < count; ++i) l.def(1 + i, list ? s.operands[0].elements[i] : s.operands[0], 'w');
  l.draft().insn.sub = sub;
  l.draft().insn.count = static_cast<uint8_t>(count);
  l.draft().apart = true;
  l.setHandler("@ldmatrix");
}

// Hints that change no value.
void decodePrefetch(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  for (size_t i = 1; i < words.size(); ++i)
    if (words[i] != "global" && words[i] != "local" && words[i] != "L1" && words[i] != "L2" && !isHint(words[i]))
      l.unknown();
  l.address(0, s.operands.at(0), Space::kGeneric);
  l.setHandler("@nop");
}

void decodeCreatepolicy(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() < 3 || words.back() != "b64" || words[1] != "fractional") l.unknown();
  if (s.operands.empty()) l.malformed("no destination");
  l.setHandler("@mov.64");
  l.def(0, s.operands[0], 'd');
  l.constant(1, 0, true);
}

}  // namespace

const std::map<std::string, Decoder>& memoryDecoders() {
  static const std::map<std::string, Decoder> decoders = {{"ld", decodeLd},
                                                          {"ldu", decodeLd},
                                                          {"st", decodeSt},
                                                          {"atom", decodeAtomic},
                                                          {"red", decodeAtomic},
                                                          {"fence", decodeFence},
                                                          {"membar", decodeFence},
                                                          {"cp", decodeCpAsync},
                                                          {"ldmatrix", decodeLdmatrix},
                                                          {"prefetch", decodePrefetch},
                                                          {"prefetchu", decodePrefetch},
                                                          {"createpolicy", decodeCreatepolicy}};
  return decoders;
}

}  // namespace cudasim::lower
