// Moving elements between JavaScript memory and tensors, and waiting.
#include <cstring>
#include <memory>

#include "../core/parcel.h"
#include "../cuda/peer.h"
#include "pending.h"

namespace gradus::binding {

namespace {

struct HostBytes {
  void* data;
  size_t bytes;
};

HostBytes hostBytes(napi_env env, napi_value value, const char* what) {
  napi_typedarray_type type;
  HostBytes host{};
  size_t length;
  const napi_status status = napi_get_typedarray_info(env, value, &type, &length, &host.data, nullptr, nullptr);
  GRADUS_CHECK(status == napi_ok && type == napi_uint8_array, ErrorCode::kNative, "%s: expected a Uint8Array", what);
  host.bytes = length;
  return host;
}

// A new tensor, whose handle is left in the scratch buffer.
Tensor* addTensor(Environment& environment, Device& device, const TensorView& view) {
  environment.handles.makeRoom(1);
  Tensor* tensor = newTensor(device);
  tensor->view = view;
  tensor->storage->bytes = view.bytes();
  environment.scratch[0] = environment.handles.add(tensor);
  return tensor;
}

// While a graph is captured nothing runs, so there is nothing to read and nothing to wait for. The capture fails with
// it, too, where whoever asked does not look at the promise.
void refuseWhileCapturing(Environment& environment, const Device& device, const char* what) {
  if (!device.isCapturing.load(std::memory_order_relaxed)) return;
  const std::string text =
      std::string(what) + ": a graph is being captured on " + device.name +
      ": got a call that waits for it or brings it numbers of the host, expected operations on its "
      "tensors; make it before or after the captured function.";
  if (environment.capturing == &device && environment.refused.empty()) environment.refused = text;
  throw Error(ErrorCode::kState, text);
}

// Queued as two operations: what is not contiguous is packed where it is.
void copyToPeer(Account* account, Tensor* source, Tensor* target) {
  Stream& stream = source->device->stream;
  const auto release = [&stream](Tensor* tensor) { stream.release(&tensor, 1); };
  std::unique_ptr<Tensor, decltype(release)> packed(nullptr, release);
  if (!source->view.contiguous) {
    packed.reset(newTensor(*source->device));
    packed->view = target->view;
    packed->storage->bytes = target->storage->bytes;
    Tensor* out = packed.get();
    const Output kind = Output::kNew;
    stream.run(account, static_cast<int>(OpId::copy), 0, &source, 1, &out, &kind, 1, nullptr, 0);
  }
  queueMeeting(cuda::makePeerCopy(account, packed ? packed.get() : source, target));
}

}  // namespace

PendingRead* makePending(napi_env env, Environment* environment, napi_value* promise) {
  auto pending = new PendingRead;
  pending->environment = environment;
  if (napi_create_promise(env, &pending->deferred, promise) != napi_ok) {
    delete pending;
    return nullptr;
  }
  if (environment->pending.empty()) napi_ref_threadsafe_function(env, environment->settle);
  environment->pending.insert(pending);
  return pending;
}

void settlePending(napi_env env, napi_value, void*, void* data) {
  if (env == nullptr) return;  // the environment is going; abandonPending frees it
  auto pending = static_cast<PendingRead*>(data);
  Environment* environment = pending->environment;
  environment->pending.erase(pending);
  if (environment->pending.empty()) napi_unref_threadsafe_function(env, environment->settle);
  if (pending->target) napi_delete_reference(env, pending->target);
  napi_value value = nullptr;
  if (pending->failure) {
    napi_reject_deferred(env, pending->deferred, failureValue(env, *pending->failure));
  } else {
    napi_get_undefined(env, &value);
    napi_resolve_deferred(env, pending->deferred, value);
  }
  delete pending;
}

void abandonPending(Environment* environment) {
  for (PendingRead* pending : environment->pending) delete pending;
  environment->pending.clear();
}

// upload(bytes, aside): scratch holds device, dtype, rank, sizes...; leaves the handle. The bytes are copied before it
// returns.
napi_value upload(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Environment* environment = environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    const HostBytes host = hostBytes(env, args[0], "upload");
    const double* scratch = environment->scratch;
    Device& device = readDevice(scratch[0]);
    refuseWhileCapturing(*environment, device, "upload");
    const DType dtype = readDType(scratch[1]);
    const int64_t rank = readSize(scratch[2], "upload");
    GRADUS_CHECK(rank <= kMaxRank, ErrorCode::kShape, "tensor: too many dims: got %lld, expected at most %d",
                 static_cast<long long>(rank), kMaxRank);
    TensorView view;
    setLayout(view, dtype, static_cast<int>(rank), scratch + 3);
    GRADUS_CHECK(host.bytes == view.bytes(), ErrorCode::kShape, "upload: got %zu bytes, expected %zu", host.bytes,
                 view.bytes());
    auto parcel = std::make_shared<Parcel>(device, host.bytes, 0);
    napi_get_value_bool(env, args[1], &parcel->isAside);
    if (host.bytes > 0) std::memcpy(parcel->data(), host.data, host.bytes);
    parcel->fill(nullptr);
    Tensor* tensor = addTensor(*environment, device, view);
    device.stream.receive(&environment->account, tensor, std::move(parcel));
    return nullptr;
  });
}

