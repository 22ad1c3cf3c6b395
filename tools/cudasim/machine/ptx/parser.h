// Recursive descent over PTX: module directives, functions, scopes, instructions.
#pragma once

#include <map>
#include <set>

#include "lexer.h"

namespace cudasim::ptx {

class Parser {
 public:
  explicit Parser(std::string_view text) : in_(text) {}
  ModuleText run();

 private:
  struct Scope {
    int id;
    std::map<std::string, std::string> names;  // as written -> unique in the function
  };

  // declarations.cc
  void header();
  void linkage();
  Variable variable(Space space);
  void initializer(Variable& v, uint32_t elementBytes);
  void function(bool entry);
  std::vector<Variable> parameters(Function& f, std::vector<std::string>& registers);
  void performanceDirectives(Function& f);
  void registers(Function& f);

  // statements.cc
  void body(Function& f);
  void scope(Function& f);
  void directiveInBody(Function& f);
  void instruction(Function& f);
  Operand operand();
  Operand operandAtom();
  Operand address();
  std::string resolve(const std::string& name) const;
  std::string declare(const std::string& name);
  void resolveLabels(Function& f);

  Lexer in_;
  ModuleText module_;
  std::vector<Scope> scopes_;
  int nextScope_ = 0;
  std::map<std::string, int> labelScopes_;                       // "label#scope" of the function's labels
  std::map<std::string, std::vector<std::string>> targetLists_;  // .branchtargets
  std::vector<std::vector<int>> statementScopes_;                // of each statement, innermost last
};

}  // namespace cudasim::ptx
