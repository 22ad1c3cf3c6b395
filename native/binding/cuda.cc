// What JavaScript has of CUDA beyond tensors: marks in a stream (cuda.Event) and captured graphs (cuda.CUDAGraph). Both
// are external values, so that the collector lets go of them.
#include <cmath>
#include <cstring>

#include "../core/parcel.h"
#include "../cuda/graph.h"
#include "../cuda/mark.h"
#include "../cuda/nvtx.h"
#include "pending.h"

namespace gradus::binding {
namespace {

using cuda::CudaDevice;
using cuda::Graph;
using cuda::GraphCells;
using cuda::Mark;

CudaDevice& cudaArgument(napi_env env, napi_value value, const char* what) {
  Device& device = deviceArgument(env, value);
  GRADUS_CHECK(device.kind == DeviceKind::kCuda, ErrorCode::kDevice, "%s: not a CUDA device: got %s, expected cuda:0",
               what, device.name.c_str());
  return static_cast<CudaDevice&>(device);
}

template <class T>
napi_value makeExternal(napi_env env, std::unique_ptr<T> held) {
  napi_value external = nullptr;
  const auto release = [](napi_env, void* data, void*) { delete static_cast<T*>(data); };
  if (napi_create_external(env, held.get(), release, nullptr, &external) == napi_ok) held.release();
  return external;
}

template <class T>
T& external(napi_env env, napi_value value, const char* what) {
  void* data = nullptr;
  GRADUS_CHECK(napi_get_value_external(env, value, &data) == napi_ok && data, ErrorCode::kNative,
               "%s: not a value of the addon's", what);
  return *static_cast<T*>(data);
}

// --- marks ----------------------------------------------------------------------------------------------------------

struct HeldMark {
  std::shared_ptr<Mark> mark;
  CudaDevice* device;
};

// --- graphs ---------------------------------------------------------------------------------------------------------

// The graph goes in the order of its device, behind the replays that are queued.
struct HeldGraph {
  CudaDevice* device;
  std::shared_ptr<Graph> graph;

  ~HeldGraph() {
    if (graph) reset();
  }
  void reset() {
    device->stream.call([device = device, graph = std::move(graph)] { device->close(graph); });
    graph = nullptr;
  }
};

// Runs a function on the device's executor and waits for it; throws what it throws.
void runAndWait(CudaDevice& device, const std::function<void()>& function) {
  Blocking blocking;
  device.stream.call([&] {
    try {
      function();
      blocking.done(nullptr);
    } catch (const Error& error) {
      blocking.done(std::make_shared<Failure>(Failure{error.code(), error.what(), 0}));
    }
  });
  if (const auto failure = blocking.wait()) throw Error(failure->code, failure->message);
}

}  // namespace

// cudaMemory(device): leaves the bytes that the driver could still give, and all of the device, in the scratch buffer.
napi_value cudaMemory(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    const auto [free, total] = cudaArgument(env, args[0], "cuda.memGetInfo").memorySource.freeAndTotal();
    environment->scratch[0] = static_cast<double>(free);
    environment->scratch[1] = static_cast<double>(total);
    return nullptr;
  });
}

// markRecord(device, isTimed): a point behind everything that is queued on it.
napi_value markRecord(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Environment* environment = environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    CudaDevice& device = cudaArgument(env, args[0], "Event.record");
    GRADUS_CHECK(!device.isCapturing, ErrorCode::kState,
                 "Event.record: a graph is being captured on %s: got an event inside of it, expected one before or "
                 "after a replay",
                 device.name.c_str());
    bool isTimed = false;
    napi_get_value_bool(env, args[1], &isTimed);
    auto mark = std::make_shared<Mark>(device.opened, isTimed);
    device.stream.call([&device, mark, account = &environment->account] {
      try {
        device.record(mark);
      } catch (const Error& error) {
        auto failure = std::make_shared<Failure>(Failure{error.code(), error.what(), 0});
        account->note(device, failure);
        mark->reach(failure);
      }
    });
    return makeExternal(env, std::make_unique<HeldMark>(HeldMark{std::move(mark), &device}));
  });
}

// markReached(mark): whether everything before it has run.
napi_value markReached(napi_env env, napi_callback_info info) {
  napi_value args[1];
  environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    napi_value result = nullptr;
    std::shared_ptr<const Failure> failure;
    const bool isReached = external<HeldMark>(env, args[0], "Event.query").mark->isReached(&failure);
    if (failure) throw Error(failure->code, failure->message);
    napi_get_boolean(env, isReached, &result);
    return result;
  });
}

// markPassed(mark): a promise that settles when everything before it has run.
napi_value markPassed(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    const std::shared_ptr<Mark> mark = external<HeldMark>(env, args[0], "Event.synchronize").mark;
    napi_value promise = nullptr;
    PendingRead* pending = makePending(env, environment, &promise);
    if (pending == nullptr) return nullptr;
    mark->wait(pending);
    return promise;
  });
}

// markElapsed(first, second): milliseconds between two marks that are reached.
napi_value markElapsed(napi_env env, napi_callback_info info) {
  napi_value args[2];
  environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    const auto &first = external<HeldMark>(env, args[0], "Event.elapsedTime"),
               &second = external<HeldMark>(env, args[1], "Event.elapsedTime");
    GRADUS_CHECK(first.device == second.device, ErrorCode::kDevice,
                 "Event.elapsedTime: events are on different devices: got %s and %s, expected one device",
                 first.device->name.c_str(), second.device->name.c_str());
    napi_value result = nullptr;
    napi_create_double(env, first.mark->until(*second.mark), &result);
    return result;
  });
}

