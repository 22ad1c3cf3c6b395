// Decoders of opcodes that do the same to every lane but whose modifiers need taking apart.
#include <algorithm>
#include <set>

#include "../exec/compare.h"
#include "../exec/convert.h"
#include "../exec/numerics_codes.h"
#include "decoders.h"

namespace cudasim::lower {

int typeBits(const std::string& type) {
  static const std::map<std::string, int> bits = {
      {"pred", 1}, {"b8", 8},    {"u8", 8},   {"s8", 8},     {"b16", 16},    {"u16", 16}, {"s16", 16},
      {"f16", 16}, {"bf16", 16}, {"b32", 32}, {"u32", 32},   {"s32", 32},    {"f32", 32}, {"b64", 64},
      {"u64", 64}, {"s64", 64},  {"f64", 64}, {"f16x2", 32}, {"bf16x2", 32}, {"tf32", 32}};
  const auto found = bits.find(type);
  return found == bits.end() ? 0 : found->second;
}

char typeLetter(int bits) { return bits == 1 ? 'p' : bits <= 16 ? 'h' : bits == 32 ? 'w' : 'd'; }

namespace {

void movePredicate(Lowering& l, const Statement& s) {
  l.expectOperands(s, 2);
  l.setHandler("@predicate");
  l.draft().insn.sub = 4;
  l.draft().copies = s.operands[1].kind == Operand::kName;
  l.def(0, s.operands[0], 'p');
  l.use(1, s.operands[1], 'p');
  l.draft().insn.r[2] = kFalseSlot;
}

// mov.b64 {lo, hi}, x and mov.b64 x, {lo, hi}
void moveParts(Lowering& l, const Statement& s, int bits) {
  const bool split = s.operands[0].kind == Operand::kVector;
  const std::vector<Operand>& list = s.operands[split ? 0 : 1].elements;
  const int count = static_cast<int>(list.size());
  if ((count != 2 && count != 4) || bits / count < 16)
    l.unknown("parts of " + std::to_string(bits / std::max(count, 1)) + " bits");
  const int part = bits / count;
  l.setHandler(split ? "@split" : "@merge");
  l.draft().insn.sub = static_cast<uint16_t>(part);
  l.draft().insn.count = static_cast<uint8_t>(count);
  l.draft().apart = true;
  if (split)
    l.use(0, s.operands[1], typeLetter(bits));
  else
    l.def(0, s.operands[0], typeLetter(bits));
  for (int i = 0; i < count; ++i)
    if (split)
      l.def(1 + i, list[i], typeLetter(part));
    else
      l.use(1 + i, list[i], typeLetter(part));
}

void decodeMov(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  l.expectOperands(s, 2);
  if (words.size() != 2) l.unknown();
  const int bits = typeBits(words[1]);
  if (bits == 1) return movePredicate(l, s);
  if (bits < 16) l.unknown();
  if (s.operands[0].kind == Operand::kVector || s.operands[1].kind == Operand::kVector) return moveParts(l, s, bits);
  static const std::map<std::string, Special> clocks = {{"%clock", Special::kClock},
                                                        {"%clock_hi", Special::kClockHi},
                                                        {"%clock64", Special::kClock64},
                                                        {"%globaltimer", Special::kGlobaltimer},
                                                        {"%globaltimer_lo", Special::kGlobaltimerLo},
                                                        {"%globaltimer_hi", Special::kGlobaltimerHi}};
  if (const auto clock = clocks.find(s.operands[1].name); clock != clocks.end()) {
    const bool wide = clock->second == Special::kClock64 || clock->second == Special::kGlobaltimer;
    if (wide != (bits == 64)) l.malformed("'" + clock->first + "' has another width");
    l.setHandler("@clock");
    l.draft().insn.sub = static_cast<uint16_t>(clock->second);
    return l.def(0, s.operands[0], typeLetter(bits));
  }
  l.setHandler("@mov." + std::to_string(bits));
  l.draft().copies = l.isRegister(s.operands[1].name);
  l.def(0, s.operands[0], typeLetter(bits));
  l.use(1, s.operands[1], typeLetter(bits));
}

void decodeCvt(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() < 3) l.unknown();
  const std::string &to = words[words.size() - 2], &from = words.back();
  if (to == "f16x2" || to == "bf16x2" || to == "tf32") return l.table(s);
  const int toBits = typeBits(to), fromBits = typeBits(from);
  const auto isFloat = [](const std::string& t) { return t[0] == 'f' || t[0] == 'b'; };
  const bool floatTo = isFloat(to), floatFrom = isFloat(from);
  const auto untyped = [](const std::string& t) { return t[0] == 'b' && t != "bf16"; };
  if (toBits < 8 || fromBits < 8 || untyped(to) || untyped(from)) l.unknown();
  uint16_t sub = 0;
  bool rounded = false, integral = false;
  for (size_t i = 1; i + 2 < words.size(); ++i) {
    const std::string& m = words[i];
    static const std::map<std::string, uint16_t> roundings = {
        {"rn", kRoundNearest},  {"rz", kRoundZero},  {"rm", kRoundDown},  {"rp", kRoundUp},
        {"rni", kRoundNearest}, {"rzi", kRoundZero}, {"rmi", kRoundDown}, {"rpi", kRoundUp}};
    if (const auto r = roundings.find(m); r != roundings.end()) {
      if (rounded) l.unknown("two roundings");
      rounded = true;
      integral = m.size() == 3;
      sub |= r->second;
    } else if (m == "ftz") {
      sub |= kConvertFtz;
    } else if (m == "sat") {
      sub |= kConvertSat;
    } else if (m == "relu") {
      sub |= kConvertRelu;
    } else {
      l.unknown();
    }
  }
  if (floatFrom && !floatTo && !integral) l.unknown("float to integer needs .rni, .rzi, .rmi or .rpi");
  if (!floatFrom && floatTo && (!rounded || integral)) l.unknown("integer to float needs .rn, .rz, .rm or .rp");
  if (!floatFrom && !floatTo && rounded) l.unknown("rounding between integers");
  if (integral && floatTo) sub |= kConvertIntegral;
  if (!floatTo && to[0] == 's') sub |= kConvertSignExtend;
  l.expectOperands(s, 2);
  const int destination = l.defLoose(0, s.operands[0], toBits), source = l.useLoose(1, s.operands[1], fromBits);
  const bool exact = destination == std::max(toBits, 16) && source == std::max(fromBits, 16);
  if (const std::string fast = "@fast." + s.opcode; exact && Registry::get().find(fast)) return l.setHandler(fast);
  if (destination == 64 && toBits < 64) sub |= kConvertWideDest;
  l.draft().insn.count = source == 64 && fromBits < 64;
  l.draft().insn.sub = sub;
  l.setHandler("@cvt." + to + "." + from);
}

uint16_t comparison(Lowering& l, const std::string& name, const std::string& type) {
  static const std::map<std::string, uint16_t> ordered = {{"eq", kEq}, {"ne", kNe}, {"lt", kLt},
                                                          {"le", kLe}, {"gt", kGt}, {"ge", kGe}};
  static const std::map<std::string, uint16_t> forUnsigned = {{"lo", kLt}, {"ls", kLe}, {"hi", kGt}, {"hs", kGe}};
  static const std::map<std::string, uint16_t> forFloat = {{"equ", kEqu}, {"neu", kNeu}, {"ltu", kLtu}, {"leu", kLeu},
                                                           {"gtu", kGtu}, {"geu", kGeu}, {"num", kNum}, {"nan", kNan}};
  const bool isFloat = type[0] == 'f' || type.starts_with("bf");
  if (const auto c = ordered.find(name); c != ordered.end()) {
    if (type[0] == 'b' && !isFloat && c->second > kNe) l.unknown("untyped bits have no order");
    return c->second;
  }
  if (const auto c = forUnsigned.find(name); c != forUnsigned.end() && type[0] == 'u') return c->second;
  if (const auto c = forFloat.find(name); c != forFloat.end() && isFloat) return c->second;
  l.unknown();
}

// cmp{.bool}{.ftz}, between words[1] and `last`
uint16_t comparisonModifiers(Lowering& l, const std::vector<std::string>& words, size_t last, const std::string& type) {
  if (last < 2) l.unknown();
  uint16_t sub = comparison(l, words[1], type);
  for (size_t i = 2; i < last; ++i) {
    static const std::map<std::string, uint16_t> combinations = {{"and", kAnd}, {"or", kOr}, {"xor", kXor}};
    if (const auto c = combinations.find(words[i]); i == 2 && c != combinations.end())
      sub |= static_cast<uint16_t>(c->second << 5);
    else if (words[i] == "ftz")
      sub |= kFlushOperands;
    else
      l.unknown();
  }
  return sub;
}

void useThird(Lowering& l, const Statement& s, int slot, size_t operand, uint16_t* sub) {
  Operand third = s.operands[operand];
  if (third.negated) *sub |= kNegatedThird;
  third.negated = false;
  l.use(slot, third, 'p');
}

void decodeSetp(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  const std::string& type = words.back();
  uint16_t sub = comparisonModifiers(l, words, words.size() - 1, type);
  const bool combined = sub >> 5 & 3;
  l.expectOperands(s, combined ? 4 : 3);
  l.setHandler("@setp." + type);
  if (s.operands[0].kind == Operand::kPair) {
    sub |= kSecondResult;
    l.def(0, s.operands[0].elements[0], 'p');
    l.def(1, s.operands[0].elements[1], 'p');
  } else {
    l.def(0, s.operands[0], 'p');
  }
  const char letter = typeLetter(typeBits(type));
  l.use(2, s.operands[1], letter);
  l.use(3, s.operands[2], letter);
  if (combined) useThird(l, s, 4, 3, &sub);
  l.draft().insn.sub = sub;
}

void decodeSet(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() < 4) l.unknown();
  const std::string &to = words[words.size() - 2], &type = words.back();
  uint16_t sub = comparisonModifiers(l, words, words.size() - 2, type);
  static const std::map<std::string, int64_t> truths = {{"u32", 0xffffffff}, {"s32", 0xffffffff}, {"f32", 0x3f800000},
                                                        {"u16", 0xffff},     {"s16", 0xffff},     {"f16", 0x3c00},
                                                        {"bf16", 0x3f80},    {"f16x2", 0x3c00},   {"bf16x2", 0x3f80}};
  const auto truth = truths.find(to);
  const bool pair = type == "f16x2" || type == "bf16x2";
  if (truth == truths.end() || (to.ends_with("x2") && to != type)) l.unknown();
  const bool combined = sub >> 5 & 3;
  l.expectOperands(s, combined ? 4 : 3);
  l.setHandler("@set." + type);
  l.draft().insn.imm = pair ? truth->second & 0xffff : truth->second;
  l.def(0, s.operands[0], typeLetter(typeBits(to)));
  l.use(1, s.operands[1], typeLetter(typeBits(type)));
  l.use(2, s.operands[2], typeLetter(typeBits(type)));
  if (combined) useThird(l, s, 3, 3, &sub);
  l.draft().insn.sub = sub;
}

