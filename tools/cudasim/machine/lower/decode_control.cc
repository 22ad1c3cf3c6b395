// Decoders of branches, barriers, exchanges between lanes and matrix products.
#include <algorithm>

#include "../exec/control.h"
#include "../exec/matrix.h"
#include "decoders.h"

namespace cudasim::lower {

namespace {

void decodeBra(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() > 2 || (words.size() == 2 && words[1] != "uni")) l.unknown();
  if (s.targets.size() != 1) l.malformed("expected a label");
  l.setHandler("@bra");
  l.draft().branch = true;
  l.draft().insn.control = 1;
}

void decodeBrx(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() < 2 || words[1] != "idx" || s.targets.empty()) l.unknown();
  l.setHandler("@brx");
  l.use(0, s.operands[0], 'w');
  l.draft().branch = true;
  l.draft().insn.control = 1;
  l.draft().insn.imm = static_cast<int64_t>(s.targets.size());
}

void decodeExit(Lowering& l, const Statement& s, const std::vector<std::string>&) {
  l.expectOperands(s, 0);
  l.setHandler("@exit");
  l.draft().exits = true;
}

void decodeTrap(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  l.expectOperands(s, 0);
  l.setHandler("@trap");
  l.draft().exits = words[0] == "trap";
}

void decodeNop(Lowering& l, const Statement&, const std::vector<std::string>&) { l.setHandler("@nop"); }

void decodeCall(Lowering& l, const Statement&, const std::vector<std::string>&) { l.unknown(); }

// bar{.cta}.sync|arrive|red and barrier{.cta}.sync|arrive|red{.aligned}
void decodeBar(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  std::vector<std::string> rest(words.begin() + 1, words.end());
  std::erase(rest, "cta");
  bool aligned = words[0] == "bar";
  aligned |= std::erase(rest, "aligned") > 0;
  if (rest.empty()) l.unknown();
  if (rest[0] == "warp") {
    if (rest.size() != 2 || rest[1] != "sync") l.unknown();
    l.expectOperands(s, 1);
    l.setHandler("@syncwarp");
    return l.use(0, s.operands[0], 'w');
  }
  uint16_t sub = aligned ? kBarAligned : 0;
  const auto number = [&](int slot, const Operand& o) { l.use(slot, o, 'w'); };
  if (rest[0] == "sync" || rest[0] == "arrive") {
    const bool arrive = rest[0] == "arrive";
    if (rest.size() != 1 || s.operands.empty() || s.operands.size() > 2 || (arrive && s.operands.size() != 2))
      l.unknown();
    number(0, s.operands[0]);
    if (s.operands.size() == 2) number(1, s.operands[1]), sub |= kBarCount;
    if (arrive) sub |= kBarArrive;
    l.draft().insn.sub = sub;
    return l.setHandler("@bar");
  }
  if (rest[0] != "red" || rest.size() != 3) l.unknown();
  // bar.red.op.type d, a{, b}, {!}p: arrives and waits, then a second instruction reads the result.
  const bool count = s.operands.size() == 4;
  if (!count && s.operands.size() != 3) l.malformed("expected destination, barrier, threads and predicate");
  uint16_t operation = 0;
  if (rest[1] == "popc" && rest[2] == "u32")
    operation = kBarPopc;
  else if (rest[1] == "and" && rest[2] == "pred")
    operation = kBarAnd;
  else if (rest[1] == "or" && rest[2] == "pred")
    operation = kBarOr;
  else
    l.unknown();
  number(0, s.operands[1]);
  if (count) number(1, s.operands[2]), sub |= kBarCount;
  Operand p = s.operands.back();
  if (p.negated) sub |= kBarNegated;
  p.negated = false;
  l.use(2, p, 'p');
  l.draft().insn.sub = sub | kBarReduce;
  l.setHandler("@bar");
  Draft& result = l.extraDraft();
  result.insn.sub = operation;
  number(0, s.operands[1]);
  if (count) number(1, s.operands[2]), result.insn.sub |= kBarCount;
  l.def(2, s.operands[0], operation == kBarPopc ? 'w' : 'p');
  result.apart = true;
  l.setHandler("@bar.result");
}

void decodeShfl(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  static const std::map<std::string, uint16_t> modes = {
      {"up", kShflUp}, {"down", kShflDown}, {"bfly", kShflBfly}, {"idx", kShflIdx}};
  if (words.size() != 4 || words[1] != "sync" || !modes.contains(words[2]) || words[3] != "b32") l.unknown();
  l.expectOperands(s, 5);
  l.setHandler("@shfl");
  uint16_t sub = modes.at(words[2]);
  const Operand& d = s.operands[0];
  if (d.kind == Operand::kPair) {
    l.def(0, d.elements[0], 'w');
    l.def(1, d.elements[1], 'p');
    sub |= kShflPredicate;
  } else {
    l.def(0, d, 'w');
  }
  for (int i = 1; i <= 4; ++i) l.use(1 + i, s.operands[i], 'w');
  l.draft().insn.sub = sub;
  l.draft().apart = true;
}

