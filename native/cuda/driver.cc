#include "driver.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "module.h"

namespace gradus::cuda {
namespace {

thread_local int concerned = -1;

constexpr const char* kLibrary = "libcuda.so.1";
constexpr const char* kInstall = "install NVIDIA's driver, or run with --gpus all in a container";

// What can be done about an error beyond reading its name.
struct Remedy {
  Result result;
  const char* action;
};
constexpr Remedy kRemedies[] = {
    {2, "use a smaller batch, or see who else uses the device with nvidia-smi"},
    {46, "another process has the device for itself (nvidia-smi, compute mode); stop it or choose another device"},
    {209, "this build has no kernels for the device; build with nvcc 13 or newer"},
    {218, "the driver cannot compile this build's kernels; update the driver"},
    {222, "the driver is older than the compiler of this build's kernels; update the driver"},
    {700,
     "the device's context is lost: restart the process; GRADUS_NO_CUDA_MEMORY_CACHING=1 under compute-sanitizer "
     "shows where"},
    {716, "the device's context is lost: restart the process; compute-sanitizer shows where"},
    {719, "the device's context is lost: restart the process, and look for Xid in the kernel's log (dmesg)"},
    {802, "start NVIDIA's fabric manager"},
    {803, "the kernel module is of another version than the driver's library: reboot, or reload the nvidia modules"},
    {804, "forward compatibility is not supported on this device: remove the compat package, or update the driver"},
    {999, "look for Xid in the kernel's log (dmesg), and whether /dev/nvidia* can be opened"},
};

const char* remedyFor(Result result) {
  for (const Remedy& each : kRemedies) {
    if (each.result == result) return each.action;
  }
  return nullptr;
}

void* symbolOf(void* library, const char* symbol, const char* older) {
  void* found = dlsym(library, symbol);
  return found == nullptr && older != nullptr ? dlsym(library, older) : found;
}

Driver load() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    fail(ErrorCode::kDevice, "cuda: no NVIDIA driver: got \"%s\", expected %s; %s.", dlerror(), kLibrary, kInstall);
  }
  Driver driver;
#define GRADUS_CUDA_LOOKUP(name, symbol, older, parameters)                                                    \
  driver.name = reinterpret_cast<decltype(driver.name)>(symbolOf(library, #symbol, older));                    \
  GRADUS_CHECK(                                                                                                \
      driver.name, ErrorCode::kDevice,                                                                         \
      "cuda: the NVIDIA driver is too old: got one without %s, expected CUDA %s or newer; update the driver.", \
      #symbol, versionText(leastVersion()).c_str());
  GRADUS_CUDA_FUNCTIONS(GRADUS_CUDA_LOOKUP)
#undef GRADUS_CUDA_LOOKUP
  if (driver.driverGetVersion(&driver.version) != kSuccess) driver.version = 0;
  const Result result = driver.init(0);
  if (result == kNoDevice) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible != nullptr) {
      fail(ErrorCode::kDevice,
           "cuda: no device: got CUDA_VISIBLE_DEVICES=\"%s\", which hides all of them, expected the number of one; "
           "unset it, or set it to 0.",
           visible);
    }
    fail(ErrorCode::kDevice, "cuda: no device: got none from the driver (CUDA %s); see whether nvidia-smi lists one.",
         versionText(driver.version).c_str());
  }
  if (result != kSuccess) {
    const char* action = remedyFor(result);
    const char* name = nullptr;
    if (driver.getErrorName(result, &name) != kSuccess) name = "an unknown error";
    fail(ErrorCode::kDevice, "cuda: the NVIDIA driver (CUDA %s) does not start: got %s (%d) from cuInit; %s.",
         versionText(driver.version).c_str(), name, result, action ? action : "see whether nvidia-smi works");
  }
  GRADUS_CHECK(driver.version >= leastVersion(), ErrorCode::kDevice,
               "cuda: the NVIDIA driver is too old: got CUDA %s, expected %s or newer; update the driver.",
               versionText(driver.version).c_str(), versionText(leastVersion()).c_str());
  return driver;
}

}  // namespace

int leastVersion() {
  constexpr int kWithoutKernels = 12000;
  return blobTable().version > 0 ? blobTable().version : kWithoutKernels;
}

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

const Driver& driver() {
  static std::atomic<const Driver*> loaded{nullptr};
  if (const Driver* found = loaded.load(std::memory_order_acquire)) return *found;
  static std::mutex mutex;
  static const Error* refused = nullptr;  // never freed, like the driver: threads of devices outlive static objects
  std::lock_guard lock(mutex);
  if (refused != nullptr) throw *refused;
  if (loaded.load(std::memory_order_relaxed) == nullptr) {
    try {
      loaded.store(new Driver(load()), std::memory_order_release);
    } catch (const Error& error) {
      refused = new Error(error);
      throw;
    }
  }
  return *loaded.load(std::memory_order_relaxed);
}

int callsConcern(int device) { return std::exchange(concerned, device); }

std::string describeResult(Result result, const char* call) {
  const char *name = nullptr, *text = nullptr;
  if (driver().getErrorName(result, &name) != kSuccess || name == nullptr) name = "an unknown error";
  if (driver().getErrorString(result, &text) != kSuccess || text == nullptr) text = "no description";
  const std::string where = concerned >= 0 ? " on cuda:" + std::to_string(concerned) : "";
  std::string message = "cuda: " + std::string(call) + where + " failed: got " + name + " (" + std::to_string(result) +
                        ": " + text + ") from driver CUDA " + versionText(driver().version);
  if (const char* action = remedyFor(result)) message.append("; ").append(action);
  return message + ".";
}

void failCall(Result result, const char* call) { throw Error(ErrorCode::kNative, describeResult(result, call)); }

}  // namespace gradus::cuda
