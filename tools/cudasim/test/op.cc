#include "op.h"

#include <exception>

namespace cudasim::test {

const Row kFloats = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000,
                     0x00ffffff, 0x3f800000, 0xbf800000, 0x3f800001, 0x3f7fffff, 0x3effffff, 0x40000000, 0x40490fdb,
                     0xc2f6e979, 0x4b7fffff, 0x4b800001, 0xcb000001, 0x33800000, 0xb3800001, 0x7f7fffff, 0xff7fffff,
                     0x7f000000, 0x7e800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001, 0x1e3ce508};
const Row kDoubles = {0x0000000000000000, 0x8000000000000000, 0x0000000000000001, 0x800fffffffffffff,
                      0x0010000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x3ff0000000000001,
                      0x3fefffffffffffff, 0x400921fb54442d18, 0xc05edd2f1a9fbe77, 0x3ca0000000000000,
                      0x7fefffffffffffff, 0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000,
                      0x7ff8000000000000, 0xfff0000000000001, 0x4340000000000001, 0x41dfffffffc00000};
const Row kHalves = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x3c00, 0xbc00, 0x3c01, 0x3bff, 0x4248,
                     0xc9e7, 0x1400, 0x9401, 0x6800, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfd01, 0x3555, 0x77ff};
const Row kBrains = {0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x3f80, 0xbf80, 0x3f81, 0x3f7f, 0x4049, 0xc2f7, 0x3b80,
                     0xbb81, 0x4300, 0x4b7f, 0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xff81, 0x3eab, 0x7e80, 0x3380};
const Row kWords = {0,          1,          2,          3,          7,          31,         32,
                    33,         0x7f,       0x80,       0xff,       0x7fff,     0x8000,     0xffff,
                    0x10000,    0x123456,   0x00ffffff, 0x01000000, 0x12345678, 0x7ffffffe, 0x7fffffff,
                    0x80000000, 0x80000001, 0xdeadbeef, 0xfffffffe, 0xffffffff};
const Row kLongs = {0,
                    1,
                    2,
                    5,
                    63,
                    64,
                    0x7fffffff,
                    0x80000000,
                    0xffffffff,
                    0x100000000,
                    0x0123456789abcdef,
                    0x7fffffffffffffff,
                    0x8000000000000000,
                    0x8000000000000001,
                    0xfedcba9876543210,
                    0xffffffffffffffff};
const Row kShorts = {0, 1, 2, 5, 15, 16, 0x7f, 0x80, 0xff, 0x1234, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};

namespace {

std::string sizeOf(char type) { return type == 'h' ? "16" : type == 'd' ? "64" : "32"; }

bool isNan(Bits bits, char type) {
  if (type == 'd') return (bits & 0x7fffffffffffffff) > 0x7ff0000000000000;
  return type == 'w' ? (bits & 0x7fffffff) > 0x7f800000 : (bits & 0x7fff) > 0x7c00;
}

}  // namespace

Op::Op(std::string text, std::string outputs, std::string inputs, int line)
    : text_(std::move(text)), outputs_(std::move(outputs)), inputs_(std::move(inputs)), line_(line) {}

Op Op::of(const std::string& opcode, const std::string& outputs, const std::string& inputs, int line) {
  std::string text = opcode;
  for (size_t i = 0; i < outputs.size(); ++i) text += (i ? ", %d" : " %d") + std::to_string(i);
  for (size_t i = 0; i < inputs.size(); ++i) text += ", %a" + std::to_string(i);
  return {text + ";", outputs, inputs, line};
}

Op::~Op() noexcept(false) {
  if (std::uncaught_exceptions() == 0 && !rows_.empty()) run();
}

Op& Op::row(const Row& inputs, const Row& expected) {
  rows_.push_back(inputs);
  expected_.push_back(expected);
  return *this;
}

Op& Op::sweep(const std::vector<Row>& values, const std::function<Bits(const Row&)>& expected) {
  std::vector<size_t> at(values.size(), 0);
  for (;;) {
    Row inputs;
    for (size_t i = 0; i < values.size(); ++i) inputs.push_back(values[i][at[i]]);
    row(inputs, {expected(inputs)});
    size_t i = 0;
    while (i < at.size() && ++at[i] == values[i].size()) at[i++] = 0;
    if (i == at.size()) return *this;
  }
}

