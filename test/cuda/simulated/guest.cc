// Another library of the same process that uses CUDA, on Node's thread: which context is current there. For
// test/cuda/simulated/contexts.test.ts, which compiles it.
#include <dlfcn.h>
#include <node_api.h>

#include <cstdint>

namespace {

template <class F>
F symbol(const char* name) {
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  return reinterpret_cast<F>(dlsym(driver, name));
}

napi_value number(napi_env env, void* context) {
  napi_value result = nullptr;
  napi_create_double(env, static_cast<double>(reinterpret_cast<uintptr_t>(context)), &result);
  return result;
}

// use(index): makes the primary context of a device current, none for -1, and returns it.
napi_value use(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  int32_t index = -1;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_int32(env, argument, &index);
  void* context = nullptr;
  if (index >= 0) {
    symbol<int (*)(unsigned)>("cuInit")(0);
    symbol<int (*)(void**, int)>("cuDevicePrimaryCtxRetain")(&context, index);
  }
  symbol<int (*)(void*)>("cuCtxSetCurrent")(context);
  return number(env, context);
}

// current(): the context that is current there.
napi_value current(napi_env env, napi_callback_info) {
  void* context = nullptr;
  symbol<int (*)(void**)>("cuCtxGetCurrent")(&context);
  return number(env, context);
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "use", NAPI_AUTO_LENGTH, use, nullptr, &function);
  napi_set_named_property(env, exports, "use", function);
  napi_create_function(env, "current", NAPI_AUTO_LENGTH, current, nullptr, &function);
  napi_set_named_property(env, exports, "current", function);
  return exports;
}
