// Fragments of mma, ldmatrix and movmatrix, by the figures of the ISA document written out element by element: where in
// the matrix an element of a lane's register lies. A layout that permutes K alike in A and B would cancel in a product
// of random matrices; here each element of A is probed alone with a B that names its place.
#include "reference.h"

namespace cudasim::test {

namespace {

struct Place {
  int row, column;
};

// Element i of lane's fragments, as the document gives them for each shape.
Place placeA16(int lane, int i, int k) {  // .f16 and .bf16, k = 8 or 16
  const int group = lane >> 2, inGroup = lane % 4;
  const int row = k == 8 ? (i < 2 ? group : group + 8) : ((0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8);
  const int column = k == 8 ? inGroup * 2 + (i & 1) : (i < 4 ? inGroup * 2 + (i & 1) : inGroup * 2 + (i & 1) + 8);
  return {row, column};
}
Place placeB16(int lane, int i, int) {
  const int group = lane >> 2, inGroup = lane % 4;
  return {i < 2 ? inGroup * 2 + (i & 1) : inGroup * 2 + (i & 1) + 8, group};
}
Place placeA32(int lane, int i, int k) {  // .tf32, k = 4 or 8
  const int group = lane >> 2, inGroup = lane % 4;
  if (k == 4) return {i == 0 ? group : group + 8, inGroup};
  return {i == 0 || i == 2 ? group : group + 8, i == 0 || i == 1 ? inGroup : inGroup + 4};
}
Place placeB32(int lane, int i, int) {
  const int group = lane >> 2, inGroup = lane % 4;
  return {i == 0 ? inGroup : inGroup + 4, group};
}
Place placeC(int lane, int i) {
  const int group = lane >> 2, inGroup = lane % 4;
  return {i < 2 ? group : group + 8, inGroup * 2 + (i & 1)};
}

struct Shape {
  std::string type;
  int k;
  bool halfSum;
};

Bits encodeNumber(double v, const std::string& type) {
  return type == "f16"    ? encode(v, kF16, To::kNearest, false)
         : type == "bf16" ? encode(v, kBF16, To::kNearest, false)
                          : bitsOf(static_cast<float>(v));
}

// One product. Matrices are row-major; registers are packed and unpacked by the places above.
void product(const Shape& s, const std::vector<double>& A, const std::vector<double>& B, const std::vector<double>& C,
             const std::vector<double>& D) {
  const bool pairs = s.type != "tf32";
  const int perLaneA = 16 * s.k / 32, perLaneB = 8 * s.k / 32, each = pairs ? 2 : 1;
  const int a = perLaneA / each, b = perLaneB / each, d = s.halfSum ? 2 : 4;
  const auto list = [](char name, int first, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += (i ? ", %" : "%") + std::string(1, name) + std::to_string(first + i);
    return "{" + text + "}";
  };
  const std::string sum = s.halfSum ? "f16" : "f32";
  Op op("mma.sync.aligned.m16n8k" + std::to_string(s.k) + ".row.col." + sum + "." + s.type + "." + s.type + "." + sum +
            " " + list('d', 0, d) + ", " + list('a', 0, a) + ", " + list('a', a, b) + ", " + list('a', a + b, d) + ";",
        std::string(static_cast<size_t>(d), 'w'), std::string(static_cast<size_t>(a + b + d), 'w'));
  for (int lane = 0; lane < 32; ++lane) {
    Row in, out;
    const auto pack = [&](Row& row, int count, int per, auto value) {
      for (int i = 0; i < count; i += per) row.push_back(per == 2 ? value(i) | value(i + 1) << 16 : value(i));
    };
    pack(in, perLaneA, each, [&](int i) {
      const Place p = pairs ? placeA16(lane, i, s.k) : placeA32(lane, i, s.k);
      return encodeNumber(A[p.row * s.k + p.column], s.type);
    });
    pack(in, perLaneB, each, [&](int i) {
      const Place p = pairs ? placeB16(lane, i, s.k) : placeB32(lane, i, s.k);
      return encodeNumber(B[p.row * 8 + p.column], s.type);
    });
    const auto accumulator = [&](const std::vector<double>& m) {
      return [&, lane](int i) {
        const Place p = placeC(lane, i);
        return encodeNumber(m[p.row * 8 + p.column], s.halfSum ? "f16" : "tf32");
      };
    };
    pack(in, 4, s.halfSum ? 2 : 1, accumulator(C));
    pack(out, 4, s.halfSum ? 2 : 1, accumulator(D));
    op.row(in, out);
  }
}

const std::vector<Shape> kShapes = {{"f16", 8, false},  {"f16", 16, false},  {"f16", 8, true},   {"f16", 16, true},
                                    {"bf16", 8, false}, {"bf16", 16, false}, {"tf32", 4, false}, {"tf32", 8, false}};

}  // namespace

CUDASIM_TEST("opcodes: mma multiplies the matrices that its fragments hold") {
  for (const Shape& s : kShapes) {
    std::vector<double> A(16 * s.k), B(s.k * 8), C(128), D(128);
    for (int i = 0; i < 16 * s.k; ++i) A[i] = (i * 7 + 3) % 11 - 5;
    for (int i = 0; i < s.k * 8; ++i) B[i] = (i * 5 + 1) % 9 - 4;
    for (int i = 0; i < 128; ++i) C[i] = i - 64;
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        D[m * 8 + n] = C[m * 8 + n];
        for (int k = 0; k < s.k; ++k) D[m * 8 + n] += A[m * s.k + k] * B[k * 8 + n];
      }
    product(s, A, B, C, D);
  }
}

CUDASIM_TEST("opcodes: each element of an mma fragment lies where the document says") {
  for (const Shape& s : kShapes)
    for (int k = 0; k < s.k; ++k) {
      // Only column k of A is not zero, and row j of B holds 2^j-ish marks: a wrong k shows in the result.
      std::vector<double> A(16 * s.k, 0), B(s.k * 8), C(128, 0), D(128);
      for (int m = 0; m < 16; ++m) A[m * s.k + k] = m + 1;
      for (int j = 0; j < s.k; ++j)
        for (int n = 0; n < 8; ++n) B[j * 8 + n] = j * 8 + n + 1;
      for (int m = 0; m < 16; ++m)
        for (int n = 0; n < 8; ++n) D[m * 8 + n] = (m + 1) * (k * 8 + n + 1);
      product(s, A, B, C, D);
    }
}

CUDASIM_TEST("opcodes: mma keeps denormal inputs, gives canonical NaN, and cuts tf32") {
  const auto one = [](const std::string& opcode, const std::string& registers, Bits a, Bits b, Bits c, Bits expected) {
    // Element (0, 0) of A in lane 0, of B in lane 0: D's (0, 0) in lane 0.
    Op op(opcode + " {%d0, %d1, %d2, %d3}, " + registers + ", {%a2, 0, 0, 0};", "wwww", "www");
    for (Bits lane = 0; lane < 32; ++lane) op.row({lane ? 0 : a, lane ? 0 : b, lane ? 0 : c}, {lane ? kAny : expected});
  };
  const std::string f16 = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", two = "{%a0, 0, 0, 0}, {%a1, 0}";
  one(f16, two, 0x0001, 0x3c00, 0, bitsOf(0x1p-24f));
  one(f16, two, 0x7c00, 0x3c00, 0, 0x7f800000);
  one(f16, two, 0x7c00, 0x0000, 0, 0x7fffffff);
  one(f16, two, 0x3c00, 0x3c00, 0xff800000, 0xff800000);
  const std::string tf32 = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32";
  one(tf32, two, 0x3f801fff, 0x3f800000, 0, 0x3f800000);
  one("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", two, 0x3f80, 0x4000, bitsOf(0.5f), bitsOf(2.5f));
}

CUDASIM_TEST("opcodes: ldmatrix gives rows to groups of four lanes, columns with trans") {
  // 32 rows of eight halves, each row at an address of its own (rows are 48 bytes apart, in another order).
  for (const int count : {1, 2, 4})
    for (const bool trans : {false, true}) {
      const std::string x = std::to_string(count);
      std::string outputs, stores;
      for (int m = 0; m < count; ++m) {
        outputs += (m ? ", %m" : "%m") + std::to_string(m);
        stores += "st.global.u32 [%d1+" + std::to_string(4 * m) + "], %m" + std::to_string(m) + ";\n";
      }
      Bench bench(
          ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{\n.reg .b16 %h<3>; .reg "
          ".b32 %r<8>; .reg .b32 %m<4>; .reg .b64 %d<4>;\n"
          ".shared .align 16 .b8 s[1536];\nmov.u32 %r0, %laneid; mad.lo.u32 %r1, %r0, 48, 0; mov.u32 %r2, s; add.u32 "
          "%r1, %r1, %r2;\n"
          // Lane writes row `lane`: number 100 * row + column.
          "mul.lo.u32 %r3, %r0, 100; cvt.u16.u32 %h0, %r3;\n" +
          [] {
            std::string text;
            for (int c = 0; c < 8; ++c)
              text += "add.u16 %h1, %h0, " + std::to_string(c) + "; st.shared.b16 [%r1+" + std::to_string(2 * c) +
                      "], %h1;\n";
            return text;
          }() +
          "bar.warp.sync -1;\n"
          // Lane i asks for row (i * 5) % 32.
          "mul.lo.u32 %r4, %r0, 5; and.b32 %r4, %r4, 31; mad.lo.u32 %r5, %r4, 48, %r2;\n"
          "ldmatrix.sync.aligned.m8n8.x" +
          x + (trans ? ".trans" : "") + ".shared.b16 {" + outputs +
          "}, [%r5];\n"
          "ld.param.u64 %d0, [out]; mul.wide.u32 %d1, %r0, " +
          std::to_string(4 * count) + "; add.u64 %d1, %d0, %d1;\n" + stores + "ret;\n}\n");
      const uint64_t out = bench.space(static_cast<size_t>(32 * 4 * count));
      bench.run("k", {1}, {32}, out);
      const std::vector<uint32_t> got = bench.get<uint32_t>(out, static_cast<size_t>(32 * count));
      for (int lane = 0; lane < 32; ++lane)
        for (int m = 0; m < count; ++m)
          for (int h = 0; h < 2; ++h) {
            const int row = trans ? lane % 4 * 2 + h : lane / 4, column = trans ? lane / 4 : lane % 4 * 2 + h;
            const int stored = (8 * m + row) * 5 % 32;
            EXPECT_EQ(got[static_cast<size_t>(lane * count + m)] >> (16 * h) & 0xffff,
                      static_cast<uint32_t>(100 * stored + column));
          }
    }
}

CUDASIM_TEST("opcodes: movmatrix transposes") {
  Op op("movmatrix.sync.aligned.m8n8.trans.b16 %d0, %a0;", "w", "w");
  Op same("mov.b32 %d0, %a0; movmatrix.sync.aligned.m8n8.trans.b16 %d0, %d0;", "w", "w");
  for (int lane = 0; lane < 32; ++lane) {
    const auto number = [](int row, int column) { return static_cast<Bits>(row * 8 + column + 1); };
    const int g = lane / 4, t = lane % 4 * 2;
    const Row in = {number(g, t) | number(g, t + 1) << 16}, out = {number(t, g) | number(t + 1, g) << 16};
    op.row(in, out);
    same.row(in, out);
  }
}

}  // namespace cudasim::test
