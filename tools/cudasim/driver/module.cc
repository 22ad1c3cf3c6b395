// Modules: PTX is taken, machine code is refused, so that a caller's way to PTX is exercised.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "entry.h"

namespace cudasim::driver {

using namespace abi;

namespace {

// The newest PTX that a driver reads: 9.0 with CUDA 13.0. Minor versions do not go in step.
int newestPtx(int driverVersion) {
  const int major = driverVersion / 1000, minor = driverVersion % 1000 / 10;
  if (major >= 13) return 90 + minor + (major - 13) * 10;
  if (major < 12) return 70 + minor;
  constexpr int kTwelve[] = {80, 81, 82, 83, 84, 85, 85, 86, 87, 88};
  return kTwelve[std::min(minor, 9)];
}

// The buffers of cuModuleLoadDataEx. Sizes come in and go out as the pointer's own value.
class JitLog {
 public:
  JitLog(unsigned count, const CUjit_option* options, void** values) {
    require(count == 0 || (options && values), CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < count; ++i) {
      require(options[i] <= CU_JIT_LAST_KNOWN, CUDA_ERROR_INVALID_VALUE, "unknown option");
      switch (options[i]) {
        case CU_JIT_WALL_TIME: {
          const float milliseconds = 0;
          std::memcpy(&values[i], &milliseconds, sizeof milliseconds);
          break;
        }
        case CU_JIT_INFO_LOG_BUFFER:
          info_.text = static_cast<char*>(values[i]);
          break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
          info_.size = &values[i];
          break;
        case CU_JIT_ERROR_LOG_BUFFER:
          error_.text = static_cast<char*>(values[i]);
          break;
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
          error_.size = &values[i];
          break;
        default:
          break;  // hints to a compiler that is not here
      }
    }
    info_.capacity = info_.size ? reinterpret_cast<uintptr_t>(*info_.size) : 0;
    error_.capacity = error_.size ? reinterpret_cast<uintptr_t>(*error_.size) : 0;
    info_.write("");
    error_.write("");
  }
  void error(const std::string& text) { error_.write(text); }

