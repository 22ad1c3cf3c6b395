// Pointwise operators: picks the compute type, finds the common iteration space, chooses between the kernels for dense
// operands and those for any strides.
#include "kernels/pointwise.h"

#include <array>
#include <cmath>

#include "../core/data_errors.h"
#include "../core/element.h"
#include "../core/loop.h"
#include "../core/pointwise_operands.h"
#include "launch.h"

namespace gradus::cuda {

void run_copy(const OpCall&);

namespace {

static_assert(kPointwiseRank == kMaxRank && kPointwiseOperands == kMaxOperands);

// --- any strides --------------------------------------------------------------------------------------------------

constexpr int64_t kMostElements = int64_t{1} << 31;  // of one launch, exclusive: see Divider

enum Form { kUnary, kBinary, kTernary };

Kernel& stridedKernel(Form form, Kind kind) {
  static Kernel kernels[3][3] = {
#define GRADUS_FORM(form)                                                                                             \
  {                                                                                                                   \
    {"pointwise_strided", "gradus_pointwise_" form "_f32"}, {"pointwise_strided", "gradus_pointwise_" form "_f64"}, { \
      "pointwise_strided", "gradus_pointwise_" form "_i64"                                                            \
    }                                                                                                                 \
  }
      GRADUS_FORM("unary"), GRADUS_FORM("binary"), GRADUS_FORM("ternary")
#undef GRADUS_FORM
  };
  return kernels[form][static_cast<int>(kind)];
}

PointwiseNumber numberOf(Kind kind, double value) {
  PointwiseNumber number{};
  if (kind == Kind::kFloat) number.f32 = static_cast<float>(value);
  if (kind == Kind::kDouble) number.f64 = value;
  if (kind == Kind::kInteger) number.i64 = toInteger(value);
  return number;
}

// A call with its operands at their places, and the loop over them.
struct Strided {
  PointwiseStrided arguments{};
  Kind kind;
  Loop loop;
  size_t itemSizes[kMaxOperands];
};

Strided stridedOf(const TensorView& out, const Operand* operands, int count, Kind kind) {
  const TensorView* views[kMaxOperands] = {&out};
  for (int i = 0; i < count; ++i) views[i + 1] = operands[i].view;
  Strided call;
  call.kind = kind;
  call.loop = makeLoop(views, count + 1);
  for (int k = 0; k <= count; ++k) {
    PointwiseStrided::Operand& operand = call.arguments.operands[k];
    if (views[k] == nullptr) {
      operand.number = numberOf(kind, operands[k - 1].number);
    } else {
      operand.data = views[k]->as<char>();
      operand.dtype = static_cast<int>(views[k]->dtype);
      call.itemSizes[k] = itemSize(views[k]->dtype);
      if (k > 0) call.arguments.inPlace |= operand.data == call.arguments.operands[0].data;
    }
  }
  return call;
}

// Elements of a unit: see PointwiseStrided.
int lanesOf(const Strided& call, int count) {
  const Loop& loop = call.loop;
  const int lanes = kPointwiseBytes / (call.kind == Kind::kFloat ? 4 : 8);
  if (loop.inner() < lanes || loop.innerStride(0) != 1) return 1;
  for (int k = 0; k <= count; ++k) {
    const char* data = call.arguments.operands[k].data;
    if (data == nullptr || loop.innerStride(k) == 0) continue;
    if (loop.innerStride(k) != 1) return 1;
    auto place = reinterpret_cast<uintptr_t>(data);
    for (int d = 0; d + 1 < loop.rank; ++d) {
      place |= static_cast<uintptr_t>(loop.strides[k][d] * static_cast<int64_t>(call.itemSizes[k]));
    }
    if (place % std::min<size_t>(16, lanes * call.itemSizes[k]) != 0) return 1;
  }
  return lanes;
}

// Launches over the loop, in halves where it has too many elements for one.
void launchStrided(Kernel& kernel, const Strided& call, int count) {
  const Loop& loop = call.loop;
  if (loop.numel == 0) return;
  if (loop.numel >= kMostElements) {
    const int dim = static_cast<int>(std::max_element(loop.sizes, loop.sizes + loop.rank) - loop.sizes);
    Strided half = call;
    half.loop.sizes[dim] = loop.sizes[dim] / 2;
    half.loop.numel = loop.numel / loop.sizes[dim] * half.loop.sizes[dim];
    launchStrided(kernel, half, count);
    for (int k = 0; k <= count; ++k) {
      if (char*& data = half.arguments.operands[k].data) {
        data += half.loop.sizes[dim] * loop.strides[k][dim] * static_cast<int64_t>(call.itemSizes[k]);
      }
    }
    half.loop.sizes[dim] = loop.sizes[dim] - half.loop.sizes[dim];
    half.loop.numel = loop.numel / loop.sizes[dim] * half.loop.sizes[dim];
    return launchStrided(kernel, half, count);
  }
  PointwiseStrided arguments = call.arguments;
  const int64_t lanes = lanesOf(call, count), units = (loop.inner() + lanes - 1) / lanes;
  arguments.lanes = static_cast<int>(lanes);
  arguments.inner = static_cast<unsigned>(loop.inner());
  arguments.count = static_cast<unsigned>(loop.numel / loop.inner() * units);
  arguments.rank = loop.rank;
  for (int d = 0; d < loop.rank; ++d) {
    const bool isInner = d == loop.rank - 1;
    arguments.sizes[d] = dividerOf(static_cast<unsigned>(isInner ? units : loop.sizes[d]));
    for (int k = 0; k <= count; ++k) {
      if (arguments.operands[k].data == nullptr) continue;
      const int64_t stride = loop.strides[k][d] * static_cast<int64_t>(call.itemSizes[k]);
      arguments.operands[k].strides[d] = isInner ? stride * lanes : stride;
    }
  }
  launch(currentDevice(), kernel, arguments.count, arguments);
}

bool divides(Unary) { return false; }
bool divides(Binary op) { return op == Binary::floorDivide || op == Binary::truncDivide || op == Binary::remainder; }
Form formOf(Unary) { return kUnary; }
Form formOf(Binary op) { return op == Binary::where || op == Binary::addcmul ? kTernary : kBinary; }

// --- dense operands -----------------------------------------------------------------------------------------------

int slotOf(Unary op) { return static_cast<int>(op); }
int slotOf(Binary op) { return static_cast<int>(Unary::kCount) + static_cast<int>(op); }
constexpr int kFormulas = static_cast<int>(Unary::kCount) + static_cast<int>(Binary::kCount);

// The kernel of a formula and a dtype, or null.
Kernel* denseKernel(int slot, DType dtype) {
  static const auto* table = [] {
    auto* all = new std::array<std::array<Kernel*, 4>, kFormulas>{};
    const auto add = [&](int at, const std::string& name) {
      for (const DType each : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
        (*all)[at][static_cast<int>(each)] =
            new Kernel("pointwise", "gradus_pointwise_" + name + "_" + dtypeName(each));
      }
    };
#define GRADUS_ADD_UNARY(name) add(slotOf(Unary::name), #name);
#define GRADUS_ADD_BINARY(name) add(slotOf(Binary::name), #name);
    GRADUS_DENSE_UNARY(GRADUS_ADD_UNARY)
    GRADUS_DENSE_BINARY(GRADUS_ADD_BINARY)
    GRADUS_DENSE_TRUTH(GRADUS_ADD_BINARY)
    GRADUS_DENSE_TERNARY(GRADUS_ADD_BINARY)
#undef GRADUS_ADD_UNARY
#undef GRADUS_ADD_BINARY
    return all;
  }();
  return dtype <= DType::kBFloat16 ? (*table)[slot][static_cast<int>(dtype)] : nullptr;
}

bool isAligned(const TensorView& view) { return reinterpret_cast<uintptr_t>(view.data) % 16 == 0; }

// Whether a kernel for dense operands took the call.
template <class Op>
bool runDense(const TensorView& out, const Operand* operands, int count, Op op, double p, double q) {
  if (!out.contiguous || !isAligned(out)) return false;
  PointwiseDense arguments{
      static_cast<unsigned long long>(out.numel), out.data, {}, {}, static_cast<float>(p), static_cast<float>(q)};
  const TensorView* first = nullptr;
  for (int i = 0; i < count; ++i) {
    const TensorView* view = operands[i].view;
    if (view == nullptr) {
      arguments.numbers[i] = static_cast<float>(operands[i].number);
      continue;
    }
    if (first == nullptr) first = view;
    if (!view->contiguous || view->numel != out.numel || view->dtype != first->dtype || !isAligned(*view)) return false;
    arguments.in[i] = view->data;
  }
  if (first == nullptr || (out.dtype != first->dtype && out.dtype != DType::kBool)) return false;
  Kernel* kernel = denseKernel(slotOf(op), first->dtype);
  if (kernel == nullptr) return false;
  const uint64_t lanes = 16 / itemSize(first->dtype);
  launch(currentDevice(), *kernel, std::max<uint64_t>(lanes, static_cast<uint64_t>(out.numel) / lanes), arguments);
  return true;
}

template <class Op>
void pointwise(const OpCall& call, const Operand* operands, int count, Op op, double p, double q) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  if (runDense(out, operands, count, op, p, q)) return;
  const Kind kind = kindOf(out, operands, count);
  Strided strided = stridedOf(out, operands, count, kind);
  strided.arguments.op = static_cast<int>(op);
  strided.arguments.p = numberOf(kind, p);
  strided.arguments.q = numberOf(kind, q);
  if (kind == Kind::kInteger && divides(op) && operands[1].view) {
    static Kernel findZero("pointwise_strided", "gradus_pointwise_find_zero");
    strided.arguments.failure = currentDevice().failureSlot(call.name);
    if (strided.arguments.inPlace) currentDevice().looksFirst();
    launchStrided(findZero, strided, count);
  }
  launchStrided(stridedKernel(formOf(op), kind), strided, count);
}

// Zeros of a tensor are found by a kernel that runs before anything is written.
void refuseZero(const OpCall& call, const Operand& divisor) {
  if (!divisor.view && std::trunc(divisor.number) == 0) throw divisionByZero(call.name);
}

}  // namespace