// transfer(aside): scratch holds a handle and a device; leaves the handle of a contiguous copy there.
napi_value transfer(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    Tensor* source = environment->find(environment->scratch[0], "to");
    Device& device = readDevice(environment->scratch[1]);
    refuseWhileCapturing(*environment, *source->device, "to");
    refuseWhileCapturing(*environment, device, "to");
    TensorView view = source->view;
    double sizes[kMaxRank];
    std::copy_n(view.sizes, std::max<int>(view.rank, 0), sizes);
    setLayout(view, view.dtype, view.rank, sizes);
    if (cuda::arePeers(*source->device, device)) {
      copyToPeer(&environment->account, source, addTensor(*environment, device, view));
      return nullptr;
    }
    auto parcel = std::make_shared<Parcel>(device, view.bytes(), 0);
    napi_get_value_bool(env, args[0], &parcel->isAside);
    Tensor* tensor = addTensor(*environment, device, view);
    const std::lock_guard lock(acrossDevices());
    source->device->stream.send(&environment->account, source, parcel);
    device.stream.receive(&environment->account, tensor, std::move(parcel));
    return nullptr;
  });
}

// read(target, peeks): scratch holds the handle; a promise that settles when the elements stand in target. Whoever only
// peeks leaves it to others to hear what failed elsewhere.
napi_value read(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Environment* environment = environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    Tensor* tensor = environment->find(environment->scratch[0], "read");
    refuseWhileCapturing(*environment, *tensor->device, "read");
    const HostBytes host = hostBytes(env, args[0], "read");
    GRADUS_CHECK(host.bytes == tensor->view.bytes(), ErrorCode::kShape, "read: got room for %zu bytes, expected %zu",
                 host.bytes, tensor->view.bytes());
    napi_value promise = nullptr;
    PendingRead* pending = makePending(env, environment, &promise);
    if (pending == nullptr) return nullptr;
    napi_create_reference(env, args[0], 1, &pending->target);
    bool peeks = false;
    napi_get_value_bool(env, args[1], &peeks);
    Stream& stream = tensor->device->stream;
    peeks ? stream.peek(&environment->account, tensor, host.data, pending)
          : stream.read(&environment->account, tensor, host.data, pending);
    return promise;
  });
}

napi_value readSync(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    Tensor* tensor = environment->find(environment->scratch[0], "read");
    refuseWhileCapturing(*environment, *tensor->device, "read");
    const HostBytes host = hostBytes(env, args[0], "read");
    GRADUS_CHECK(host.bytes == tensor->view.bytes(), ErrorCode::kShape, "read: got room for %zu bytes, expected %zu",
                 host.bytes, tensor->view.bytes());
    Blocking blocking;
    tensor->device->stream.read(&environment->account, tensor, host.data, &blocking);
    const auto failure = blocking.wait();
    return failure ? failureValue(env, *failure) : nullptr;
  });
}

// synchronize(device): a promise that settles when everything queued on the device so far has run.
napi_value synchronize(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    Device& device = deviceArgument(env, args[0]);
    refuseWhileCapturing(*environment, device, "synchronize");
    napi_value promise = nullptr;
    PendingRead* pending = makePending(env, environment, &promise);
    if (pending == nullptr) return nullptr;
    device.stream.fence(&environment->account, pending);
    return promise;
  });
}

// passed(device): a promise that settles when everything queued so far has run, and reports no error.
napi_value passed(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    Device& device = deviceArgument(env, args[0]);
    refuseWhileCapturing(*environment, device, "synchronize");
    napi_value promise = nullptr;
    PendingRead* pending = makePending(env, environment, &promise);
    if (pending == nullptr) return nullptr;
    device.stream.pass(&environment->account, pending);
    return promise;
  });
}

napi_value synchronizeSync(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    Device& device = deviceArgument(env, args[0]);
    refuseWhileCapturing(*environment, device, "synchronize");
    Blocking blocking;
    device.stream.fence(&environment->account, &blocking);
    const auto failure = blocking.wait();
    return failure ? failureValue(env, *failure) : nullptr;
  });
}

}  // namespace gradus::binding
