#include "lexer.h"

#include <bit>
#include <charconv>
#include <cstdlib>

namespace cudasim::ptx {

void refuse(Fault fault, int line, const std::string& problem) {
  throw SimError(
      {.fault = fault, .message = "PTX line " + std::to_string(line) + ": " + problem, .kernel = {}, .line = line});
}

namespace {
bool isWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '%';
}
bool isDigit(char c) { return c >= '0' && c <= '9'; }
}  // namespace

void Lexer::fail(const std::string& problem) { refuse(Fault::kBadPtx, line_, problem); }

void Lexer::skipBlanks() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      ++line_, ++at_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\0') {
      ++at_;
    } else if (text_.substr(at_, 2) == "//") {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (text_.substr(at_, 2) == "/*") {
      const size_t end = text_.find("*/", at_ + 2);
      if (end == text_.npos) fail("comment without an end");
      for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
    } else {
      return;
    }
  }
}

bool Lexer::atEnd() {
  skipBlanks();
  return at_ == text_.size();
}

int Lexer::line() {
  skipBlanks();
  return line_;
}

char Lexer::peek() {
  skipBlanks();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool Lexer::accept(char c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}

void Lexer::expect(char c) {
  if (!accept(c)) {
    const char found = peek();
    fail(std::string("expected '") + c + "' but found " +
         (found ? std::string("'") + found + "'" : "the end of the text"));
  }
}

size_t Lexer::wordEnd(size_t from) const {
  while (from < text_.size() && isWord(text_[from])) ++from;
  return from;
}

std::string Lexer::word() {
  skipBlanks();
  const size_t begin = at_;
  at_ = wordEnd(at_);
  if (at_ == begin) fail(std::string("expected a name but found '") + peek() + "'");
  return std::string(text_.substr(begin, at_ - begin));
}

std::string Lexer::directive() {
  expect('.');
  return "." + word();
}

std::string Lexer::opcode() {
  std::string result = word();
  while (at_ < text_.size() && (text_[at_] == '.' || text_.substr(at_, 2) == "::")) {
    const size_t begin = at_;
    at_ = wordEnd(at_ + (text_[at_] == '.' ? 1 : 2));
    result += text_.substr(begin, at_ - begin);
  }
  return result;
}

std::string Lexer::name() {
  std::string result = word();
  if (result[0] == '%' && at_ + 1 < text_.size() && text_[at_] == '.' && text_[at_ + 1] >= 'w' &&
      text_[at_ + 1] <= 'z') {
    result += text_.substr(at_, 2);
    at_ += 2;
  }
  return result;
}

bool Lexer::atLabel() {
  skipBlanks();
  size_t end = wordEnd(at_);
  if (end == at_) return false;
  while (end < text_.size() && (text_[end] == ' ' || text_[end] == '\t')) ++end;
  return end < text_.size() && text_[end] == ':' && text_.substr(end, 2) != "::";
}

bool Lexer::atText(std::string_view text) {
  skipBlanks();
  return text_.substr(at_, text.size()) == text;
}

Operand Lexer::number() {
  Operand result;
  bool negative = false, inverted = false;
  for (;;) {
    if (accept('-')) {
      negative = !negative;
    } else if (accept('~')) {
      inverted = !inverted;
    } else if (!accept('+')) {
      break;
    }
  }
  skipBlanks();
  if (at_ == text_.size() || !isDigit(text_[at_])) fail("expected a number");
  const char second = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
  const char* end = text_.data() + text_.size();
  if (text_[at_] == '0' && (second == 'f' || second == 'F' || second == 'd' || second == 'D')) {
    const bool wide = second == 'd' || second == 'D';
    const char* digits = text_.data() + at_ + 2;
    const auto parsed = std::from_chars(digits, end, result.bits, 16);
    if (parsed.ptr - digits != (wide ? 16 : 8)) fail("a float literal needs 8 digits after 0f and 16 after 0d");
    at_ += 2 + (parsed.ptr - digits);
    result.kind = wide ? Operand::kFloat64 : Operand::kFloat32;
    if (negative) result.bits ^= wide ? uint64_t{1} << 63 : uint64_t{1} << 31;
    return result;
  }
  const size_t begin = at_, plain = wordEnd(at_);
  if (plain < text_.size() && text_[plain] == '.' && plain + 1 < text_.size() && isDigit(text_[plain + 1])) {
    double value = 0;
    const auto parsed = std::from_chars(text_.data() + begin, end, value);
    at_ = parsed.ptr - text_.data();
    result.kind = Operand::kFloat64;
    result.bits = std::bit_cast<uint64_t>(negative ? -value : value);
    return result;
  }
  int base = 10;
  if (text_[at_] == '0' && (second == 'x' || second == 'X'))
    base = 16, at_ += 2;
  else if (text_[at_] == '0' && (second == 'b' || second == 'B'))
    base = 2, at_ += 2;
  else if (text_[at_] == '0' && isDigit(second))
    base = 8, at_ += 1;
  const auto parsed = std::from_chars(text_.data() + at_, end, result.bits, base);
  if (parsed.ec != std::errc()) fail("expected an integer of at most 64 bits");
  at_ = parsed.ptr - text_.data();
  if (at_ < text_.size() && (text_[at_] == 'U' || text_[at_] == 'u')) ++at_;
  if (at_ < text_.size() && isWord(text_[at_])) fail("malformed number");
  result.kind = Operand::kInteger;
  if (negative) result.bits = -result.bits;
  if (inverted) result.bits = ~result.bits;
  return result;
}

int64_t Lexer::integer() {
  const Operand n = number();
  if (n.kind != Operand::kInteger) fail("expected an integer");
  return static_cast<int64_t>(n.bits);
}

std::string Lexer::quoted() {
  expect('"');
  const size_t end = text_.find('"', at_);
  if (end == text_.npos) fail("string without an end");
  std::string result(text_.substr(at_, end - at_));
  at_ = end + 1;
  return result;
}

void Lexer::skipLine() {
  while (at_ < text_.size() && text_[at_] != '\n') ++at_;
}

void Lexer::skipBraces() {
  expect('{');
  for (int depth = 1; depth;) {
    const char c = peek();
    if (!c) fail("'{' without '}'");
    depth += c == '{';
    depth -= c == '}';
    ++at_;
  }
}

}  // namespace cudasim::ptx
