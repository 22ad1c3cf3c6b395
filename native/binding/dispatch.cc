// The hot path. Everything travels in the environment's scratch buffer of doubles:
//
//   dispatch  in   op, context, nIn, nOut, nAttr, device, inputs..., outputs..., attributes...
//                  the device: its code; needed only where no operand exists yet, -1 else
//                  an input: a handle, or 0 where an optional one is absent
//                  an output: an existing handle (overwritten in place)
//                          or 0, dtype, rank, sizes...   (a new tensor)
//                          or -handle                    (an existing gradient, which fails with the operation)
//                          or -k, dtype                  (a new tensor with the sizes of input k - 1; k <= 4096)
//             out  the handles of the new outputs, in order
//   view      in   handle, storage offset, rank, sizes..., strides...      out  handle
//   transfer  in   handle, device            out  the handle of a copy there, contiguous
//   release   in   count, handles...
#include <algorithm>
#include <cmath>

#include "environment.h"

namespace gradus::binding {

int64_t readSize(double value, const char* what) {
  GRADUS_CHECK(value >= 0 && value <= 9007199254740992.0 && value == std::floor(value), ErrorCode::kShape,
               "%s: not a size: got %g, expected a whole number of at least 0", what, value);
  return static_cast<int64_t>(value);
}

DType readDType(double value) {
  GRADUS_CHECK(value >= 0 && value < kNumDTypes, ErrorCode::kDType, "tensor: unknown dtype %g", value);
  return static_cast<DType>(static_cast<int>(value));
}

void setLayout(TensorView& view, DType dtype, int rank, const double* sizes) {
  view.dtype = dtype;
  view.rank = static_cast<int8_t>(rank);
  // Strides as if empty dims were 1, as everywhere else. The limit holds for them too, so that no product of some of
  // the sizes overflows in a rule or a kernel.
  int64_t stride = 1;
  bool empty = false;
  for (int d = rank - 1; d >= 0; --d) {
    const int64_t size = readSize(sizes[d], "tensor");
    view.sizes[d] = size;
    view.strides[d] = stride;
    empty |= size == 0;
    GRADUS_CHECK(!__builtin_mul_overflow(stride, std::max<int64_t>(size, 1), &stride) && stride <= (int64_t{1} << 48),
                 ErrorCode::kShape, "tensor: too many elements: a size of the shape is %lld",
                 static_cast<long long>(size));
  }
  view.numel = empty ? 0 : stride;
  view.contiguous = true;
}

Tensor* newTensor(Device& device) {
  auto storage = new Storage(&device);
  auto tensor = new Tensor;
  tensor->storage = storage;
  tensor->device = &device;
  return tensor;
}

void releaseAll(const std::vector<Tensor*>& tensors) {
  for (size_t from = 0, to; from < tensors.size(); from = to) {
    Device* device = tensors[from]->device;
    for (to = from + 1; to < tensors.size() && tensors[to]->device == device;) ++to;
    device->stream.release(tensors.data() + from, to - from);
  }
}

Device& readDevice(double value) {
  GRADUS_CHECK(value >= 0 && value < kDeviceKinds * 256, ErrorCode::kDevice, "device: no such device: got code %g",
               value);
  return deviceOf(static_cast<int>(value));
}

namespace {

constexpr int kMany = 4096;

class Cursor {
 public:
  explicit Cursor(const Environment& environment) : at_(environment.scratch), end_(at_ + environment.scratchLength) {}
  double next() {
    GRADUS_CHECK(at_ < end_, ErrorCode::kNative, "dispatch: the scratch buffer is too short");
    return *at_++;
  }
  const double* take(int64_t count) {
    GRADUS_CHECK(count >= 0 && count <= end_ - at_, ErrorCode::kNative, "dispatch: the scratch buffer is too short");
    const double* start = at_;
    at_ += count;
    return start;
  }

 private:
  const double* at_;
  const double* end_;
};

[[noreturn]] void refuseDevices(const OpInfo& info, const Device& first, const Device& other) {
  fail(ErrorCode::kDevice,
       "%s: operands are on different devices: got %s and %s, expected one device; move one of them with to('%s').",
       info.name, first.name.c_str(), other.name.c_str(), first.name.c_str());
}

// Of another device it would run once, now, and in no replay.
[[noreturn]] void refuseBesideCapture(const OpInfo& info, const Device& captured, const Device& other) {
  fail(
      ErrorCode::kState,
      "%s: a graph is being captured on %s: got an operation on %s, which a replay would not repeat, expected those of "
      "%s; move its operands there before, or call it beside replay()",
      info.name, captured.name.c_str(), other.name.c_str(), captured.name.c_str());
}

int countIn(double value, int most, const char* what) {
  GRADUS_CHECK(value >= 0 && value <= most, ErrorCode::kNative, "dispatch: %s: got %g, expected 0 to %d", what, value,
               most);
  return static_cast<int>(value);
}

int rankOf(double value) {
  GRADUS_CHECK(value >= 0 && value <= kMaxRank, ErrorCode::kShape, "tensor: too many dims: got %g, expected at most %d",
               value, kMaxRank);
  return static_cast<int>(value);
}

// Deletes the outputs made so far when a rule refuses the call.
class FreshOutputs {
 public:
  explicit FreshOutputs(std::vector<Tensor*>& out, const Output* kinds) : out_(out), kinds_(kinds) {}
  ~FreshOutputs() {
    if (kept_) return;
    for (size_t i = 0; i < out_.size(); ++i) {
      if (kinds_[i] == Output::kNew && out_[i]) {
        delete out_[i]->storage;
        delete out_[i];
      }
    }
  }
  void keep() { kept_ = true; }

