#include "backend.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace gradus {

namespace rules {
#define GRADUS_OP(name, fewest, most, outputs, attributes) void rule_##name(const OpCall&);
#include "../ops.def"
#undef GRADUS_OP
}  // namespace rules

namespace {

constexpr int countNames(const char* list) {
  if (*list == 0) return 0;
  int count = 1;
  for (; *list; ++list) count += *list == ',';
  return count;
}

constexpr OpInfo kOps[] = {
#define GRADUS_OP(name, fewest, most, outputs, attributes) \
  {#name, attributes, fewest, most, outputs, countNames(attributes), rules::rule_##name},
#include "../ops.def"
#undef GRADUS_OP
};

const Backend& load() {
  // An idle libgomp pool would burn 8 to 13 ms of a core after each parallel region, in a process whose other work
  // we are a guest of; told to sleep it costs 0.1 ms. It reads the variable when it loads, which is now.
  setenv("GOMP_SPINCOUNT", "2000", 0);
  Dl_info self;
  GRADUS_CHECK(dladdr(reinterpret_cast<void*>(&load), &self) != 0 && self.dli_fname, ErrorCode::kNative,
               "backend: cannot find the addon's own path");
  std::string path(self.dli_fname);
  path = path.substr(0, path.find_last_of('/') + 1) + "gradus_cpu.so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  GRADUS_CHECK(library, ErrorCode::kNative, "backend: cannot load the CPU backend: got \"%s\"", dlerror());
  auto entry = reinterpret_cast<const Backend* (*)()>(dlsym(library, "gradusCpuBackend"));
  GRADUS_CHECK(entry, ErrorCode::kNative, "backend: %s has no entry point; reinstall or rebuild", path.c_str());
  const Backend* backend = entry();
  GRADUS_CHECK(backend->version == kBackendVersion, ErrorCode::kNative,
               "backend: versions differ: got %d, expected %d; reinstall or rebuild", backend->version,
               kBackendVersion);
  return *backend;
}

}  // namespace

const OpInfo& opInfo(int id) { return kOps[id]; }

const Backend& cpuBackend() {
  static const Backend& backend = load();
  return backend;
}

}  // namespace gradus