void decodeVote(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  static const std::map<std::string, uint16_t> modes = {
      {"all", kVoteAll}, {"any", kVoteAny}, {"uni", kVoteUni}, {"ballot", kVoteBallot}};
  if (words.size() != 4 || words[1] != "sync" || !modes.contains(words[2])) l.unknown();
  const bool ballot = words[2] == "ballot";
  if (words[3] != (ballot ? "b32" : "pred")) l.unknown();
  l.expectOperands(s, 3);
  l.setHandler("@vote");
  uint16_t sub = modes.at(words[2]);
  l.def(0, s.operands[0], ballot ? 'w' : 'p');
  Operand p = s.operands[1];
  if (p.negated) sub |= kVoteNegated;
  p.negated = false;
  l.use(1, p, 'p');
  l.use(2, s.operands[2], 'w');
  l.draft().insn.sub = sub;
  l.draft().apart = true;
}

void decodeMatch(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() != 4 || words[2] != "sync" || (words[1] != "any" && words[1] != "all") ||
      (words[3] != "b32" && words[3] != "b64"))
    l.unknown();
  const bool all = words[1] == "all";
  l.expectOperands(s, 3);
  l.setHandler("@match." + words[3]);
  const Operand& d = s.operands[0];
  uint16_t sub = all ? kMatchAll : 0;
  if (d.kind == Operand::kPair) {
    if (!all) l.malformed("match.any has one result");
    l.def(0, d.elements[0], 'w');
    l.def(1, d.elements[1], 'p');
    sub |= kMatchPredicate;
  } else {
    l.def(0, d, 'w');
  }
  l.use(2, s.operands[1], words[3] == "b64" ? 'd' : 'w');
  l.use(3, s.operands[2], 'w');
  l.draft().insn.sub = sub;
  l.draft().apart = true;
}

void decodeRedux(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  static const std::map<std::string, uint16_t> operations = {{"add", kReduxAdd}, {"min", kReduxMin},
                                                             {"max", kReduxMax}, {"and", kReduxAnd},
                                                             {"or", kReduxOr},   {"xor", kReduxXor}};
  if (words.size() != 4 || words[1] != "sync" || !operations.contains(words[2])) l.unknown();
  const bool bitwise = words[2] == "and" || words[2] == "or" || words[2] == "xor";
  if (bitwise ? words[3] != "b32" : words[3] != "u32" && words[3] != "s32") l.unknown();
  l.expectOperands(s, 3);
  l.setHandler("@redux");
  l.draft().insn.sub = static_cast<uint16_t>(operations.at(words[2]) | (words[3] == "s32" ? kReduxSigned : 0));
  l.def(0, s.operands[0], 'w');
  l.use(1, s.operands[1], 'w');
  l.use(2, s.operands[2], 'w');
  l.draft().apart = true;
}

void decodeActivemask(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  if (words.size() != 2 || words[1] != "b32") l.unknown();
  l.expectOperands(s, 1);
  l.setHandler("@activemask");
  l.def(0, s.operands[0], 'w');
}

void decodeMma(Lowering& l, const Statement& s, const std::vector<std::string>& words) {
  // mma.sync.aligned.shape.row.col.dtype.atype.btype.ctype
  if (words.size() != 10 || words[1] != "sync" || words[2] != "aligned" || words[4] != "row" || words[5] != "col")
    l.unknown();
  const std::string &shape = words[3], &dType = words[6], &aType = words[7], &cType = words[9];
  if (words[8] != aType || cType != dType) l.unknown();
  const MmaShape* found = nullptr;
  for (const MmaShape& m : kMmaShapes)
    if (shape == m.shape && aType == m.type && dType == m.accumulator) found = &m;
  if (!found) l.unknown();
  l.expectOperands(s, 4);
  l.setHandler(std::string("@mma.") + found->type + "." + found->accumulator);
  const int counts[4] = {found->d, found->a, found->b, found->d};
  int slot = 0;
  for (int i = 0; i < 4; ++i) {
    const Operand& o = s.operands[i];
    const std::vector<Operand> single = {o};
    const std::vector<Operand>& list = o.kind == Operand::kVector ? o.elements : single;
    if (static_cast<int>(list.size()) != counts[i])
      l.malformed("operand " + std::to_string(i + 1) + " needs " + std::to_string(counts[i]) + " registers");
    for (const Operand& e : list)
      if (i == 0)
        l.def(slot++, e, 'w');
      else
        l.use(slot++, e, 'w');
  }
  l.draft().insn.sub = static_cast<uint16_t>(found - kMmaShapes);
  l.draft().apart = true;
}

void decodeMovmatrix(Lowering& l, const Statement& s, const std::vector<std::string>&) {
  if (s.opcode != "movmatrix.sync.aligned.m8n8.trans.b16") l.unknown();
  l.expectOperands(s, 2);
  l.setHandler("@movmatrix");
  l.def(0, s.operands[0], 'w');
  l.use(1, s.operands[1], 'w');
  l.draft().apart = true;
}

}  // namespace

const std::map<std::string, Decoder>& controlDecoders() {
  static const std::map<std::string, Decoder> decoders = {{"bra", decodeBra},       {"brx", decodeBrx},
                                                          {"ret", decodeExit},      {"exit", decodeExit},
                                                          {"trap", decodeTrap},     {"brkpt", decodeTrap},
                                                          {"call", decodeCall},     {"bar", decodeBar},
                                                          {"barrier", decodeBar},   {"shfl", decodeShfl},
                                                          {"vote", decodeVote},     {"match", decodeMatch},
                                                          {"redux", decodeRedux},   {"activemask", decodeActivemask},
                                                          {"mma", decodeMma},       {"movmatrix", decodeMovmatrix},
                                                          {"nanosleep", decodeNop}, {"pmevent", decodeNop}};
  return decoders;
}

}  // namespace cudasim::lower