#include "../core/pointwise_calls.h"

// --- copies and numbers ---------------------------------------------------------------------------------------------

namespace {

// Whether a kernel for rows that are contiguous took the copy.
bool copyUnits(const Loop& loop, const TensorView& in, const TensorView& out, Kind kind) {
  static Kernel kernels[] = {{"pointwise_copy", "gradus_pointwise_copy_f32"},
                             {"pointwise_copy", "gradus_pointwise_copy_f64"},
                             {"pointwise_copy", "gradus_pointwise_copy_i64"}};
  if (loop.innerStride(0) != 1 || loop.innerStride(1) != 1) return false;
  PointwiseCopy copy{};
  copy.in = in.as<char>();
  copy.out = out.as<char>();
  copy.inDType = static_cast<int>(in.dtype);
  copy.outDType = static_cast<int>(out.dtype);
  copy.inner = static_cast<uint64_t>(loop.inner());
  copy.rank = loop.rank - 1;
  const uint64_t units = (copy.inner + kCopyUnit - 1) / kCopyUnit;
  const uint64_t count = static_cast<uint64_t>(loop.numel) / copy.inner * units;
  // short rows would leave most of their units' lanes empty
  if (count >= static_cast<uint64_t>(kMostElements) || (copy.rank > 0 && copy.inner < kCopyUnit)) return false;
  copy.count = static_cast<unsigned>(count);
  copy.units = dividerOf(static_cast<unsigned>(units));
  uintptr_t places[] = {reinterpret_cast<uintptr_t>(in.data), reinterpret_cast<uintptr_t>(out.data)};
  for (int d = 0; d < copy.rank; ++d) {
    copy.sizes[d] = dividerOf(static_cast<unsigned>(loop.sizes[d]));
    copy.inStrides[d] = loop.strides[1][d] * static_cast<int64_t>(itemSize(in.dtype));
    copy.outStrides[d] = loop.strides[0][d] * static_cast<int64_t>(itemSize(out.dtype));
    places[0] |= static_cast<uintptr_t>(copy.inStrides[d]);
    places[1] |= static_cast<uintptr_t>(copy.outStrides[d]);
  }
  const auto fits = [](uintptr_t place, DType dtype) {
    return place % std::min<size_t>(16, kCopyUnit * itemSize(dtype)) == 0;
  };
  if (!fits(places[0], in.dtype) || !fits(places[1], out.dtype)) return false;
  launch(currentDevice(), kernels[static_cast<int>(kind)], count, copy);
  return true;
}

// The bits of a number in a dtype, as often as eight bytes hold them.
unsigned long long patternOf(DType dtype, double value) {
  const auto repeated = [](auto bits) {
    unsigned long long pattern = 0;
    for (size_t at = 0; at < 8; at += sizeof bits) pattern |= static_cast<unsigned long long>(bits) << (8 * at);
    return pattern;
  };
  const float single = static_cast<float>(value);
  switch (dtype) {
    case DType::kFloat64:
      return bitCast<uint64_t>(value);
    case DType::kFloat16:
      return repeated(Narrow<Float16>::from(single).bits);
    case DType::kBFloat16:
      return repeated(Narrow<BFloat16>::from(single).bits);
    case DType::kInt64:
      return static_cast<uint64_t>(toInteger(value));
    case DType::kInt32:
      return repeated(static_cast<uint32_t>(toInteger(value)));
    case DType::kUint8:
      return repeated(static_cast<uint8_t>(toInteger(value)));
    case DType::kBool:
      return repeated(static_cast<uint8_t>(value != 0));
    default:
      return repeated(bitCast<uint32_t>(single));
  }
}

}  // namespace

