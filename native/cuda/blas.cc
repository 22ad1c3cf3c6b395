#include "blas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <optional>
#include <string_view>

namespace gradus::cuda {
namespace {

constexpr const char* kLibrary = "libcublasLt.so.13";
constexpr const char* kSetting = "GRADUS_CUBLASLT";

struct Found {
  std::string name;  // of the file; or why there is none
  std::optional<Blas> functions;
  std::optional<Error> refused;
};

bool isOff(const char* setting) { return setting != nullptr && std::string_view(setting) == "0"; }

Found look() {
  Found found;
  const char* setting = std::getenv(kSetting);
  if (isOff(setting)) {
    found.name = std::string("turned off by ") + kSetting + "=0";
    return found;
  }
  void* library = nullptr;
  const auto open = [&](const char* name) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library != nullptr) found.name = name;
    return library != nullptr;
  };
  if (setting != nullptr && *setting != 0) {
    if (!open(setting)) {
      found.refused = Error(ErrorCode::kDevice, std::string("cuda: no cuBLASLt: got ") + kSetting + "=" + setting +
                                                    " (" + dlerror() + "), expected the library's file; unset it.");
      return found;
    }
  } else if (!open(kLibrary)) {
    found.name = std::string("not found (") + kLibrary + ")";
    return found;
  }
  const auto lookUp = [&](const char* symbol) {
    void* function = dlsym(library, symbol);
    if (function == nullptr && !found.refused) {
      found.refused = Error(ErrorCode::kDevice, "cuda: cuBLASLt is not usable: got " + found.name + " without " +
                                                    symbol + ", expected that of CUDA 13; update it, or set " +
                                                    kSetting + "=0 to multiply without it.");
    }
    return function;
  };
  Blas functions;
#define GRADUS_BLAS_LOOKUP(name, symbol, result, parameters) \
  functions.name = reinterpret_cast<decltype(functions.name)>(lookUp(#symbol));
  GRADUS_BLAS_FUNCTIONS(GRADUS_BLAS_LOOKUP)
#undef GRADUS_BLAS_LOOKUP
  if (found.refused) return found;
  found.functions = functions;
  return found;
}

const Found& found() {
  static const Found* const once = new Found(look());  // never freed: threads of devices outlive static objects
  return *once;
}

}  // namespace

const Blas* blas() {
  if (found().refused) throw *found().refused;
  return found().functions ? &*found().functions : nullptr;
}

std::string describeBlas() {
  const Found& library = found();
  if (library.refused) return library.refused->what();
  if (!library.functions) return "cuBLASLt " + library.name + ", products by gradus's own kernels";
  const size_t version = library.functions->getVersion();  // 10000 * major + 100 * minor + patch
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100) + " (" + library.name + ")";
}

void failBlas(BlasStatus status, const char* call) {
  size_t available = 0, total = 0;  // where the device is lost, that is what there is to say
  check(driver().memGetInfo(&available, &total), call);
  fail(ErrorCode::kNative, "cuda: %s failed: got %s (%d) from %s; set %s=0 to multiply without it.", call,
       blas()->getStatusName(status), status, describeBlas().c_str(), kSetting);
}

}  // namespace gradus::cuda