std::string Op::ptx() const {
  std::string s =
      ".version 8.6\n.target sm_90\n.address_size 64\n"
      ".visible .entry op(.param .u64 in, .param .u64 out, .param .u32 count)\n{\n"
      ".reg .pred %q; .reg .b32 %i0, %i1, %i2, %t; .reg .b64 %from, %to, %o;\n";
  const auto declare = [&](const std::string& types, const std::string& name) {
    for (size_t i = 0; i < types.size(); ++i)
      s += (types[i] == 'p' ? ".reg .pred %" : ".reg .b" + sizeOf(types[i]) + " %") + name + std::to_string(i) + ";\n";
  };
  declare(outputs_, "d");
  declare(inputs_, "a");
  s += "ld.param.u64 %from, [in]; ld.param.u64 %to, [out]; ld.param.u32 %i2, [count];\n"
       "mov.u32 %i0, %ctaid.x; mov.u32 %i1, %tid.x; mad.lo.u32 %i0, %i0, 32, %i1;\n"
       "setp.ge.u32 %q, %i0, %i2; @%q bra END;\n"
       "mul.wide.u32 %o, %i0, " +
       std::to_string(8 * inputs_.size()) +
       "; add.u64 %from, %from, %o;\n"
       "mul.wide.u32 %o, %i0, " +
       std::to_string(8 * outputs_.size()) + "; add.u64 %to, %to, %o;\n";
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const std::string n = std::to_string(i), where = "[%from+" + std::to_string(8 * i) + "];\n";
    if (inputs_[i] == 'p')
      s += "ld.global.b32 %t, " + where + "setp.ne.b32 %a" + n + ", %t, 0;\n";
    else
      s += "ld.global.b" + sizeOf(inputs_[i]) + " %a" + n + ", " + where;
  }
  s += text_ + "\n";
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const std::string n = std::to_string(i), where = "[%to+" + std::to_string(8 * i) + "], ";
    if (outputs_[i] == 'p')
      s += "selp.b32 %t, 1, 0, %d" + n + "; st.global.b32 " + where + "%t;\n";
    else
      s += "st.global.b" + sizeOf(outputs_[i]) + " " + where + "%d" + n + ";\n";
  }
  return s + "END:\nret;\n}\n";
}

void Op::run() const {
  Bench bench(ptx());
  const size_t n = rows_.size(), wide = outputs_.size();
  Row in;
  for (const Row& r : rows_) {
    if (r.size() != inputs_.size()) throw Failure("line " + std::to_string(line_) + ": wrong number of inputs");
    in.insert(in.end(), r.begin(), r.end());
  }
  const uint64_t out = bench.put(Row(n * wide, 0), "results");
  bench.options.hostThreads = 1;
  bench.run("op", {static_cast<uint32_t>((n + 31) / 32)}, {32}, bench.put(in), out, static_cast<int>(n));
  const Row got = bench.get<Bits>(out, n * wide);
  for (size_t r = 0; r < n; ++r)
    for (size_t k = 0; k < expected_[r].size(); ++k) {
      const Bits g = got[r * wide + k], e = expected_[r][k];
      if (g == e || e == kAny || (e == kAnyNan && isNan(g, outputs_[k]))) continue;
      std::ostringstream text;
      text << "line " << line_ << ": " << text_ << std::hex;
      for (const Bits a : rows_[r]) text << " 0x" << a;
      text << " -> result " << k << " is 0x" << g << ", expected 0x" << e;
      throw Failure(text.str());
    }
}

bool isRefused(const std::string& instruction, const std::string& outputs, const std::string& inputs) {
  try {
    Op op(instruction, outputs, inputs);
    op.row(Row(inputs.size(), 0), {});
  } catch (const SimError& e) {
    return e.fault() == Fault::kUnknownOpcode || e.fault() == Fault::kBadPtx;
  }
  return false;
}

}  // namespace cudasim::test
