#include "pool.h"

#include <algorithm>
#include <limits>

#include "capture.h"
#include "entry.h"
#include "memory.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

std::shared_ptr<Pool> makePool(Gpu& gpu, bool isDefault) {
  auto pool = std::make_shared<Pool>();
  pool->gpu = &gpu;
  pool->isDefault = isDefault;
  pool->attributes = {{CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES, 1},
                      {CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, 1},
                      {CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES, 1},
                      {CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, 0}};
  gpu.pools.push_back(pool);
  return pool;
}

void takeFromPool(Pool& pool, size_t bytes) {
  pool.used += bytes;
  pool.usedHigh = std::max(pool.usedHigh, pool.used);
  pool.reserved = std::max(pool.reserved, pool.used);
  pool.reservedHigh = std::max(pool.reservedHigh, pool.reserved);
}

void giveToPool(Pool& pool, size_t bytes) { pool.used -= bytes; }

void trimPool(Pool& pool, uint64_t keep) { pool.reserved = std::max(pool.used, std::min(pool.reserved, keep)); }

void trimToThreshold(Pool& pool) { trimPool(pool, pool.attributes[CU_MEMPOOL_ATTR_RELEASE_THRESHOLD]); }

size_t cachedInPools(const Gpu& gpu) {
  size_t bytes = 0;
  for (const auto& weak : gpu.pools)
    if (const auto pool = weak.lock()) bytes += pool->reserved - pool->used;
  return bytes;
}

namespace {

uint64_t allocateAsync(Driver& driver, const std::shared_ptr<Pool>& pool, size_t bytes, CUstream handle) {
  const std::shared_ptr<Stream> stream = streamOf(driver, handle);
  refuseOnCapturing(driver, *stream, "cuMemAllocAsync");  // memory nodes are not simulated
  if (pool->gpu != &stream->context->gpu)
    driver.misuse("wrong context",
                  "cuMemAllocAsync: a pool of device " + std::to_string(pool->gpu->ordinal) + " in " + stream->name(),
                  CUDA_ERROR_INVALID_VALUE);
  const uint64_t address = allocate(driver, stream->context, bytes, "cuMemAllocAsync", pool);
  takeFromPool(*pool, bytes);
  // The memory exists from this point of the stream on: other streams must be ordered after it.
  const OpRef op = submit(driver, stream, EmptyWork{});
  op->name = "cuMemAllocAsync on " + stream->name();
  driver.history.touch(address, bytes, true, {op->epoch, op->name}, op->clock);
  return address;
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return entry("cuDeviceGetDefaultMemPool", Needs::kInit, [&](Driver& driver) {
    require(pool != nullptr, CUDA_ERROR_INVALID_VALUE);
    *pool = driver.handle<CUmemoryPool>(driver.gpu(device).defaultPool);
  });
}

extern "C" CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return entry("cuDeviceGetMemPool", Needs::kInit, [&](Driver& driver) {
    require(pool != nullptr, CUDA_ERROR_INVALID_VALUE);
    *pool = driver.handle<CUmemoryPool>(driver.gpu(device).currentPool);
  });
}

extern "C" CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
  return entry("cuDeviceSetMemPool", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Pool> pool = driver.object<Pool>(handle);
    require(pool->gpu == &driver.gpu(device), CUDA_ERROR_INVALID_VALUE, "the pool belongs to another device");
    pool->gpu->currentPool = pool;
  });
}

extern "C" CUresult cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
  return entry("cuMemPoolCreate", Needs::kInit, [&](Driver& driver) {
    require(handle && properties && properties->allocType == CU_MEM_ALLOCATION_TYPE_PINNED, CUDA_ERROR_INVALID_VALUE);
    require(properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE, CUDA_ERROR_INVALID_VALUE);
    require(properties->handleTypes == CU_MEM_HANDLE_TYPE_NONE, CUDA_ERROR_NOT_SUPPORTED,
            "memory between processes is not simulated");
    *handle = driver.handle<CUmemoryPool>(makePool(driver.gpu(properties->location.id), false));
  });
}

extern "C" CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return entry("cuMemPoolDestroy", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Pool> pool = driver.object<Pool>(handle);
    require(!pool->isDefault, CUDA_ERROR_INVALID_VALUE, "a default pool cannot be destroyed");
    if (pool->gpu->currentPool == pool) pool->gpu->currentPool = pool->gpu->defaultPool;
    trimPool(*pool, 0);
    driver.withdraw(*pool);
  });
}