 private:
  struct Buffer {
    char* text = nullptr;
    void** size = nullptr;
    size_t capacity = 0;
    void write(const std::string& message) {
      if (!text || capacity == 0) return;
      const size_t bytes = std::min(message.size(), capacity - 1);
      std::memcpy(text, message.data(), bytes);
      text[bytes] = '\0';
      *size = reinterpret_cast<void*>(bytes);
    }
  };
  Buffer info_, error_;
};

void refuseMachineCode(const void* image) {
  require(image != nullptr, CUDA_ERROR_INVALID_VALUE);
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (bytes[0] == 0x7f && std::memcmp(bytes + 1, "ELF", 3) == 0)
    fail(CUDA_ERROR_NO_BINARY_FOR_GPU, "a cubin: the simulator executes PTX");
  constexpr uint32_t kFatbin = 0xba55ed50, kFatbinWrapper = 0x466243b1;
  if (bytes[0] == 0x50 || bytes[0] == 0xb1) {
    uint32_t magic;
    std::memcpy(&magic, bytes, sizeof magic);
    if (magic == kFatbin || magic == kFatbinWrapper)
      fail(CUDA_ERROR_NO_BINARY_FOR_GPU, "a fat binary: the simulator executes PTX");
  }
  const bool isText = bytes[0] == '\t' || bytes[0] == '\n' || bytes[0] == '\r' || (bytes[0] >= ' ' && bytes[0] < 0x7f);
  require(isText, CUDA_ERROR_INVALID_IMAGE, "neither PTX nor anything else that a driver loads");
}

std::shared_ptr<LoadedModule> load(Driver& driver, const void* image, JitLog& log) {
  refuseMachineCode(image);
  auto module = std::make_shared<LoadedModule>();
  module->context = current();
  try {
    module->code = loadModule(static_cast<const char*>(image));
  } catch (const SimError& error) {
    log.error(error.what());
    throw;
  }
  if (module->code->ptxVersion() > newestPtx(driver.settings.driverVersion)) {
    const std::string text = "PTX " + std::to_string(module->code->ptxVersion()) + " is newer than this driver";
    log.error(text);
    fail(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, text);
  }
  if (module->code->target() > 80) {
    const std::string text = "PTX for sm_" + std::to_string(module->code->target()) + " on sm_80";
    log.error(text);
    fail(CUDA_ERROR_NO_BINARY_FOR_GPU, text);
  }
  module->instance = std::make_unique<ModuleInstance>(module->code, current()->gpu.memory);
  return module;
}

std::shared_ptr<Function> functionOf(LoadedModule& module, const std::string& name) {
  std::shared_ptr<Function>& function = module.functions[name];
  if (function) return function;
  const Kernel* kernel = module.code->find(name);
  if (!kernel) module.functions.erase(name);
  require(kernel != nullptr, CUDA_ERROR_NOT_FOUND, "no such kernel");
  auto made = std::make_shared<Function>();
  made->module = module.shared_from_this();
  made->code = module.code;
  made->context = module.context;
  made->kernel = kernel;
  function = made;
  return function;
}

std::shared_ptr<LoadedModule> moduleOf(Driver& driver, CUmodule handle) {
  std::shared_ptr<LoadedModule> module = driver.object<LoadedModule>(handle);
  if (module->context != current())
    driver.misuse("wrong context",
                  "a module of device " + std::to_string(module->context->gpu.ordinal) +
                      " while the context of device " + std::to_string(current()->gpu.ordinal) + " is current",
                  CUDA_ERROR_INVALID_HANDLE);
  return module;
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuModuleLoadDataEx(CUmodule* handle, const void* image, unsigned count, CUjit_option* options,
                                       void** values) {
  return entry("cuModuleLoadData", Needs::kContext, [&](Driver& driver) {
    require(handle != nullptr, CUDA_ERROR_INVALID_VALUE);
    JitLog log(count, options, values);
    *handle = driver.handle<CUmodule>(load(driver, image, log));
  });
}

extern "C" CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
  return cuModuleLoadDataEx(handle, image, 0, nullptr, nullptr);
}

extern "C" CUresult cuModuleLoad(CUmodule* handle, const char* path) {
  if (!path) return CUDA_ERROR_INVALID_VALUE;
  FILE* file = std::fopen(path, "rb");
  if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
  std::string image;
  char buffer[1 << 16];
  for (size_t bytes; (bytes = std::fread(buffer, 1, sizeof buffer, file)) > 0;) image.append(buffer, bytes);
  std::fclose(file);
  return cuModuleLoadDataEx(handle, image.c_str(), 0, nullptr, nullptr);
}

extern "C" CUresult cuModuleUnload(CUmodule handle) {
  return entry("cuModuleUnload", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<LoadedModule> module = moduleOf(driver, handle);
    driver.drain(*module->context);  // as the driver does: the code may be running
    for (const auto& [name, function] : module->functions) driver.withdraw(*function);
    driver.withdraw(*module);
  });
}

extern "C" CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  return entry("cuModuleGetLoadingMode", Needs::kInit, [&](Driver&) {
    require(mode != nullptr, CUDA_ERROR_INVALID_VALUE);
    *mode = CU_MODULE_EAGER_LOADING;
  });
}

extern "C" CUresult cuModuleGetFunction(CUfunction* handle, CUmodule moduleHandle, const char* name) {
  return entry("cuModuleGetFunction", Needs::kContext, [&](Driver& driver) {
    require(handle && name, CUDA_ERROR_INVALID_VALUE);
    *handle = driver.handle<CUfunction>(functionOf(*moduleOf(driver, moduleHandle), name));
  });
}

extern "C" CUresult cuModuleGetFunctionCount(unsigned* count, CUmodule handle) {
  return entry("cuModuleGetFunctionCount", Needs::kContext, [&](Driver& driver) {
    require(count != nullptr, CUDA_ERROR_INVALID_VALUE);
    *count = static_cast<unsigned>(moduleOf(driver, handle)->code->kernels().size());
  });
}

extern "C" CUresult cuModuleEnumerateFunctions(CUfunction* functions, unsigned count, CUmodule handle) {
  return entry("cuModuleEnumerateFunctions", Needs::kContext, [&](Driver& driver) {
    require(functions != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<LoadedModule> module = moduleOf(driver, handle);
    for (const Kernel* kernel : module->code->kernels()) {
      if (count-- == 0) return;
      *functions++ = driver.handle<CUfunction>(functionOf(*module, kernel->name));
    }
  });
}

extern "C" CUresult cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule handle, const char* name) {
  return entry("cuModuleGetGlobal", Needs::kContext, [&](Driver& driver) {
    require(name != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<LoadedModule> module = moduleOf(driver, handle);
    const Symbol* symbol = module->code->symbol(name);
    require(symbol != nullptr, CUDA_ERROR_NOT_FOUND, "no such variable");
    if (address) *address = module->instance->address(name);
    if (bytes) *bytes = symbol->bytes;
  });
}

}  // namespace cudasim::abi
