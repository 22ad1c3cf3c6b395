// PTX inside a function: scopes, declarations, labels, instructions and their operands.
#include <algorithm>

#include "parser.h"

namespace cudasim::ptx {

// The outermost scope keeps names as written; an inner one makes them unique, so that the rest sees one flat function.
std::string Parser::declare(const std::string& name) {
  const Scope& inner = scopes_.back();
  const std::string unique = inner.id == 0 ? name : name + "#" + std::to_string(inner.id);
  scopes_.back().names[name] = unique;
  return unique;
}

std::string Parser::resolve(const std::string& name) const {
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s)
    if (const auto found = s->names.find(name); found != s->names.end()) return found->second;
  return name;  // a module variable, a function, a special register or a label
}

void Parser::body(Function& f) {
  labelScopes_.clear();
  targetLists_.clear();
  statementScopes_.clear();
  in_.expect('{');
  while (!in_.accept('}')) scope(f);
  resolveLabels(f);
}

void Parser::scope(Function& f) {
  if (in_.atEnd()) in_.fail("function without '}'");
  if (in_.accept('{')) {
    scopes_.push_back({nextScope_++, {}});
    while (!in_.accept('}')) scope(f);
    scopes_.pop_back();
  } else if (in_.peek() == '.') {
    directiveInBody(f);
  } else {
    instruction(f);
  }
}

void Parser::directiveInBody(Function& f) {
  const int line = in_.line();
  const std::string d = in_.directive();
  if (d == ".reg") {
    registers(f);
  } else if (d == ".shared" || d == ".local" || d == ".param" || d == ".global" || d == ".const") {
    do {
      Variable v = variable(d == ".shared"  ? Space::kShared
                            : d == ".local" ? Space::kLocal
                            : d == ".param" ? Space::kParam
                            : d == ".const" ? Space::kConst
                                            : Space::kGlobal);
      if (v.space == Space::kGlobal || v.space == Space::kConst) {
        scopes_.back().names[v.name] = f.name + "::" + v.name;
        v.name = f.name + "::" + v.name;
        module_.variables.push_back(std::move(v));
      } else {
        v.name = declare(v.name);
        f.variables.push_back(std::move(v));
      }
    } while (in_.accept(','));
    in_.expect(';');
  } else if (d == ".loc" || d == ".file") {
    in_.skipLine();
  } else if (d == ".pragma") {
    in_.quoted();
    in_.expect(';');
  } else {
    refuse(Fault::kUnknownOpcode, line, "directive '" + d + "' is not supported in a function");
  }
}

void Parser::instruction(Function& f) {
  Statement s{.line = in_.line()};
  if (in_.accept(';')) return;
  std::vector<int> scopes;
  for (const Scope& scope : scopes_) scopes.push_back(scope.id);
  if (in_.atLabel()) {
    s.label = in_.word();
    in_.expect(':');
    if (in_.atText(".branchtargets")) {
      in_.directive();
      auto& list = targetLists_[s.label];
      do list.push_back(in_.word());
      while (in_.accept(','));
      in_.expect(';');
      return;
    }
    s.label += "#" + std::to_string(scopes_.back().id);
    labelScopes_[s.label] = scopes_.back().id;
  } else {
    if (in_.accept('@')) {
      s.guardNegated = in_.accept('!');
      s.guard = resolve(in_.word());
    }
    s.opcode = in_.opcode();
    while (!in_.accept(';')) {
      s.operands.push_back(operand());
      if (in_.peek() != ';') in_.expect(',');
    }
  }
  f.body.push_back(std::move(s));
  statementScopes_.push_back(std::move(scopes));
}

Operand Parser::operand() {
  Operand first = operandAtom();
  if (!in_.accept('|')) return first;
  Operand pair{.kind = Operand::kPair};
  pair.elements = {std::move(first), operandAtom()};
  return pair;
}

Operand Parser::operandAtom() {
  const char c = in_.peek();
  if (c == '[') return address();
  if (c == '{' || c == '(') {
    Operand list{.kind = c == '{' ? Operand::kVector : Operand::kTuple};
    in_.expect(c);
    const char close = c == '{' ? '}' : ')';
    if (in_.accept(close)) return list;
    do list.elements.push_back(operand());
    while (in_.accept(','));
    in_.expect(close);
    return list;
  }
  if ((c >= '0' && c <= '9') || c == '-' || c == '~') return in_.number();
  Operand result;
  result.negated = in_.accept('!');
  const std::string name = in_.name();
  if (name == "_") return result;
  result.name = resolve(name);
  result.kind = Operand::kName;
  if (in_.accept('+')) result.offset = in_.integer();
  return result;
}

Operand Parser::address() {
  Operand result{.kind = Operand::kAddress};
  in_.expect('[');
  const char c = in_.peek();
  if ((c >= '0' && c <= '9') || c == '-') {
    result.offset = in_.integer();
  } else {
    result.name = resolve(in_.name());
    while (in_.peek() != ']') {
      const bool negative = in_.accept('-');
      if (!negative) in_.expect('+');
      const int64_t offset = in_.integer();
      result.offset += negative ? -offset : offset;
    }
  }
  in_.expect(']');
  return result;
}

void Parser::resolveLabels(Function& f) {
  const auto find = [&](const std::string& name, const std::vector<int>& scopes) -> std::string {
    for (auto s = scopes.rbegin(); s != scopes.rend(); ++s) {
      const std::string full = name + "#" + std::to_string(*s);
      if (labelScopes_.contains(full)) return full;
    }
    return {};
  };
  for (size_t i = 0; i < f.body.size(); ++i) {
    Statement& s = f.body[i];
    if (s.opcode.compare(0, 3, "bra") == 0 && s.operands.size() == 1) {
      const std::string target = find(s.operands[0].name, statementScopes_[i]);
      if (target.empty()) refuse(Fault::kBadPtx, s.line, "no label '" + s.operands[0].name + "'");
      s.targets = {target};
    } else if (s.opcode.compare(0, 3, "brx") == 0 && s.operands.size() == 2) {
      const auto list = targetLists_.find(s.operands[1].name);
      if (list == targetLists_.end()) refuse(Fault::kBadPtx, s.line, "no list of targets '" + s.operands[1].name + "'");
      for (const std::string& name : list->second) {
        s.targets.push_back(find(name, statementScopes_[i]));
        if (s.targets.back().empty()) refuse(Fault::kBadPtx, s.line, "no label '" + name + "'");
      }
    }
  }
}

}  // namespace cudasim::ptx
