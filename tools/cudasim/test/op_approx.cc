// Approximate functions: what the ISA document's tables say for special values, its error bounds elsewhere.
#include "reference.h"

namespace cudasim::test {

namespace {

constexpr Bits kInf = 0x7f800000, kMinusInf = 0xff800000, kNan = 0x7fffffff, kMinusZero = 0x80000000;

// Runs one function on many values and compares with double precision.
std::vector<float> runAll(const std::string& opcode, const std::vector<float>& in, int ulp = 0, uint64_t seed = 1) {
  Bench bench(
      ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f(.param .u64 a, .param .u64 b)\n{\n"
      ".reg .b32 %r<4>; .reg .b64 %d<4>; .reg .f32 %f<3>;\nld.param.u64 %d0, [a]; ld.param.u64 %d1, [b];\n"
      "mov.u32 %r0, %ctaid.x; mov.u32 %r1, %tid.x; mad.lo.u32 %r2, %r0, 32, %r1; mul.wide.u32 %d2, %r2, 4;\n"
      "add.u64 %d0, %d0, %d2; add.u64 %d1, %d1, %d2; ld.global.f32 %f0, [%d0];\n" +
      opcode + " %f1, %f0;\nst.global.f32 [%d1], %f1;\nret;\n}\n");
  bench.options.ulpPerturbation = ulp;
  bench.options.seed = seed;
  const uint64_t out = bench.space(in.size() * 4);
  bench.run("f", {static_cast<uint32_t>(in.size() / 32)}, {32}, bench.put(in), out);
  return bench.get<float>(out, in.size());
}

std::vector<float> between(double low, double high, size_t count = 4096) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>(low + (high - low) * static_cast<double>(i) / static_cast<double>(count));
  return values;
}

void within(const std::string& opcode, const std::vector<float>& in, double (*f)(double), double relative,
            double absolute) {
  const std::vector<float> got = runAll(opcode, in);
  for (size_t i = 0; i < in.size(); ++i) {
    const double e = f(in[i]), error = std::fabs(got[i] - e);
    if (error > relative * std::fabs(e) + absolute)
      throw Failure(opcode + " of " + std::to_string(in[i]) + ": got " + std::to_string(got[i]) + ", expected " +
                    std::to_string(e));
  }
}

}  // namespace

CUDASIM_TEST("opcodes: special values of ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh") {
  Op::of("ex2.approx.f32", "w", "w")
      .row({kMinusInf}, {0})
      .row({0}, {0x3f800000})
      .row({kMinusZero}, {0x3f800000})
      .row({kInf}, {kInf})
      .row({0x7fc00000}, {kNan})
      .row({bitsOf(3.0f)}, {bitsOf(8.0f)})
      .row({bitsOf(-126.0f)}, {0x00800000})
      .row({bitsOf(-140.0f)}, {0x200})
      .row({bitsOf(128.0f)}, {kInf});
  Op::of("ex2.approx.ftz.f32", "w", "w").row({bitsOf(-140.0f)}, {0}).row({0x80000001}, {0x3f800000});
  Op::of("lg2.approx.f32", "w", "w")
      .row({kMinusInf}, {kNan})
      .row({bitsOf(-1.0f)}, {kNan})
      .row({0}, {kMinusInf})
      .row({kMinusZero}, {kMinusInf})
      .row({kInf}, {kInf})
      .row({0x7fc00000}, {kNan})
      .row({bitsOf(1.0f)}, {0})
      .row({bitsOf(0.125f)}, {bitsOf(-3.0f)})
      .row({0x00000001}, {bitsOf(-149.0f)});
  Op::of("lg2.approx.ftz.f32", "w", "w").row({0x00000001}, {kMinusInf}).row({0x807fffff}, {kMinusInf});
  Op::of("rcp.approx.ftz.f32", "w", "w")
      .row({kMinusInf}, {kMinusZero})
      .row({kMinusZero}, {kMinusInf})
      .row({0}, {kInf})
      .row({kInf}, {0})
      .row({0x7fc00000}, {kNan})
      .row({1}, {kInf})
      .row({0x80000001}, {kMinusInf})
      .row({bitsOf(4.0f)}, {bitsOf(0.25f)});
  Op::of("rsqrt.approx.f32", "w", "w")
      .row({kMinusInf}, {kNan})
      .row({bitsOf(-1.0f)}, {kNan})
      .row({kMinusZero}, {kMinusInf})
      .row({0}, {kInf})
      .row({kInf}, {0})
      .row({0x7fc00000}, {kNan})
      .row({bitsOf(16.0f)}, {bitsOf(0.25f)});
  Op::of("sqrt.approx.f32", "w", "w")
      .row({kMinusInf}, {kNan})
      .row({bitsOf(-1.0f)}, {kNan})
      .row({kMinusZero}, {kMinusZero})
      .row({0}, {0})
      .row({kInf}, {kInf})
      .row({0x7fc00000}, {kNan});
  Op::of("sin.approx.f32", "w", "w")
      .row({kMinusInf}, {kNan})
      .row({kMinusZero}, {kMinusZero})
      .row({0}, {0})
      .row({kInf}, {kNan})
      .row({0x7fc00000}, {kNan});
  Op::of("cos.approx.f32", "w", "w")
      .row({kMinusInf}, {kNan})
      .row({0}, {0x3f800000})
      .row({kMinusZero}, {0x3f800000})
      .row({kInf}, {kNan});
  Op::of("tanh.approx.f32", "w", "w")
      .row({kMinusInf}, {bitsOf(-1.0f)})
      .row({kMinusZero}, {kMinusZero})
      .row({0}, {0})
      .row({kInf}, {bitsOf(1.0f)})
      .row({0x7fc00000}, {kNan});
  Op::of("ex2.approx.f16", "h", "h")
      .row({0x4200}, {0x4800})
      .row({0xfc00}, {0})
      .row({0x7e00}, {0x7fff})
      .row({0x0000}, {0x3c00});
  Op::of("ex2.approx.ftz.bf16", "h", "h").row({0x4040}, {0x4100}).row({0xff80}, {0}).row({0x7fc0}, {0x7fff});
  Op::of("ex2.approx.f16x2", "w", "w").row({0x4200bc00}, {0x48003800});
  Op::of("tanh.approx.bf16x2", "w", "w").row({0x7f80ff80}, {0x3f80bf80});
  Op::of("tanh.approx.f16", "h", "h").row({0x7c00}, {0x3c00}).row({0x8000}, {0x8000});
  Op::of("rcp.approx.ftz.f64", "d", "d")
      .row({bitsOf(4.0)}, {bitsOf(0.25)})
      .row({bitsOf(0.0)}, {0x7ff0000000000000})
      .row({0x8000000000000001}, {0xfff0000000000000});
  Op::of("rsqrt.approx.f64", "d", "d")
      .row({bitsOf(4.0)}, {bitsOf(0.5)})
      .row({bitsOf(-0.0)}, {0xfff0000000000000})
      .row({bitsOf(-1.0)}, {kAnyNan});
}

CUDASIM_TEST("opcodes: approximate functions keep the bounds of the ISA document") {
  within(
      "ex2.approx.f32", between(-120, 120), [](double x) { return std::exp2(x); }, 0x1p-22, 0);
  within(
      "lg2.approx.f32", between(1e-3, 0.5), [](double x) { return std::log2(x); }, 0x1p-22, 0);
  within(
      "lg2.approx.f32", between(0.5, 2), [](double x) { return std::log2(x); }, 0, 0x1p-22);
  within(
      "rcp.approx.f32", between(1e-6, 1e6), [](double x) { return 1 / x; }, 0x1p-23, 0);
  within(
      "rsqrt.approx.f32", between(1e-6, 1e6), [](double x) { return 1 / std::sqrt(x); }, 0x1p-22, 0);
  within(
      "sqrt.approx.f32", between(0, 1e6), [](double x) { return std::sqrt(x); }, 0x1p-23, 0);
  within(
      "sin.approx.f32", between(-3.14159, 3.14159), [](double x) { return std::sin(x); }, 0, 0x1p-20);
  within(
      "cos.approx.f32", between(-3.14159, 3.14159), [](double x) { return std::cos(x); }, 0, 0x1p-20);
  within(
      "tanh.approx.f32", between(-10, 10), [](double x) { return std::tanh(x); }, 0x1p-11, 0);
}

CUDASIM_TEST("opcodes: div.full and div.approx, and huge divisors of the latter") {
  Op::of("div.full.f32", "w", "ww")
      .row({bitsOf(1.0f), bitsOf(4.0f)}, {bitsOf(0.25f)})
      .row({bitsOf(1.0f), 0}, {kInf})
      .row({0, 0}, {kNan});
  Op::of("div.approx.f32", "w", "ww")
      .row({bitsOf(6.0f), bitsOf(-2.0f)}, {bitsOf(-3.0f)})
      .row({0x7f000000, 0x7f000000}, {0})  // 2^126 < |b| < inf: zero
      .row({kInf, 0x7f000000}, {kNan});    // and infinity by it is NaN
  Op::of("div.approx.ftz.f32", "w", "ww").row({bitsOf(1.0f), 1}, {kInf});
}

CUDASIM_TEST("opcodes: perturbed results differ by at most the asked units, by seed, exact ones not at all") {
  const std::vector<float> in = between(0.1, 20, 1024), exact = runAll("ex2.approx.f32", in);
  const std::vector<float> once = runAll("ex2.approx.f32", in, 2, 5), again = runAll("ex2.approx.f32", in, 2, 5),
                           other = runAll("ex2.approx.f32", in, 2, 6);
  int moved = 0, differ = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    const auto distance = static_cast<int64_t>(bitsOf(once[i])) - static_cast<int64_t>(bitsOf(exact[i]));
    CHECK(distance >= -2 && distance <= 2);
    moved += distance != 0;
    differ += once[i] != other[i];
    EXPECT_EQ(once[i], again[i]);
  }
  CHECK(moved > 600 && differ > 600);
  for (const float z : runAll("lg2.approx.f32", std::vector<float>(32, 1.0f), 2)) EXPECT_EQ(z, 0.0f);
}

}  // namespace cudasim::test