 private:
  std::vector<Tensor*>& out_;
  const Output* kinds_;
  bool kept_ = false;
};

// Threads would write different values to one element of an expanded view. Dims in the order of their strides must each
// step over all that the smaller ones span; every slice, transpose and flip of a tensor does.
void checkTarget(const OpInfo& info, const TensorView& view) {
  if (view.contiguous || view.numel <= 1) return;
  int64_t steps[kMaxRank], spans[kMaxRank];
  int rank = 0;
  for (int d = 0; d < view.rank; ++d) {
    if (view.sizes[d] == 1) continue;
    const int64_t step = std::abs(view.strides[d]);
    int at = rank++;
    for (; at > 0 && steps[at - 1] > step; --at) {
      steps[at] = steps[at - 1];
      spans[at] = spans[at - 1];
    }
    steps[at] = step;
    spans[at] = step * (view.sizes[d] - 1);
  }
  int64_t span = 0;
  for (int i = 0; i < rank; ++i) {
    GRADUS_CHECK(steps[i] > span, ErrorCode::kShape,
                 "%s: the output is an expanded view: got stride %lld, expected memory of its own for every element; "
                 "clone() it first",
                 info.name, static_cast<long long>(steps[i]));
    span += spans[i];
  }
}

void dispatchCall(Environment& environment) {
  Cursor cursor(environment);
  const int op = countIn(cursor.next(), kNumOps - 1, "op");
  const uint32_t context = static_cast<uint32_t>(countIn(cursor.next(), INT32_MAX, "context"));
  const int nIn = countIn(cursor.next(), kMany, "inputs");
  const int nOut = countIn(cursor.next(), kMany, "outputs");
  const int nAttr = countIn(cursor.next(), kMaxAttrs, "attributes");
  const double place = cursor.next();
  const OpInfo& info = opInfo(op);
  GRADUS_CHECK(nIn >= info.fewestInputs && nIn <= info.mostInputs && nAttr == info.attributeCount &&
                   (info.outputs == kMany ? nOut >= 1 : nOut == info.outputs),
               ErrorCode::kNative, "%s: got %d inputs, %d outputs and %d attributes", info.name, nIn, nOut, nAttr);

  auto& in = environment.in;
  auto& out = environment.out;
  in.resize(nIn);
  out.assign(nOut, nullptr);
  static thread_local Output kinds[kMany];
  static thread_local std::vector<TensorView> inViews, outViews;
  if (inViews.size() < static_cast<size_t>(nIn)) inViews.resize(nIn);
  if (outViews.size() < static_cast<size_t>(nOut)) outViews.resize(nOut);
  const double* handles = cursor.take(nIn);
  Device* device = nullptr;
  const auto meet = [&](const Tensor* tensor) {
    if (device == tensor->device) return;
    if (device != nullptr) refuseDevices(info, *device, *tensor->device);
    device = tensor->device;
  };
  for (int i = 0; i < nIn; ++i) {
    in[i] = handles[i] == 0 ? nullptr : environment.find(handles[i], info.name);
    if (in[i]) {
      meet(in[i]);
      inViews[i] = in[i]->view;
    } else {
      inViews[i].rank = -1;
    }
  }
  std::fill_n(kinds, nOut, Output::kNew);
  FreshOutputs fresh(out, kinds);
  for (int i = 0; i < nOut; ++i) {
    const double kind = cursor.next();
    if (kind > 0 || kind < -kMany) {
      out[i] = environment.find(std::abs(kind), info.name);
      kinds[i] = kind > 0 ? Output::kExisting : Output::kGradient;
      meet(out[i]);
      checkTarget(info, out[i]->view);
      outViews[i] = out[i]->view;
    } else {
      const DType dtype = readDType(cursor.next());
      TensorView& view = outViews[i] = {};
      if (kind < 0) {
        const int like = countIn(-kind - 1, nIn - 1, "output");
        GRADUS_CHECK(in[like], ErrorCode::kNative, "%s: an output is shaped like an absent input", info.name);
        const TensorView& source = inViews[like];
        view.rank = source.rank;
        view.numel = source.numel;
        view.dtype = dtype;
        view.contiguous = true;
        int64_t stride = 1;
        for (int d = source.rank - 1; d >= 0; --d) {
          view.sizes[d] = source.sizes[d];
          view.strides[d] = stride;
          stride *= source.sizes[d] > 0 ? source.sizes[d] : 1;
        }
      } else {
        const int rank = rankOf(cursor.next());
        setLayout(view, dtype, rank, cursor.take(rank));
      }
      if (device == nullptr) device = &readDevice(place);
      // Written whole and not read back: its memory is still in the cache of the thread that ended the tensor before.
      out[i] = newTensor(*device);
      out[i]->view = view;
      out[i]->storage->bytes = view.bytes();
    }
  }
  GRADUS_CHECK(device, ErrorCode::kNative, "%s: no tensor says on which device it runs", info.name);
  if (environment.capturing && device != environment.capturing) {
    refuseBesideCapture(info, *environment.capturing, *device);
  }
  double attributes[kMaxAttrs];
  std::copy_n(cursor.take(nAttr), nAttr, attributes);
  const OpCall call{info.name, inViews.data(), outViews.data(), attributes, nIn, nOut, nAttr, nullptr};
  info.rule(call);
  environment.handles.makeRoom(nOut);
  double* result = environment.scratch;
  for (int i = 0; i < nOut; ++i) {
    if (kinds[i] == Output::kNew) *result++ = environment.handles.add(out[i]);
  }
  fresh.keep();
  device->stream.run(&environment.account, op, context, in.data(), nIn, out.data(), kinds, nOut, attributes, nAttr);
}

void makeView(Environment& environment) {
  Cursor cursor(environment);
  const Tensor* base = environment.find(cursor.next(), "view");
  const int64_t offset = readSize(cursor.next(), "view");
  const int rank = rankOf(cursor.next());
  const double* sizes = cursor.take(rank);
  const double* strides = cursor.take(rank);
  auto tensor = std::make_unique<Tensor>();
  TensorView& view = tensor->view;
  setLayout(view, base->view.dtype, rank, sizes);
  int64_t lowest = offset, highest = offset, expected = 1;
  for (int d = rank - 1; d >= 0; --d) {
    GRADUS_CHECK(std::abs(strides[d]) <= static_cast<double>(int64_t{1} << 48), ErrorCode::kShape,
                 "view: stride %g is out of range", strides[d]);
    const int64_t stride = static_cast<int64_t>(strides[d]), size = view.sizes[d];
    view.strides[d] = stride;
    if (size != 1 && stride != expected && view.numel > 0) view.contiguous = false;
    expected *= size;
    if (size > 1) {
      int64_t span;
      GRADUS_CHECK(!__builtin_mul_overflow(stride, size - 1, &span) && std::abs(span) <= (int64_t{1} << 50),
                   ErrorCode::kShape, "view: stride %lld is out of range", static_cast<long long>(stride));
      (span < 0 ? lowest : highest) += span;
    }
  }
  const int64_t elements = static_cast<int64_t>(base->storage->bytes / itemSize(view.dtype));
  GRADUS_CHECK(view.numel == 0 || (lowest >= 0 && highest < elements), ErrorCode::kShape,
               "view: leaves its storage: elements %lld to %lld of %lld", static_cast<long long>(lowest),
               static_cast<long long>(highest), static_cast<long long>(elements));
  tensor->offset = view.numel > 0 ? offset : 0;  // of an empty view it may lie outside
  tensor->storage = base->storage;
  tensor->device = base->device;
  const double handle = environment.handles.add(tensor.get());
  base->storage->references.fetch_add(1, std::memory_order_relaxed);
  tensor.release();
  environment.scratch[0] = handle;
}

}  // namespace

napi_value dispatch(napi_env env, napi_callback_info info) {
  Environment* environment = environmentOf(env, info);
  return guarded(env, [&]() -> napi_value {
    dispatchCall(*environment);
    return nullptr;
  });
}

napi_value view(napi_env env, napi_callback_info info) {
  Environment* environment = environmentOf(env, info);
  return guarded(env, [&]() -> napi_value {
    makeView(*environment);
    return nullptr;
  });
}

napi_value release(napi_env env, napi_callback_info info) {
  Environment* environment = environmentOf(env, info);
  return guarded(env, [&]() -> napi_value {
    Cursor cursor(*environment);
    const int64_t count = readSize(cursor.next(), "release");
    const double* handles = cursor.take(count);
    auto& gone = environment->in;
    gone.clear();
    for (int64_t i = 0; i < count; ++i) {
      if (Tensor* tensor = environment->handles.remove(handles[i])) gone.push_back(tensor);
    }
    releaseAll(gone);
    return nullptr;
  });
}

}  // namespace gradus::binding
