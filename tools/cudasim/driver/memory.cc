// Device memory of cuMemAlloc, and questions about addresses.
#include "memory.h"

#include "capture.h"
#include "entry.h"
#include "pool.h"

namespace cudasim::driver {

using namespace abi;

std::string& allocationLabel() {
  thread_local std::string label;
  return label;
}

void refuseByRequest(Settings& settings, uint64_t& countdown) {
  if (countdown > 1)
    --countdown;
  else if (countdown == 1) {
    if (settings.failAllocations > 1)
      --settings.failAllocations;
    else
      countdown = 0;
    fail(CUDA_ERROR_OUT_OF_MEMORY, "injected fault");
  }
}

uint64_t allocate(Driver& driver, const std::shared_ptr<Context>& context, size_t bytes, const char* function,
                  std::shared_ptr<Pool> pool) {
  refuseByRequest(driver.settings, driver.settings.failAllocation);
  std::string label = allocationLabel().empty() ? function : allocationLabel();
  label += " #" + std::to_string(driver.nextId++);
  Gpu& gpu = context->gpu;
  uint64_t address = gpu.memory.allocate(bytes, label);
  if (address == 0 && pool) {  // what the pool keeps is there for the taking
    trimPool(*pool, 0);
    address = gpu.memory.allocate(bytes, label);
  }
  require(address != 0, CUDA_ERROR_OUT_OF_MEMORY, "the simulated card is full");
  gpu.blocks[address] = {address, bytes, label, context, std::move(pool), false};
  return address;
}

void release(Driver& driver, Block& block) {
  Gpu& gpu = block.context->gpu;
  const uint64_t address = block.address;
  driver.history.forget(address, block.bytes);
  gpu.memory.release(address);
  if (block.pool) giveToPool(*block.pool, block.bytes);
  gpu.blocks.erase(address);
}

std::string notABlock(Driver& driver, uint64_t address) {
  if (Gpu* gpu = driver.owner(address)) return gpu->memory.describe(address);
  return driver.hostBlock(address) == driver.hostBlocks.end() ? "no device address" : "pinned host memory";
}

namespace {

// A card waits for everything that was queued before it takes memory back, so the program below survives; whoever
// counts on that breaks with the first pool or the first other card. Hence a finding, unless the program waited itself.
void refuseInUse(Driver& driver, const Block& block) {
  const Clock before = driver.host;
  driver.drain(*block.context);
  if (!driver.settings.checkStreams) return;
  const auto conflict = driver.history.unordered(block.address, block.bytes, before);
  if (conflict)
    driver.report.finding("free in use", "cuMemFree of '" + block.label + "' while " + conflict->other +
                                             (conflict->otherWrote ? " writes" : " reads") +
                                             " it; wait for the stream first");
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuMemGetInfo_v2(size_t* available, size_t* total) {
  return entry("cuMemGetInfo", Needs::kContext, [&](Driver&) {
    require(available && total, CUDA_ERROR_INVALID_VALUE);
    const Gpu& gpu = current()->gpu;
    *total = gpu.memory.capacity();
    *available = gpu.memory.capacity() - std::min(gpu.memory.capacity(), gpu.memory.used() + cachedInPools(gpu));
  });
}

extern "C" CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return entry("cuMemAlloc", Needs::kContext, [&](Driver& driver) {
    require(address && bytes > 0, CUDA_ERROR_INVALID_VALUE);
    refuseUnsafeInCapture(driver, "cuMemAlloc");
    *address = allocate(driver, current(), bytes, "cuMemAlloc", nullptr);
  });
}

extern "C" CUresult cuMemAllocPitch_v2(CUdeviceptr* address, size_t* pitch, size_t width, size_t height,
                                       unsigned elementBytes) {
  return entry("cuMemAllocPitch", Needs::kContext, [&](Driver& driver) {
    require(address && pitch && width > 0 && height > 0, CUDA_ERROR_INVALID_VALUE);
    require(elementBytes == 4 || elementBytes == 8 || elementBytes == 16, CUDA_ERROR_INVALID_VALUE);
    refuseUnsafeInCapture(driver, "cuMemAllocPitch");
    constexpr size_t kAlignment = 512;
    *pitch = (width + kAlignment - 1) / kAlignment * kAlignment;
    *address = allocate(driver, current(), *pitch * height, "cuMemAllocPitch", nullptr);
  });
}

extern "C" CUresult cuMemFree_v2(CUdeviceptr address) {
  return entry("cuMemFree", Needs::kContext, [&](Driver& driver) {
    if (address == 0) return;
    refuseUnsafeInCapture(driver, "cuMemFree");
    Block* block = driver.block(address);
    if (!block) driver.misuse("bad free", "cuMemFree: " + notABlock(driver, address), CUDA_ERROR_INVALID_VALUE);
    if (block->freeQueued)
      driver.misuse("bad free", "cuMemFree: cuMemFreeAsync was called for '" + block->label + "'",
                    CUDA_ERROR_INVALID_VALUE);
    const std::shared_ptr<Context> context = block->context;
    refuseInUse(driver, *block);
    require(context->sticky == CUDA_SUCCESS, context->sticky);
    release(driver, *block);
  });
}

extern "C" CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
  return entry("cuMemGetAddressRange", Needs::kContext, [&](Driver& driver) {
    Memory::Range range;
    const Gpu* gpu = driver.owner(address);
    require(gpu && gpu->memory.find(address, &range) && range.live, CUDA_ERROR_NOT_FOUND);
    if (base) *base = range.address;
    if (bytes) *bytes = range.bytes;
  });
}

extern "C" CUresult cuPointerGetAttribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) {
  return entry("cuPointerGetAttribute", Needs::kContext, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    Memory::Range range;
    Gpu* gpu = driver.owner(address);
    const bool isDevice = gpu && gpu->memory.find(address, &range) && range.live;
    const auto host = driver.hostBlock(address);
    const bool isHost = host != driver.hostBlocks.end();
    require(isDevice || isHost, CUDA_ERROR_INVALID_VALUE, "neither device memory nor pinned host memory");
    const auto block = isDevice ? gpu->blocks.find(range.address) : std::map<uint64_t, Block>::iterator{};
    const bool isBlock = isDevice && block != gpu->blocks.end();  // else a module's variable
    const std::shared_ptr<Context> context = isHost    ? host->second.context
                                             : isBlock ? block->second.context
                                                       : gpu->primary;
    switch (attribute) {
      case CU_POINTER_ATTRIBUTE_CONTEXT:
        *static_cast<CUcontext*>(value) = context ? driver.handle<CUcontext>(context) : nullptr;
        return;
      case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *static_cast<unsigned*>(value) = isDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        return;
      case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *static_cast<CUdeviceptr*>(value) = address;
        return;
      case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        require(isHost, CUDA_ERROR_INVALID_VALUE, "device memory has no host address");
        *static_cast<void**>(value) = reinterpret_cast<void*>(address);
        return;
      case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *static_cast<unsigned char*>(value) = 0;
        return;
      case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *static_cast<int*>(value) = isDevice ? gpu->ordinal : context->gpu.ordinal;
        return;
      case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *static_cast<CUdeviceptr*>(value) = isDevice ? range.address : host->first;
        return;
      case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *static_cast<size_t*>(value) = isDevice ? range.bytes : host->second.bytes;
        return;
      case CU_POINTER_ATTRIBUTE_MAPPED:
        *static_cast<unsigned char*>(value) = 1;
        return;
      case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *static_cast<CUmemoryPool*>(value) =
            isBlock && block->second.pool ? driver.handle<CUmemoryPool>(block->second.pool) : nullptr;
        return;
    }
    fail(CUDA_ERROR_INVALID_VALUE, "attribute " + std::to_string(attribute) + " is not simulated");
  });
}

}  // namespace cudasim::abi