// graphBegin(device): from here until graphEnd operations of this environment on the device are captured.
napi_value graphBegin(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    CudaDevice& device = cudaArgument(env, args[0], "CUDAGraph.capture");
    GRADUS_CHECK(!device.isCapturing.exchange(true), ErrorCode::kState,
                 "CUDAGraph.capture: a graph is being captured on %s: got another capture, expected one at a time",
                 device.name.c_str());
    auto held = std::make_unique<HeldGraph>(HeldGraph{&device, std::make_shared<Graph>(device, &environment->account)});
    try {
      runAndWait(device, [&] { held->graph->begin(); });
    } catch (...) {
      device.isCapturing = false;
      throw;
    }
    environment->capturing = &device;
    environment->refused.clear();
    return makeExternal(env, std::move(held));
  });
}

// graphEnd(graph, isWanted): false where the captured function has thrown.
napi_value graphEnd(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Environment* environment = environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    environment->capturing = nullptr;
    auto& held = external<HeldGraph>(env, args[0], "CUDAGraph.capture");
    bool isWanted = false;
    napi_get_value_bool(env, args[1], &isWanted);
    GRADUS_CHECK(held.graph && held.device->isCapturing, ErrorCode::kNative, "CUDAGraph.capture: nothing is captured");
    struct Ends {
      CudaDevice& device;
      ~Ends() { device.isCapturing = false; }
    } ends{*held.device};
    const bool isWhole = environment->refused.empty();
    runAndWait(*held.device, [&] { isWanted&& isWhole ? held.graph->end() : held.graph->abandon(); });
    if (isWanted && !isWhole) throw Error(ErrorCode::kState, environment->refused);
    return nullptr;
  });
}

// graphReplay(graph, seed, moved, rates): queues a replay with these numbers in its cells.
napi_value graphReplay(napi_env env, napi_callback_info info) {
  napi_value args[4];
  environmentOf(env, info, 4, args);
  return guarded(env, [&]() -> napi_value {
    auto& held = external<HeldGraph>(env, args[0], "CUDAGraph.replay");
    GRADUS_CHECK(held.graph, ErrorCode::kNative, "CUDAGraph.replay: the graph was reset");
    GRADUS_CHECK(!held.device->isCapturing, ErrorCode::kState,
                 "CUDAGraph.replay: a graph is being captured on %s: got the replay of another in it, expected one "
                 "before or after; capture what both do as one function",
                 held.device->name.c_str());
    double seed = 0, moved = 0;
    napi_get_value_double(env, args[1], &seed);
    napi_get_value_double(env, args[2], &moved);
    napi_typedarray_type type;
    size_t count = 0;
    void* rates = nullptr;
    const napi_status status = napi_get_typedarray_info(env, args[3], &type, &count, &rates, nullptr, nullptr);
    GRADUS_CHECK(
        status == napi_ok && type == napi_float64_array && count <= cuda::kMostRates && std::abs(moved) < 0x1p63,
        ErrorCode::kNative, "CUDAGraph.replay: not the numbers of a graph");
    auto parcel = std::make_shared<Parcel>(*held.device, sizeof(GraphCells), 0);
    auto* cells = static_cast<GraphCells*>(parcel->data());
    std::memset(cells, 0, sizeof *cells);
    cells->philox = {static_cast<unsigned long long>(seed),
                     static_cast<unsigned long long>(static_cast<long long>(moved))};  // back, it wraps
    if (count > 0) std::memcpy(cells->rates, rates, count * sizeof(double));
    held.device->stream.call([graph = held.graph, parcel] { graph->replay(parcel); });
    return nullptr;
  });
}

// graphReset(graph): gives back what it holds.
napi_value graphReset(napi_env env, napi_callback_info info) {
  napi_value args[1];
  environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    auto& held = external<HeldGraph>(env, args[0], "CUDAGraph.reset");
    if (held.graph) held.reset();
    return nullptr;
  });
}

// nvtx(device, what, message): 0 begins a range, 1 ends the innermost, 2 marks a point; for profilers, on the thread
// that launches the device's kernels and in their order.
napi_value nvtx(napi_env env, napi_callback_info info) {
  napi_value args[3];
  environmentOf(env, info, 3, args);
  return guarded(env, [&]() -> napi_value {
    CudaDevice& device = cudaArgument(env, args[0], "nvtx");
    if (!cuda::nvtx::isWatched()) return nullptr;
    int32_t what = -1;
    napi_get_value_int32(env, args[1], &what);
    if (what == 1) {
      device.stream.call([] { cuda::nvtx::rangePop(); });
      return nullptr;
    }
    size_t length = 0;
    GRADUS_CHECK(napi_get_value_string_utf8(env, args[2], nullptr, 0, &length) == napi_ok, ErrorCode::kNative,
                 "nvtx: not a text");
    std::string message(length, 0);
    napi_get_value_string_utf8(env, args[2], message.data(), length + 1, &length);
    device.stream.call([what, message = std::move(message)] {
      what == 0 ? cuda::nvtx::rangePush(message.c_str()) : cuda::nvtx::mark(message.c_str());
    });
    return nullptr;
  });
}

}  // namespace gradus::binding