void run_copy(const OpCall& call) {
  const TensorView &in = call.in[0], &out = call.out[0];
  if (out.numel == 0) return;
  if (in.dtype == out.dtype && in.contiguous && out.contiguous && in.numel == out.numel) {
    if (in.data != out.data) currentDevice().copyWithin(out.data, in.data, in.bytes());
    return;
  }
  const Operand operand{&in, 0};
  const Kind kind = in.dtype == DType::kFloat64 ? Kind::kDouble : isFloating(in.dtype) ? Kind::kFloat : Kind::kInteger;
  Strided strided = stridedOf(out, &operand, 1, kind);
  if (copyUnits(strided.loop, in, out, kind)) return;
  strided.arguments.op = kIdentity;
  launchStrided(stridedKernel(kUnary, kind), strided, 1);
}

void run_copyTwice(const OpCall& call) {
  OpCall second = call;
  second.out = call.out + 1;
  run_copy(call);
  run_copy(second);
}

void run_fill(const OpCall& call) {
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const double value = call.attr[0];
  // through float64, bool of 0.5 is true
  const bool exact = isIntegral(out.dtype) && value == std::trunc(value);
  const Kind kind = exact                                                   ? Kind::kInteger
                    : isFloating(out.dtype) && out.dtype != DType::kFloat64 ? Kind::kFloat
                                                                            : Kind::kDouble;
  if (out.contiguous) {
    static Kernel kernel("pointwise_copy", "gradus_pointwise_fill");
    const PointwiseFill arguments{out.as<char>(), out.bytes(), patternOf(out.dtype, value)};
    return launch(currentDevice(), kernel, std::max<uint64_t>(arguments.bytes / 16, 32), arguments);
  }
  const Operand operand{nullptr, value};
  Strided strided = stridedOf(out, &operand, 1, kind);
  strided.arguments.op = kIdentity;
  launchStrided(stridedKernel(kUnary, kind), strided, 1);
}

// In float64 for every floating dtype: start + i * step has one rounding to the dtype.
void run_arange(const OpCall& call) {
  static Kernel floating("pointwise_strided", "gradus_pointwise_arange_f64");
  static Kernel whole("pointwise_strided", "gradus_pointwise_arange_i64");
  const TensorView& out = call.out[0];
  GRADUS_CHECK(out.numel < kMostElements, ErrorCode::kShape, "arange: too many elements for cuda: got %lld",
               static_cast<long long>(out.numel));
  const Kind kind = isIntegral(out.dtype) ? Kind::kInteger : Kind::kDouble;
  Strided strided = stridedOf(out, nullptr, 0, kind);
  strided.arguments.p = numberOf(kind, call.attr[0]);
  strided.arguments.q = numberOf(kind, call.attr[1]);
  launchStrided(kind == Kind::kInteger ? whole : floating, strided, 0);
}

}  // namespace gradus::cuda
