// Which products are cuBLASLt's, by a table of dtypes and of what is made of the sums; how they are told to it.
//
// BLAS has columns where we have rows: C^T = B^T A^T is the same memory, so A and B change places.
#include "gemm_blas.h"

#include <array>
#include <map>
#include <memory>

#include "blas.h"
#include "device.h"
#include "views.h"

namespace gradus::cuda {

void run_gelu(const OpCall&);

namespace {

// What it computes from operands of `operand` to C of `result`. It sums up in the compute type, float32 without TF32.
// Its gelu is that by tanh, and is not taken for float32: nothing says how exact it is. Others, and what else a product
// may ask for (rows that only the device counts, a factor there), are our kernels'.
struct Row {
  DType operand, result;
  int type, resultType, compute, scale;
  bool bias, gelu;
};
constexpr Row kTable[] = {
    {DType::kFloat32, DType::kFloat32, kBlasFloat32, kBlasFloat32, kBlasInFloat32, kBlasFloat32, true, false},
    {DType::kFloat64, DType::kFloat64, kBlasFloat64, kBlasFloat64, kBlasInFloat64, kBlasFloat64, false, false},
    {DType::kFloat16, DType::kFloat16, kBlasFloat16, kBlasFloat16, kBlasInFloat32, kBlasFloat32, true, true},
    {DType::kFloat16, DType::kFloat32, kBlasFloat16, kBlasFloat32, kBlasInFloat32, kBlasFloat32, false, false},
    {DType::kBFloat16, DType::kBFloat16, kBlasBFloat16, kBlasBFloat16, kBlasInFloat32, kBlasFloat32, true, true},
    {DType::kBFloat16, DType::kFloat32, kBlasBFloat16, kBlasFloat32, kBlasInFloat32, kBlasFloat32, false, false},
};

const Row* rowOf(DType operand, DType result) {
  for (const Row& row : kTable) {
    if (row.operand == operand && row.result == result) return &row;
  }
  return nullptr;
}

constexpr uint64_t kMostWorkspace = uint64_t{32} << 20;  // what NVIDIA recommends for the largest cards
constexpr uint64_t kWorkspaceAlignment = 256;
constexpr int64_t kMostBatches = 65535;  // of a grid; not all of its kernels take more
// Of an address: no kernel of the library loads more at once. Fewer values than there are make fewer plans, and the
// same bits wherever a tensor lies.
constexpr uintptr_t kAlignment = 16;
constexpr int64_t kAuxUnit = 8;  // elements that divide the stride of the auxiliary matrix

// A matrix in columns.
struct Matrix {
  const void* data = nullptr;
  int type = 0;
  int64_t rows = 0, cols = 0, stride = 0, batchStride = 0;
  int transposed = 0;
};

struct Product {
  const Row* row;
  Matrix a, b, c, d;  // as the library sees them
  int64_t batches = 1;
  uint32_t epilogue = kBlasPlain;
  const void* aux = nullptr;
  int64_t auxStride = 0;
  double alpha = 1, beta = 0;
  bool activates = false;  // whether D is activation(C)
};

// The one stride of a batch; false where entries lie otherwise.
bool batchStrideOf(const Gemm& g, const int64_t* strides, int64_t& stride) {
  stride = g.rank > 0 ? strides[g.rank - 1] : 0;
  for (int d = g.rank - 2; d >= 0; --d) {
    if (strides[d] != strides[d + 1] * g.sizes[d + 1]) return false;
  }
  return stride >= 0;
}

// Rows that are contiguous are columns of the transposed matrix; a single one may have any stride.
bool setMatrix(Matrix& m, const void* data, int type, int64_t rows, int64_t cols, int64_t stride) {
  m.data = data;
  m.type = type;
  m.rows = rows;
  m.cols = cols;
  m.stride = cols <= 1 ? std::max(stride, rows) : stride;
  return m.stride >= rows;
}

bool setOperand(Matrix& m, const Gemm& g, const BlasOperand& x, int type, int64_t rows, int64_t cols) {
  m.transposed = x.transposed;
  const bool lies = x.transposed ? setMatrix(m, x.data, type, rows, cols, x.stride)
                                 : setMatrix(m, x.data, type, cols, rows, x.stride);
  return lies && batchStrideOf(g, x.batch, m.batchStride);
}

// What is made of the sums in the same call; gelu that the library does not have is left for later.
bool setEpilogue(Product& p, const Gemm& g) {
  if (g.bias != nullptr && !p.row->bias) return false;
  const auto isAux = [&](const void* data, int64_t stride) {
    return isWide(data) && stride % kAuxUnit == 0 && stride >= g.n;
  };
  const bool hasGelu = p.row->gelu && g.activation == Activation::kGeluTanh && g.beta == 0;
  if (g.gradientAt != nullptr) {
    p.epilogue = kBlasGeluGradient;
    p.aux = g.gradientAt;
    p.auxStride = g.gradientRowStride;
    return hasGelu && g.bias == nullptr && g.gradientDType == g.cDType && isAux(p.aux, p.auxStride);
  }
  if (g.bias != nullptr) {
    // Where rows of 16-bit results begin anywhere, it rounds the sum before it adds the bias (13.1.0 on an H100).
    if (isHalf(g.cDType) && !isAux(p.c.data, p.c.stride)) return false;
    p.epilogue = kBlasWithBias;
  }
  p.activates = g.activated != nullptr && hasGelu && isAux(p.c.data, p.c.stride);
  if (!p.activates) return true;
  // the result is the activation, and C what it is taken of
  p.epilogue = kBlasGelu | kBlasWithAux | (g.bias != nullptr ? kBlasWithBias : 0);
  p.aux = p.c.data;
  p.auxStride = p.c.stride;
  if (!setMatrix(p.d, g.activated, p.row->resultType, g.n, g.m, g.activatedRowStride)) return false;
  p.c = p.d;  // not read
  return true;
}

bool describe(Product& p, const Gemm& g, const BlasOperand& a, const BlasOperand& b, DType dtype) {
  p.row = rowOf(dtype, g.cDType);
  if (p.row == nullptr || g.live.count != nullptr || g.factor != nullptr) return false;
  if (g.k == 0 || g.alpha == 0) return false;  // BLAS reads no operand then, not even for its NaN
  if (g.cColStride != 1 && g.n > 1) return false;
  for (int d = 0; d < g.rank; ++d) p.batches *= g.sizes[d];
  if (p.batches > kMostBatches) return false;
  if (!setOperand(p.a, g, b, p.row->type, g.k, g.n) || !setOperand(p.b, g, a, p.row->type, g.m, g.k)) return false;
  if (!setMatrix(p.c, g.c, p.row->resultType, g.n, g.m, g.cRowStride)) return false;
  if (!batchStrideOf(g, g.cBatch, p.c.batchStride)) return false;
  p.d = p.c;
  p.alpha = g.alpha;
  p.beta = g.beta;
  return setEpilogue(p, g);
}

// --- the library's own descriptions -------------------------------------------------------------------------------

struct Destroy {
  void operator()(BlasLayout* each) const { blas()->layoutDestroy(each); }
  void operator()(BlasDescription* each) const { blas()->descriptionDestroy(each); }
  void operator()(BlasPreference* each) const { blas()->preferenceDestroy(each); }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy>;

Owned<BlasLayout> layoutOf(const Matrix& m, int64_t batches) {
  BlasLayout* made = nullptr;
  checkBlas(blas()->layoutCreate(&made, m.type, static_cast<uint64_t>(m.rows), static_cast<uint64_t>(m.cols), m.stride),
            "cublasLtMatrixLayoutCreate");
  Owned<BlasLayout> layout(made);
  if (batches == 1) return layout;
  const auto count = static_cast<int32_t>(batches);
  checkBlas(blas()->layoutSet(made, kBlasLayoutBatches, &count, sizeof count), "cublasLtMatrixLayoutSetAttribute");
  checkBlas(blas()->layoutSet(made, kBlasLayoutBatchStride, &m.batchStride, sizeof m.batchStride),
            "cublasLtMatrixLayoutSetAttribute");
  return layout;
}

Owned<BlasDescription> descriptionOf(const Product& p, const void* bias, const void* aux) {
  BlasDescription* made = nullptr;
  checkBlas(blas()->describe(&made, p.row->compute, p.row->scale), "cublasLtMatmulDescCreate");
  Owned<BlasDescription> description(made);
  const auto set = [&](int attribute, const auto& value) {
    checkBlas(blas()->descriptionSet(made, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  };
  set(kBlasTransA, p.a.transposed);
  set(kBlasTransB, p.b.transposed);
  set(kBlasEpilogue, p.epilogue);
  if (p.epilogue & kBlasWithBias) {
    set(kBlasBias, bias);
    set(kBlasBiasType, p.row->resultType);
  }
  if (p.epilogue & kBlasWithAux) {
    set(kBlasAux, aux);
    set(kBlasAuxStride, p.auxStride);
  }
  return description;
}

uint32_t alignmentOf(const void* data) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  return static_cast<uint32_t>(std::min(kAlignment, address & -address));
}

// --- which algorithm ----------------------------------------------------------------------------------------------

struct Plan {
  bool exists = false;
  BlasAlgorithm algorithm;
  size_t workspaceBytes = 0;
};

// All that the choice of an algorithm may depend on.
using Key = std::array<int64_t, 25>;

Key keyOf(const Product& p) {
  Key key{p.row - kTable, p.batches, p.epilogue, p.auxStride, p.beta != 0};
  size_t at = 5;
  for (const Matrix* m : {&p.a, &p.b, &p.c, &p.d}) {
    for (const int64_t each : {m->rows, m->cols, m->stride, m->batchStride * 2 + m->transposed,
                               static_cast<int64_t>(alignmentOf(m->data))}) {
      key[at++] = each;
    }
  }
  return key;
}

// A device's: executors are threads of their own.
struct Executor {
  BlasContext* context = nullptr;
  std::map<Key, Plan> plans;
};

Executor& executor() {
  thread_local Executor own;
  if (own.context == nullptr) checkBlas(blas()->create(&own.context), "cublasLtCreate");
  return own;
}

using Layouts = std::array<Owned<BlasLayout>, 4>;

// Sums of ranges are added up in the compute type, in their order: the same bits each time. Where bias and auxiliary
// matrix lie tells the library how they are aligned, and no more: the same plan for all that are aligned.
Plan ask(const Product& p, const Layouts& layouts) {
  const auto* somewhere = reinterpret_cast<const void*>(kAlignment);
  const Owned<BlasDescription> description = descriptionOf(p, somewhere, somewhere);
  BlasPreference* made = nullptr;
  checkBlas(blas()->preferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
  const Owned<BlasPreference> preference(made);
  const auto set = [&](int attribute, const auto& value) {
    checkBlas(blas()->preferenceSet(made, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
  };
  set(kBlasWorkspaceBytes, kMostWorkspace);
  set(kBlasReductions, kBlasReduceInComputeType);
  const Matrix* matrices[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; ++i) set(kBlasAlignA + i, alignmentOf(matrices[i]->data));
  BlasHeuristic best{};
  int found = 0;
  const BlasStatus status = blas()->heuristic(executor().context, description.get(), layouts[0].get(), layouts[1].get(),
                                              layouts[2].get(), layouts[3].get(), made, 1, &best, &found);
  if (status == kBlasNotSupported || (status == kBlasSuccess && found == 0)) return {};
  checkBlas(status, "cublasLtMatmulAlgoGetHeuristic");
  return {best.state == kBlasSuccess, best.algorithm, best.workspaceBytes};
}

const Plan& planOf(const Product& p, const Layouts& layouts) {
  std::map<Key, Plan>& plans = executor().plans;
  const Key key = keyOf(p);
  auto entry = plans.find(key);
  if (entry == plans.end()) entry = plans.emplace(key, ask(p, layouts)).first;
  return entry->second;
}

// --- what it does not take as it is -------------------------------------------------------------------------------

TensorView matrixOf(const void* data, DType dtype, int64_t rows, int64_t cols, int64_t stride) {
  TensorView view;
  view.data = const_cast<void*>(data);
  view.dtype = dtype;
  view.rank = 2;
  view.sizes[0] = rows;
  view.sizes[1] = cols;
  view.strides[0] = stride;
  view.strides[1] = 1;
  view.numel = rows * cols;
  view.contiguous = rows == 1 || stride == cols;
  return view;
}

// Biases have the dtype of the result, and are loaded in vectors.
const void* biasOf(const Gemm& g, const OpCall& call) {
  if (g.bias == nullptr || (g.biasDType == g.cDType && isWide(g.bias))) return g.bias;
  void* copy = call.workspace->take(static_cast<size_t>(g.n) * itemSize(g.cDType));
  copyView(call, matrixOf(g.bias, g.biasDType, 1, g.n, g.n), matrixOf(copy, g.cDType, 1, g.n, g.n));
  return copy;
}

void activate(const Gemm& g, const OpCall& call) {
  const TensorView x = g.gradientAt != nullptr ? matrixOf(g.gradientAt, g.gradientDType, g.m, g.n, g.gradientRowStride)
                                               : matrixOf(g.c, g.cDType, g.m, g.n, g.cRowStride);
  TensorView y = matrixOf(g.activated, g.cDType, g.m, g.n, g.activatedRowStride);
  const double tanh = g.activation == Activation::kGeluTanh;
  run_gelu({call.name, &x, &y, &tanh, 1, 1, 1, call.workspace});
}

}  // namespace

bool gemmByLibrary(const Gemm& g, const BlasOperand& a, const BlasOperand& b, DType dtype, const OpCall& call) {
  if (blas() == nullptr) return false;
  Product p;
  if (!describe(p, g, a, b, dtype)) return false;
  const Layouts layouts{layoutOf(p.a, p.batches), layoutOf(p.b, p.batches), layoutOf(p.c, p.batches),
                        layoutOf(p.d, p.batches)};
  const Plan& plan = planOf(p, layouts);
  if (!plan.exists) return false;
  const Owned<BlasDescription> description = descriptionOf(p, biasOf(g, call), p.aux);
  void* workspace = nullptr;
  if (plan.workspaceBytes > 0) {
    const auto taken = reinterpret_cast<uintptr_t>(call.workspace->take(plan.workspaceBytes + kWorkspaceAlignment));
    workspace = reinterpret_cast<void*>((taken + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment);
  }
  const float single[] = {static_cast<float>(p.alpha), static_cast<float>(p.beta)};
  const double twice[] = {p.alpha, p.beta};
  const bool isDouble = p.row->scale == kBlasFloat64;
  const void* alpha = isDouble ? static_cast<const void*>(twice) : single;
  const void* beta = isDouble ? static_cast<const void*>(twice + 1) : single + 1;
  checkBlas(
      blas()->matmul(executor().context, description.get(), alpha, p.a.data, layouts[0].get(), p.b.data,
                     layouts[1].get(), beta, p.c.data, layouts[2].get(), const_cast<void*>(p.d.data), layouts[3].get(),
                     &plan.algorithm, workspace, plan.workspaceBytes, currentDevice().opened.queue),
      "cublasLtMatmul");
  if (p.beta != 0) currentDevice().addsUnseen();
  if (g.activated != nullptr && !p.activates) activate(g, call);
  return true;
}

}  // namespace gradus::cuda
