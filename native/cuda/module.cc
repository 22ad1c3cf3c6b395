#include "module.h"

#include <cstring>

#include "device.h"

namespace gradus::cuda {
namespace {

// Without asking, a block may have 48 KB of shared memory, and what a kernel itself declares counts too.
constexpr unsigned kSharedBytesUnasked = 48 << 10, kSharedBytesOfItsOwn = 1 << 10;

// A cubin runs on its own architecture and on later minor versions of it; PTX on every later one.
const Blob* bestOf(const char* family, int architecture) {
  const Blob* best = nullptr;
  const BlobTable& table = blobTable();
  for (const Blob* each = table.blobs; each < table.blobs + table.count; ++each) {
    if (std::strcmp(each->family, family) != 0) continue;
    const bool fits =
        each->architecture == 0 || (each->architecture / 10 == architecture / 10 && each->architecture <= architecture);
    if (fits && (best == nullptr || each->architecture > best->architecture)) best = each;
  }
  return best;
}

const Blob* ptxOf(const char* family) { return bestOf(family, 0); }

Result loadBlob(const Blob& blob, Module* module, std::string& log) {
  char text[2048] = "";
  int options[] = {kJitErrorLog, kJitErrorLogBytes};
  void* values[] = {text, reinterpret_cast<void*>(sizeof text)};
  const Result result = driver().moduleLoadDataEx(module, blob.begin, 2, options, values);
  text[sizeof text - 1] = 0;
  log = text;
  return result;
}

}  // namespace

Module Modules::moduleOf(const char* family, int architecture) {
  for (const Loaded& each : loaded_) {
    if (std::strcmp(each.family, family) == 0) return each.module;
  }
  const Blob* blob = bestOf(family, architecture);
  GRADUS_CHECK(blob, ErrorCode::kNative, "cuda: this build has no kernels of \"%s\"; build with nvcc on the PATH",
               family);
  Module module = nullptr;
  std::string log;
  Result result = loadBlob(*blob, &module, log);
  if (result != kSuccess && blob->architecture != 0) {  // a driver without support for the cubin may compile the PTX
    if (const Blob* ptx = ptxOf(family)) result = loadBlob(*ptx, &module, log);
  }
  if (result != kSuccess) {
    const std::string what = "cuModuleLoadDataEx of \"" + std::string(family) + "\"" + (log.empty() ? "" : ", " + log);
    failCall(result, what.c_str());
  }
  loaded_.push_back({family, module});
  return module;
}

Function Modules::find(const char* family, const char* name, int architecture) {
  std::lock_guard lock(mutex_);
  Function function = nullptr;
  const Result result = driver().moduleGetFunction(&function, moduleOf(family, architecture), name);
  if (result != kSuccess) failCall(result, (std::string("cuModuleGetFunction of ") + name).c_str());
  return function;
}

Function Kernel::on(CudaDevice& device) {
  std::atomic<Function>& slot = found_[device.index];
  Function function = slot.load(std::memory_order_acquire);
  if (function == nullptr) {
    function = device.modules.find(family_, name_.c_str(), device.opened.architecture);
    const unsigned most = sharedBytes + kSharedBytesOfItsOwn;
    if (most > kSharedBytesUnasked) {
      check(driver().funcSetAttribute(function, kMostDynamicSharedBytes, static_cast<int>(most)), "cuFuncSetAttribute");
    }
    slot.store(function, std::memory_order_release);
  }
  return function;
}

}  // namespace gradus::cuda