extern "C" CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  return entry("cuMemPoolTrimTo", Needs::kInit, [&](Driver& driver) { trimPool(*driver.object<Pool>(handle), keep); });
}

extern "C" CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return entry("cuMemPoolSetAttribute", Needs::kInit, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    Pool& pool = *driver.object<Pool>(handle);
    switch (attribute) {
      case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        pool.attributes[attribute] = *static_cast<const int*>(value) != 0;
        return;
      case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        pool.attributes[attribute] = *static_cast<const cuuint64_t*>(value);
        return;
      case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        require(*static_cast<const cuuint64_t*>(value) == 0, CUDA_ERROR_INVALID_VALUE,
                "a high mark is only ever reset");
        (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? pool.usedHigh : pool.reservedHigh) =
            attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? pool.used : pool.reserved;
        return;
      default:
        fail(CUDA_ERROR_INVALID_VALUE);
    }
  });
}

extern "C" CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return entry("cuMemPoolGetAttribute", Needs::kInit, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    Pool& pool = *driver.object<Pool>(handle);
    cuuint64_t& bytes = *static_cast<cuuint64_t*>(value);
    switch (attribute) {
      case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
      case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        *static_cast<int*>(value) = static_cast<int>(pool.attributes[attribute]);
        return;
      case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        bytes = pool.attributes[attribute];
        return;
      case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        bytes = pool.reserved;
        return;
      case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        bytes = pool.reservedHigh;
        return;
      case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        bytes = pool.used;
        return;
      case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        bytes = pool.usedHigh;
        return;
    }
    fail(CUDA_ERROR_INVALID_VALUE);
  });
}

extern "C" CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* list, size_t count) {
  return entry("cuMemPoolSetAccess", Needs::kInit, [&](Driver& driver) {
    require(list != nullptr || count == 0, CUDA_ERROR_INVALID_VALUE);
    Pool& pool = *driver.object<Pool>(handle);
    for (size_t i = 0; i < count; ++i) {
      require(list[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE, CUDA_ERROR_INVALID_VALUE);
      const int device = driver.gpu(list[i].location.id).ordinal;
      if (list[i].flags == CU_MEM_ACCESS_FLAGS_PROT_NONE) {
        require(device != pool.gpu->ordinal, CUDA_ERROR_INVALID_VALUE, "a device keeps access to its own pool");
        pool.access.erase(device);
      } else {
        pool.access.insert(device);
      }
    }
  });
}

extern "C" CUresult cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle, CUmemLocation* location) {
  return entry("cuMemPoolGetAccess", Needs::kInit, [&](Driver& driver) {
    require(flags && location && location->type == CU_MEM_LOCATION_TYPE_DEVICE, CUDA_ERROR_INVALID_VALUE);
    const Pool& pool = *driver.object<Pool>(handle);
    const int device = driver.gpu(location->id).ordinal;
    *flags = device == pool.gpu->ordinal || pool.access.count(device) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                                                      : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  });
}

extern "C" CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  return entry("cuMemAllocAsync", Needs::kContext, [&](Driver& driver) {
    require(address && bytes > 0, CUDA_ERROR_INVALID_VALUE);
    *address = allocateAsync(driver, streamOf(driver, stream)->context->gpu.currentPool, bytes, stream);
  });
}

extern "C" CUresult cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool, CUstream stream) {
  return entry("cuMemAllocFromPoolAsync", Needs::kContext, [&](Driver& driver) {
    require(address && bytes > 0, CUDA_ERROR_INVALID_VALUE);
    *address = allocateAsync(driver, driver.object<Pool>(pool), bytes, stream);
  });
}

extern "C" CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  return entry("cuMemFreeAsync", Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    Block* block = driver.block(address);
    if (!block) driver.misuse("bad free", "cuMemFreeAsync: " + notABlock(driver, address), CUDA_ERROR_INVALID_VALUE);
    require(block->pool != nullptr, CUDA_ERROR_INVALID_VALUE, "the memory comes from cuMemAlloc");
    if (block->freeQueued)
      driver.misuse("bad free", "cuMemFreeAsync: freed twice: '" + block->label + "'", CUDA_ERROR_INVALID_VALUE);
    submit(driver, stream, FreeWork{address});
    block->freeQueued = true;
  });
}

}  // namespace cudasim::abi
