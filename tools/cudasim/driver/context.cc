// Primary contexts, the stack of current ones, and access to peers.
#include <utility>

#include "capture.h"
#include "entry.h"
#include "pool.h"

namespace cudasim::driver {

using namespace abi;

Context::Context(Gpu& gpu, unsigned flags) : gpu(gpu), flags(flags) {
  limits = {{CU_LIMIT_STACK_SIZE, 1024}, {CU_LIMIT_PRINTF_FIFO_SIZE, 1 << 20}, {CU_LIMIT_MALLOC_HEAP_SIZE, 8 << 20}};
}

std::shared_ptr<Stream> Context::addStream(unsigned flags, int priority) {
  Driver& driver = Driver::get();
  auto stream = std::make_shared<Stream>();
  stream->context = shared_from_this();
  stream->lane = driver.scheduler.newLane();
  stream->flags = flags;
  stream->priority = priority;
  stream->id = driver.nextId++;
  std::erase_if(streams, [](const auto& weak) { return weak.expired(); });
  streams.push_back(stream);
  return stream;
}

void Context::each(const std::function<void(Stream&)>& visit) {
  std::vector<std::shared_ptr<Stream>> alive;  // `visit` may run work that destroys streams
  for (const auto& weak : streams)
    if (auto stream = weak.lock()) alive.push_back(std::move(stream));
  for (const auto& stream : alive) visit(*stream);
}

namespace {

std::shared_ptr<Context> contextOf(Driver& driver, CUcontext handle) {
  require(handle != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  return driver.object<Context>(handle);
}

void reportLeaks(Driver& driver, const Context& context) {
  if (!driver.settings.leaks) return;
  const std::string where = " when the context of device " + std::to_string(context.gpu.ordinal) + " went";
  for (const auto& [address, block] : context.gpu.blocks)
    if (block.context.get() == &context)
      driver.report.finding("leak",
                            std::to_string(block.bytes) + " bytes of '" + block.label + "' were not freed" + where);
  for (const auto& [address, block] : driver.hostBlocks)
    if (block.context.get() == &context)
      driver.report.finding("leak", std::to_string(block.bytes) + " bytes of pinned host memory were not " +
                                        (block.isRegistered ? "unregistered" : "freed") + where);
}

void destroy(Driver& driver, Gpu& gpu) {
  const std::shared_ptr<Context> context = std::exchange(gpu.primary, nullptr);
  if (!context) return;
  driver.finish(*context);
  reportLeaks(driver, *context);
  context->isDestroyed = true;
  std::erase_if(driver.captures, [&](const auto& capture) {
    const auto origin = capture->origin.lock();
    return !origin || origin->context == context;
  });
  for (auto it = gpu.blocks.begin(); it != gpu.blocks.end();) {
    driver.history.forget(it->first, it->second.bytes);
    gpu.memory.release(it->first);
    it = gpu.blocks.erase(it);
  }
  driver.withdrawAll(*context);
  gpu.defaultPool = gpu.currentPool = makePool(gpu, true);
  context->legacy.reset();
  context->perThread.clear();
}

std::shared_ptr<Context> retain(Driver& driver, Gpu& gpu) {
  ++gpu.retained;
  if (!gpu.primary) {
    gpu.primary = std::make_shared<Context>(gpu, gpu.flags);
    gpu.primary->id = driver.nextId++;
    gpu.primary->legacy = gpu.primary->addStream(CU_STREAM_DEFAULT, 0);
    gpu.primary->legacy->isLegacy = true;
  }
  return gpu.primary;
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return entry("cuDevicePrimaryCtxRetain", Needs::kInit, [&](Driver& driver) {
    require(context != nullptr, CUDA_ERROR_INVALID_VALUE);
    Gpu& gpu = driver.gpu(device);
    require(device != driver.settings.lostDevice, CUDA_ERROR_DEVICE_UNAVAILABLE);
    *context = driver.handle<CUcontext>(retain(driver, gpu));
  });
}

extern "C" CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return entry("cuDevicePrimaryCtxRelease", Needs::kInit, [&](Driver& driver) {
    Gpu& gpu = driver.gpu(device);
    require(gpu.retained > 0, CUDA_ERROR_INVALID_CONTEXT, "released more often than retained");
    if (--gpu.retained == 0) destroy(driver, gpu);
  });
}

extern "C" CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return entry("cuDevicePrimaryCtxReset", Needs::kInit, [&](Driver& driver) { destroy(driver, driver.gpu(device)); });
}

extern "C" CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  return entry("cuDevicePrimaryCtxSetFlags", Needs::kInit, [&](Driver& driver) {
    Gpu& gpu = driver.gpu(device);
    require((flags & ~CU_CTX_FLAGS_MASK) == 0, CUDA_ERROR_INVALID_VALUE);
    gpu.flags = flags;
    if (gpu.primary) gpu.primary->flags = flags;
  });
}

extern "C" CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  return entry("cuDevicePrimaryCtxGetState", Needs::kInit, [&](Driver& driver) {
    require(flags && active, CUDA_ERROR_INVALID_VALUE);
    const Gpu& gpu = driver.gpu(device);
    *flags = gpu.flags;
    *active = gpu.primary != nullptr;
  });
}

