// cudasimControl and its relatives for JavaScript:
//   control(words)  applies settings; throws for words that the simulator does not know
//   report()        its findings, a line each
//   failedCalls()   calls of the driver that returned an error, with the reason
//   counters()      JSON, see driver/control.h
#include "../driver/control.h"

#define NAPI_VERSION 9
#include <dlfcn.h>
#include <node_api.h>

#include <string>

namespace {

// Of the library that the program under test has loaded: it is found under the same name.
template <class Function>
Function* entry(napi_env env, const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  void* symbol = library ? dlsym(library, name) : nullptr;
  if (symbol == nullptr) napi_throw_error(env, nullptr, "cudasim: libcuda.so.1 is not the simulator's");
  return reinterpret_cast<Function*>(symbol);
}

napi_value text(napi_env env, const std::string& value) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

napi_value control(napi_env env, napi_callback_info info) {
  size_t count = 1, length = 0;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  if (count < 1 || napi_get_value_string_utf8(env, argument, nullptr, 0, &length) != napi_ok) {
    napi_throw_type_error(env, nullptr, "control: expected settings, name=value words");
    return nullptr;
  }
  std::string words(length, '\0');
  napi_get_value_string_utf8(env, argument, words.data(), length + 1, &length);
  const auto apply = entry<int(const char*)>(env, "cudasimControl");
  if (apply != nullptr && apply(words.c_str()) != 0) {
    napi_throw_error(env, nullptr, ("control: the simulator does not know a word of '" + words + "'").c_str());
  }
  return nullptr;
}

// What an entry point writes into a buffer. It may grow between two calls.
template <const char* const& name>
napi_value textOf(napi_env env, napi_callback_info) {
  const auto read = entry<size_t(char*, size_t)>(env, name);
  if (read == nullptr) return nullptr;
  std::string value;
  for (size_t needed = read(nullptr, 0); value.size() < needed + 1;) {
    value.resize(needed + 1);
    needed = read(value.data(), value.size());
  }
  return text(env, value.c_str());
}

constexpr const char* kReport = "cudasimReport";
constexpr const char* kFailedCalls = "cudasimFailedCalls";
constexpr const char* kCounters = "cudasimCounters";

}  // namespace

NAPI_MODULE_INIT() {
  const auto method = [](const char* name, napi_callback call) {
    return napi_property_descriptor{name, nullptr, call, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  };
  const napi_property_descriptor methods[] = {
      method("control", control),
      method("report", textOf<kReport>),
      method("failedCalls", textOf<kFailedCalls>),
      method("counters", textOf<kCounters>),
  };
  napi_define_properties(env, exports, sizeof methods / sizeof *methods, methods);
  return exports;
}
