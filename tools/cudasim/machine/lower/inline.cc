// Calls are inlined: the machine has no stack of return addresses. Each call site gets its own registers, labels and
// variables; .param variables of the caller stand for the callee's parameters, so they live in local memory.
#include <set>

#include "draft.h"

namespace cudasim::lower {

namespace {

constexpr size_t kMostStatements = 2'000'000;

class Inliner {
 public:
  Inliner(const ptx::ModuleText& module, ptx::Function& kernel) : module_(module), kernel_(kernel) {}

  void run() {
    std::vector<Statement> body = std::move(kernel_.body);
    kernel_.body.clear();
    for (Statement& s : body) add(std::move(s));
  }

 private:
  static bool isCall(const Statement& s) { return s.opcode == "call" || s.opcode == "call.uni"; }

  void add(Statement s) {
    if (kernel_.body.size() > kMostStatements)
      ptx::refuse(Fault::kUnknownOpcode, s.line, "too much code once calls are inlined");
    if (isCall(s)) return call(s);
    kernel_.body.push_back(std::move(s));
  }

  void call(const Statement& s) {
    size_t at = 0;
    const std::vector<Operand> none;
    const bool returns = s.operands.size() > 1 && s.operands[0].kind == Operand::kTuple;
    const std::vector<Operand>& results = returns ? s.operands[at++].elements : none;
    if (at >= s.operands.size() || s.operands[at].kind != Operand::kName)
      ptx::refuse(Fault::kBadPtx, s.line, "call of nothing");
    const std::string& name = s.operands[at++].name;
    const std::vector<Operand>& arguments = at < s.operands.size() ? s.operands[at].elements : none;
    const auto found = module_.functions.find(name);
    if (found == module_.functions.end())
      ptx::refuse(Fault::kUnknownOpcode, s.line, "call through '" + name + "': indirect calls are not supported");
    const ptx::Function& f = found->second;
    if (!f.hasBody)
      ptx::refuse(Fault::kUnknownOpcode, s.line,
                  "call of '" + name + "', which this module does not define" +
                      (name == "vprintf" ? ": printf is not supported" : ""));
    if (!active_.insert(name).second) ptx::refuse(Fault::kUnknownOpcode, s.line, "'" + name + "' is recursive");

    const std::string prefix = name + "@" + std::to_string(++count_) + "::";
    std::map<std::string, std::string> names;  // .param variables of the callee -> the caller's
    const auto bind = [&](const std::vector<ptx::Variable>& formal, const std::vector<std::string>& registers,
                          const std::vector<Operand>& actual, bool in) {
      if (formal.size() + registers.size() != actual.size())
        ptx::refuse(Fault::kBadPtx, s.line, "call of '" + name + "' with a wrong number of operands");
      for (size_t i = 0; i < formal.size(); ++i) {
        if (actual[i].kind != Operand::kName)
          ptx::refuse(Fault::kBadPtx, s.line, "an argument must be a .param variable");
        names[formal[i].name] = actual[i].name;
      }
      for (size_t i = 0; i < registers.size(); ++i) {
        const bool wide = f.registers.at(registers[i]) == ptx::RegisterClass::k64;
        Operand inner{.kind = Operand::kName, .name = prefix + registers[i]};
        Statement move{.line = s.line, .opcode = wide ? "mov.b64" : "mov.b32"};
        move.operands = in ? std::vector<Operand>{inner, actual[i]} : std::vector<Operand>{actual[i], inner};
        (in ? before_ : after_).push_back(std::move(move));
      }
    };
    before_.clear(), after_.clear();
    bind(f.params, f.registerParams, arguments, true);
    bind(f.results, f.registerResults, results, false);
    std::vector<Statement> after = std::move(after_);
    const std::string returned = prefix + "returned", end = prefix + "end";
    if (!s.guard.empty()) {  // around a call that is not for every lane
      Statement skip{
          .line = s.line, .guard = s.guard, .guardNegated = !s.guardNegated, .opcode = "bra", .targets = {end}};
      skip.operands.resize(1);
      kernel_.body.push_back(std::move(skip));
    }
    for (Statement& move : before_) kernel_.body.push_back(std::move(move));
    for (const auto& [reg, kind] : f.registers) kernel_.registers[prefix + reg] = kind;
    for (ptx::Variable v : f.variables) {
      if (v.space != Space::kShared) {  // shared variables of a function exist once
        names[v.name] = prefix + v.name;
        v.name = prefix + v.name;
        kernel_.variables.push_back(std::move(v));
      } else {
        names[v.name] = name + "::" + v.name;
        v.name = name + "::" + v.name;
        if (shared_.insert(v.name).second) kernel_.variables.push_back(std::move(v));
      }
    }
    const auto rename = [&](auto&& self, Operand& o) -> void {
      if (const auto n = names.find(o.name); n != names.end())
        o.name = n->second;
      else if (f.registers.contains(o.name))
        o.name = prefix + o.name;
      for (Operand& e : o.elements) self(self, e);
    };
    for (Statement inner : f.body) {
      if (!inner.label.empty()) inner.label = prefix + inner.label;
      if (!inner.guard.empty()) inner.guard = prefix + inner.guard;
      for (Operand& o : inner.operands) rename(rename, o);
      for (std::string& t : inner.targets) t = prefix + t;
      if (inner.opcode == "ret" || inner.opcode == "ret.uni") {
        inner.opcode = "bra";
        inner.targets = {returned};
        inner.operands.resize(1);
      }
      add(std::move(inner));
    }
    kernel_.body.push_back({.line = s.line, .label = returned});
    for (Statement& move : after) kernel_.body.push_back(std::move(move));
    kernel_.body.push_back({.line = s.line, .label = end});
    active_.erase(name);
  }

  const ptx::ModuleText& module_;
  ptx::Function& kernel_;
  std::vector<Statement> before_, after_;
  std::set<std::string> active_, shared_;
  int count_ = 0;
};

}  // namespace

void Lowering::inlineCalls() { Inliner(module_, kernel_).run(); }

}  // namespace cudasim::lower
