// C = alpha A B + beta C (+ bias), A [m, k], B [k, n], any strides, any floating dtype.
//
// Why not oneDNN's sgemm alone: what stands around a product in a transformer (bias, gelu and its derivative, bias
// gradients, 16-bit operands, gradients that accumulate) costs a pass over memory each when the product is a closed
// call. Here they happen where the data are in cache anyway: while a block is packed, or before it leaves L2.
#pragma once

#include "../core/op.h"

namespace gradus::cpu {

enum class Activation : uint8_t { kNone, kGeluTanh, kGeluErf };

struct GemmOperand {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rowStride = 0, colStride = 0;
  Activation activation = Activation::kNone;  // applied while packing
  bool zeroFollows = false;                   // behind each row of k elements there is a 0 that may be read
};

// A packed B that several products share. The first that can keep its whole B packs it here.
struct PackedOperand {
  void* data = nullptr;  // packedBytes
  bool filled = false;
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  // Operands are rounded to bfloat16 before they are multiplied, as they are anyway when A, B or C has that dtype.
  // Sums are float32. Processors that cannot multiply bfloat16, and products of up to four rows, for which reading B
  // alone decides the time, take float32 operands as they are.
  bool inBFloat16 = false;
  GemmOperand a, b;
  void* c = nullptr;
  DType cDType = DType::kFloat32;
  int64_t cRowStride = 0, cColStride = 0;
  double alpha = 1, beta = 0;
  const void* bias = nullptr;  // [n], added to every row
  DType biasDType = DType::kFloat32;
  // With either of the next two C has the compute type or, where pairs are multiplied, may be bfloat16; then they are,
  // too. Rows of all are contiguous.
  // C = (A B) * activation'(x): the gradient of an activation's input
  const void* gradientAt = nullptr;
  int64_t gradientRowStride = 0;
  DType gradientDType = DType::kFloat32;
  Activation gradientOf = Activation::kNone;
  // activation(x) for the same x, or without gradientAt gradientOf(C); dtype of C; null: not wanted
  void* activated = nullptr;
  int64_t activatedRowStride = 0;
  PackedOperand* activatedPanels = nullptr;  // with gradientAt, instead of `activated`; see leavesPacked
  // sums over k of A's rows are added to rowSum [m]: the bias gradient, while dW = g' x packs g'. float64 for float64
  // operands, else float32.
  void* rowSum = nullptr;
  PackedOperand* keptB = nullptr;  // where products with the same B keep it packed; null: not wanted
};

// Whether the product computes in float64 (all operands are float64).
inline bool computesInDouble(const Gemm& g) { return g.a.dtype == DType::kFloat64; }

// Whether the processor multiplies pairs of bfloat16 (AVX512-BF16): twice the products of float32.
bool multipliesPairs();
bool computesInPairs(const Gemm& g);

// A row stride for scratch matrices of that many columns. Rows whole kilobytes apart fall into a few sets of the
// caches: reading such a matrix across its rows takes 1.2 times as long.
constexpr int64_t scratchStride(int64_t cols) { return cols % 256 == 0 ? cols + 16 : cols; }

// Bytes of scratch that gemm needs with that many threads.
size_t gemmScratch(const Gemm& g, int threads);

// Bytes of a B that is kept packed; 0: the product does not pack it whole.
size_t packedBytes(const Gemm& g);

// Whether `from` can leave activation(x) in `activatedPanels` as the packed B of `to`, whose k are its rows: the
// product of a weight's gradient then reads what the epilogue of the one before had in registers. For an even m, an n
// of whole panels, and a B that is packed in one piece: up to 4096 columns of 1024 rows.
bool leavesPacked(const Gemm& from, const Gemm& to);

// Threads worth waking for the product.
int gemmThreads(const Gemm& g);

// Deterministic: the order of every sum depends on the sizes and the number of threads only. scratch: gemmScratch
// bytes, 64-byte aligned.
void gemm(const Gemm& g, int threads, void* scratch);

// The plain float32 product of oneDNN, for those that fit it: nothing fused but rowSum of a column-major A. On all of
// its threads.
bool fitsOneDnn(const Gemm& g);
void gemmByOneDnn(const Gemm& g);

// With scratch of the operation.
void gemm(const Gemm& g, const OpCall& call);

// For several products of one operation: they share scratch, which an operation keeps until its end.
class GemmSeries {
 public:
  explicit GemmSeries(const OpCall& call) : call_(call) {}
  void multiply(const Gemm& g);
  // Room for the packed B of products like this one, for as long as the operation lasts; empty where none is packed.
  PackedOperand keep(const Gemm& g) const;

 private:
  const OpCall& call_;
  void* scratch_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace gradus::cpu
