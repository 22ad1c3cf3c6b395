// Cuts PTX text into tokens, on demand: an opcode with its modifiers and a label read differently from an operand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ast.h"

namespace cudasim::ptx {

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  bool atEnd();
  int line();   // of the next token
  char peek();  // first character of the next token, 0 at the end
  bool accept(char c);
  void expect(char c);
  std::string word();                  // [A-Za-z0-9_$%]+
  std::string directive();             // a dot and a word: ".visible"
  std::string opcode();                // a word with dots and double colons: "ld.global.L2::128B.f32"
  std::string name();                  // a word, with ".x" when it is a special register
  bool atLabel();                      // the next word is followed by a single colon
  bool atText(std::string_view text);  // the next token starts with it
  Operand number();                    // integer, 0f..., 0d..., decimal fraction; a leading minus or tilde
  int64_t integer();
  std::string quoted();
  void skipLine();
  void skipBraces();
  [[noreturn]] void fail(const std::string& problem);

 private:
  void skipBlanks();
  size_t wordEnd(size_t from) const;

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace cudasim::ptx
