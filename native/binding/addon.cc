// Registration and the life of an environment.
#include "environment.h"

namespace gradus::binding {

Environment* environmentOf(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  return static_cast<Environment*>(data);
}

Environment* environmentOf(napi_env env, napi_callback_info info, size_t count, napi_value* args) {
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, args, nullptr, &data);
  return static_cast<Environment*>(data);
}

napi_value makeFailure(napi_env env, ErrorCode code, const char* message, uint32_t context) {
  napi_value result = nullptr, value = nullptr;
  if (napi_create_array_with_length(env, 3, &result) != napi_ok) return nullptr;
  napi_create_uint32(env, static_cast<uint32_t>(code), &value);
  napi_set_element(env, result, 0, value);
  napi_create_string_utf8(env, message, NAPI_AUTO_LENGTH, &value);
  napi_set_element(env, result, 1, value);
  napi_create_uint32(env, context, &value);
  napi_set_element(env, result, 2, value);
  return result;
}

namespace {

class Drained final : public Completion {
 public:
  void done(std::shared_ptr<const Failure>) noexcept override {
    std::lock_guard lock(mutex_);
    done_ = true;
    signal_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    signal_.wait(lock, [this] { return done_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable signal_;
  bool done_ = false;
};

// Waits until the executors have passed everything that this environment queued.
void passAll(Environment* environment) {
  forEachDevice([&](Device& device) {
    Drained drained;
    device.stream.fence(&environment->account, &drained);
    drained.wait();
  });
}

// leave(skips): the process is about to end. Node ends it by exit() without the hook below, and executors that were at
// work in a library would then meet what its destructors left. Waits for them; `skips`: they leave out what is queued.
napi_value leave(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    bool skips = false;
    napi_get_value_bool(env, args[0], &skips);
    if (skips) environment->account.cancelled = true;
    passAll(environment);
    return nullptr;
  });
}

// The environment is going (a worker ended, or there was nothing left to do): skip what it queued, drop its tensors,
// and wait until the executors have passed both, so that nothing refers to this environment afterwards.
void cleanUp(void* data) {
  auto environment = static_cast<Environment*>(data);
  environment->account.cancelled = true;
  environment->endLog();
  const std::vector<Tensor*> all = environment->handles.takeAll();
  releaseAll(all);
  passAll(environment);
  abandonPending(environment);
  napi_release_threadsafe_function(environment->settle, napi_tsfn_abort);
  delete environment;
}

napi_value setScratch(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    napi_typedarray_type type;
    size_t length;
    void* data;
    const napi_status status = napi_get_typedarray_info(env, args[0], &type, &length, &data, nullptr, nullptr);
    GRADUS_CHECK(status == napi_ok && type == napi_float64_array && length >= 16384, ErrorCode::kNative,
                 "setScratch: expected a Float64Array of at least 16384 elements");
    if (environment->scratchRef) napi_delete_reference(env, environment->scratchRef);
    napi_create_reference(env, args[0], 1, &environment->scratchRef);
    environment->scratch = static_cast<double*>(data);
    environment->scratchLength = length;
    return nullptr;
  });
}

}  // namespace

napi_value initialize(napi_env env, napi_value exports) {
  auto environment = new Environment;
  environment->env = env;
  napi_value name;
  napi_create_string_utf8(env, "gradus", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, environment, settlePending,
                                  &environment->settle);
  napi_unref_threadsafe_function(env, environment->settle);
  napi_add_env_cleanup_hook(env, cleanUp, environment);

  const auto method = [&](const char* named, napi_callback callback) {
    return napi_property_descriptor{named, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, environment};
  };
  const napi_property_descriptor methods[] = {
      method("setScratch", setScratch),
      method("leave", leave),
      method("dispatch", dispatch),
      method("view", view),
      method("release", release),
      method("upload", upload),
      method("transfer", transfer),
      method("read", read),
      method("readSync", readSync),
      method("synchronize", synchronize),
      method("synchronizeSync", synchronizeSync),
      method("opTable", opTable),
      method("memoryStats", memoryStats),
      method("memoryControl", memoryControl),
      method("memoryNote", memoryNote),
      method("memoryEvents", memoryEvents),
      method("passed", passed),
      method("markRecord", markRecord),
      method("markReached", markReached),
      method("markPassed", markPassed),
      method("markElapsed", markElapsed),
      method("graphBegin", graphBegin),
      method("graphEnd", graphEnd),
      method("graphReplay", graphReplay),
      method("graphReset", graphReset),
      method("nvtx", nvtx),
      method("collective", collective),
      method("ncclVersion", ncclVersion),
      method("threads", threads),
      method("openDevice", openDevice),
      method("cudaMemory", cudaMemory),
      method("describeCuda", describeCuda),
      method("describeBlas", describeBlas),
      method("describeNccl", describeNccl),
      method("cudaImages", cudaImages),
      method("describe", describe),
  };
  napi_define_properties(env, exports, sizeof methods / sizeof *methods, methods);
  return exports;
}

}  // namespace gradus::binding

NAPI_MODULE_INIT() { return gradus::binding::initialize(env, exports); }