void decodeTestp(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  static const std::vector<std::string> properties = {"finite",     "infinite", "number",
                                                      "notanumber", "normal",   "subnormal"};
  if (words.size() != 3) l.unknown();
  const auto found = std::find(properties.begin(), properties.end(), words[1]);
  if (found == properties.end()) l.unknown();
  l.expectOperands(s, 2);
  l.setHandler("@testp." + words[2]);
  l.draft().insn.sub = static_cast<uint16_t>(found - properties.begin());
  l.def(0, s.operands[0], 'p');
  l.use(1, s.operands[1], typeLetter(typeBits(words[2])));
}

void decodeLogic(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() != 2 || words[1] != "pred") return l.table(s);
  static const std::map<std::string, uint16_t> codes = {{"and", 0}, {"or", 1}, {"xor", 2}, {"not", 3}};
  const bool unary = words[0] == "not";
  l.expectOperands(s, unary ? 2 : 3);
  l.setHandler("@predicate");
  l.draft().insn.sub = codes.at(words[0]);
  l.def(0, s.operands[0], 'p');
  l.use(1, s.operands[1], 'p');
  if (unary)
    l.draft().insn.r[2] = kFalseSlot;
  else
    l.use(2, s.operands[2], 'p');
}

void decodeLop3(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() != 2 || words[1] != "b32") l.unknown();
  l.expectOperands(s, 5);
  if (s.operands[4].kind != Operand::kInteger || s.operands[4].bits > 0xff)
    l.malformed("the table must be an integer of 8 bits");
  l.setHandler("@lop3");
  l.draft().insn.imm = static_cast<int64_t>(s.operands[4].bits);
  l.def(0, s.operands[0], 'w');
  for (int i = 1; i <= 3; ++i) l.use(i, s.operands[i], 'w');
}