extern "C" CUresult cuCtxSetCurrent(CUcontext handle) {
  return entry("cuCtxSetCurrent", Needs::kInit, [&](Driver& driver) {
    auto& stack = contextStack();
    if (!stack.empty()) stack.pop_back();
    if (handle) stack.push_back(contextOf(driver, handle));
  });
}

extern "C" CUresult cuCtxGetCurrent(CUcontext* handle) {
  return entry("cuCtxGetCurrent", Needs::kInit, [&](Driver& driver) {
    require(handle != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Context> context = current();
    *handle = context ? driver.handle<CUcontext>(context) : nullptr;
  });
}

extern "C" CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return entry("cuCtxPushCurrent", Needs::kInit,
               [&](Driver& driver) { contextStack().push_back(contextOf(driver, handle)); });
}

extern "C" CUresult cuCtxPopCurrent_v2(CUcontext* handle) {
  return entry("cuCtxPopCurrent", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Context> context = current();
    require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    if (handle) *handle = driver.handle<CUcontext>(context);
    contextStack().pop_back();
  });
}

extern "C" CUresult cuCtxGetDevice(CUdevice* device) {
  return entry("cuCtxGetDevice", Needs::kInit, [&](Driver&) {
    require(device != nullptr, CUDA_ERROR_INVALID_VALUE);
    require(current() != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    *device = current()->gpu.ordinal;
  });
}

extern "C" CUresult cuCtxGetFlags(unsigned* flags) {
  return entry("cuCtxGetFlags", Needs::kContext, [&](Driver&) {
    require(flags != nullptr, CUDA_ERROR_INVALID_VALUE);
    *flags = current()->flags;
  });
}

extern "C" CUresult cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
  return entry("cuCtxGetApiVersion", Needs::kInit, [&](Driver& driver) {
    require(version != nullptr, CUDA_ERROR_INVALID_VALUE);
    if (handle) contextOf(driver, handle);
    *version = 3020;
  });
}

extern "C" CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
  return entry("cuCtxGetId", Needs::kInit, [&](Driver& driver) {
    require(id != nullptr, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Context> context = handle ? contextOf(driver, handle) : current();
    require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    *id = context->id;
  });
}

extern "C" CUresult cuCtxSynchronize() {
  return entry("cuCtxSynchronize", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Context> context = current();
    context->each([&](Stream& stream) { refuseOnCapturing(driver, stream, "cuCtxSynchronize"); });
    refuseUnsafeInCapture(driver, "cuCtxSynchronize");
    driver.finish(*context);
    return context->sticky;
  });
}

extern "C" CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return entry("cuCtxGetStreamPriorityRange", Needs::kContext, [&](Driver&) {
    if (least) *least = 0;
    if (greatest) *greatest = kGreatestPriority;
  });
}

extern "C" CUresult cuCtxGetLimit(size_t* value, CUlimit limit) {
  return entry("cuCtxGetLimit", Needs::kContext, [&](Driver&) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    const auto& limits = current()->limits;
    require(limits.count(limit), CUDA_ERROR_UNSUPPORTED_LIMIT);
    *value = limits.at(limit);
  });
}

extern "C" CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  return entry("cuCtxSetLimit", Needs::kContext, [&](Driver&) {
    require(current()->limits.count(limit), CUDA_ERROR_UNSUPPORTED_LIMIT);
    current()->limits[limit] = value;
  });
}

// The split between cache and shared memory changes speed alone.
extern "C" CUresult cuCtxGetCacheConfig(CUfunc_cache* config) {
  return entry("cuCtxGetCacheConfig", Needs::kContext, [&](Driver&) {
    require(config != nullptr, CUDA_ERROR_INVALID_VALUE);
    *config = CU_FUNC_CACHE_PREFER_NONE;
  });
}

extern "C" CUresult cuCtxSetCacheConfig(CUfunc_cache config) {
  return entry("cuCtxSetCacheConfig", Needs::kContext,
               [&](Driver&) { require(config <= CU_FUNC_CACHE_PREFER_EQUAL, CUDA_ERROR_INVALID_VALUE); });
}

extern "C" CUresult cuCtxEnablePeerAccess(CUcontext handle, unsigned flags) {
  return entry("cuCtxEnablePeerAccess", Needs::kContext, [&](Driver& driver) {
    require(flags == 0, CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Context> peer = contextOf(driver, handle);
    require(!peer->isDestroyed && &peer->gpu != &current()->gpu, CUDA_ERROR_INVALID_CONTEXT);
    require(driver.settings.peers, CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    require(current()->peers.insert(peer->gpu.ordinal).second, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
  });
}

extern "C" CUresult cuCtxDisablePeerAccess(CUcontext handle) {
  return entry("cuCtxDisablePeerAccess", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Context> peer = contextOf(driver, handle);
    driver.finish(*current());  // queued kernels were launched while they might
    require(current()->peers.erase(peer->gpu.ordinal) == 1, CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
  });
}

}  // namespace cudasim::abi
