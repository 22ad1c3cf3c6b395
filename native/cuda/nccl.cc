#include "nccl.h"

#include <dlfcn.h>

#include <cstdlib>
#include <optional>
#include <string_view>

namespace gradus::cuda {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";
constexpr const char* kSetting = "GRADUS_NCCL";
constexpr const char* kInstall =
    "install it (pip install nvidia-nccl-cu13, or apt install libnccl2), and name its file in GRADUS_NCCL where the "
    "loader does not find it";
constexpr int kLeastVersion = 21300;  // 2.13.0: the first that tells its last error

struct Found {
  std::string name;  // of the file
  std::optional<Nccl> functions;
  std::optional<Error> refused;
};

std::string textOf(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

void refuse(Found& found, const std::string& text) {
  if (!found.refused) found.refused = Error(ErrorCode::kDevice, "nccl: " + text);
}

Found look() {
  Found found;
  const char* setting = std::getenv(kSetting);
  const bool isNamed = setting != nullptr && *setting != 0;
  found.name = isNamed ? setting : kLibrary;
  if (isNamed && std::string_view(setting) == "0") {
    refuse(found, std::string("NCCL is turned off: got ") + kSetting + "=0; unset it.");
    return found;
  }
  void* library = dlopen(found.name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const std::string why = dlerror();
    refuse(found, isNamed ? std::string("no NCCL: got ") + kSetting + "=" + setting + " (" + why +
                                "), expected the library's file; unset it, or name libnccl.so.2."
                          : "no NCCL: got \"" + why + "\", expected " + kLibrary + "; " + kInstall + ".");
    return found;
  }
  const auto lookUp = [&](const char* symbol) {
    void* function = dlsym(library, symbol);
    if (function == nullptr) {
      refuse(found, "NCCL is not usable: got " + found.name + " without " + symbol + ", expected NCCL " +
                        textOf(kLeastVersion) + " or newer; update it, or unset " + kSetting + ".");
    }
    return function;
  };
  Nccl functions;
#define GRADUS_NCCL_LOOKUP(name, symbol, result, parameters) \
  functions.name = reinterpret_cast<decltype(functions.name)>(lookUp(#symbol));
  GRADUS_NCCL_FUNCTIONS(GRADUS_NCCL_LOOKUP)
#undef GRADUS_NCCL_LOOKUP
  if (found.refused) return found;
  if (functions.getVersion(&functions.version) != kNcclSuccess) functions.version = 0;
  if (functions.version < kLeastVersion) {  // before 2.9 they counted otherwise, and less
    refuse(found, "NCCL is too old: got version code " + std::to_string(functions.version) + " (" + found.name +
                      "), expected " + textOf(kLeastVersion) + " or newer; update it.");
    return found;
  }
  found.functions = functions;
  return found;
}

const Found& found() {
  static const Found* const once = new Found(look());  // never freed: threads of devices outlive static objects
  return *once;
}

// What can be done about an error beyond reading its name.
const char* remedyFor(NcclResult result) {
  switch (result) {
    case kNcclCudaError:
      return "cuda.synchronize() of each device says whether one was lost; NCCL_DEBUG=WARN prints more";
    case kNcclSystemError:
      return "a frequent reason is too little shared memory (docker run --shm-size=1g); NCCL_DEBUG=WARN prints more";
    case kNcclRemoteError:
      return "another device or its process is gone; NCCL_DEBUG=WARN prints more";
    default:
      return "NCCL_DEBUG=WARN prints more";
  }
}

}  // namespace

const Nccl& nccl() {
  if (found().refused) throw *found().refused;
  return *found().functions;
}

std::string describeNccl() {
  const Found& library = found();
  if (library.functions) return "NCCL " + textOf(library.functions->version) + " (" + library.name + ")";
  return std::string(library.refused->what()).substr(sizeof "nccl: " - 1);
}

void failNccl(NcclResult result, const char* call, NcclCommunicator* communicator) {
  const Nccl& library = nccl();
  const char *text = library.getErrorString(result), *last = library.getLastError(communicator);
  const bool hasLast = last != nullptr && *last != 0;
  fail(ErrorCode::kNative, "nccl: %s failed: got \"%s\" (%d%s%s) from %s; %s.", call, text ? text : "an unknown error",
       result, hasLast ? ": " : "", hasLast ? last : "", describeNccl().c_str(), remedyFor(result));
}

}  // namespace gradus::cuda