void decodeCvta(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  // cvta{.to}.space.u64 d, a: windows are ranges of generic addresses, so it is an addition.
  const bool to = words.size() > 1 && words[1] == "to";
  if (words.size() != (to ? 4u : 3u) || words.back() != "u64") l.unknown("addresses have 64 bits");
  std::string space = words[to ? 2 : 1];
  if (space == "shared::cta") space = "shared";
  uint64_t window = 0;
  if (space == "shared")
    window = kSharedWindow;
  else if (space == "local")
    window = kLocalWindow;
  else if (space == "param")
    window = kParamWindow;
  else if (space != "global" && space != "const")
    l.unknown();
  l.expectOperands(s, 2);
  l.def(0, s.operands[0], 'd');
  l.use(1, s.operands[1], 'd');
  if (!window) {
    l.draft().copies = l.isRegister(s.operands[1].name);
    return l.setHandler("@mov.64");
  }
  l.constant(2, to ? -window : window, true);
  l.setHandler("add.u64");
}

void decodeIsspacep(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() != 2) l.unknown();
  static const std::map<std::string, uint16_t> spaces = {{"global", 0},      {"const", 4}, {"shared", 1},
                                                         {"shared::cta", 1}, {"local", 2}, {"param", 3}};
  const auto found = spaces.find(words[1]);
  if (found == spaces.end()) l.unknown();
  l.expectOperands(s, 2);
  l.setHandler("@isspacep");
  l.draft().insn.sub = found->second;
  l.def(0, s.operands[0], 'p');
  l.use(1, s.operands[1], 'd');
}

}  // namespace

const std::map<std::string, Decoder>& scalarDecoders() {
  static const std::map<std::string, Decoder> decoders = {
      {"mov", decodeMov},     {"cvt", decodeCvt},   {"setp", decodeSetp}, {"set", decodeSet},
      {"testp", decodeTestp}, {"and", decodeLogic}, {"or", decodeLogic},  {"xor", decodeLogic},
      {"not", decodeLogic},   {"lop3", decodeLop3}, {"cvta", decodeCvta}, {"isspacep", decodeIsspacep}};
  return decoders;
}

Decoder findDecoder(const std::string& base) {
  for (const auto* list : {&scalarDecoders(), &memoryDecoders(), &controlDecoders()})
    if (const auto found = list->find(base); found != list->end()) return found->second;
  return nullptr;
}

}  // namespace cudasim::lower
