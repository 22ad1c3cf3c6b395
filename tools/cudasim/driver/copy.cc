#include "copy.h"

#include <cstring>

#include "access.h"
#include "capture.h"
#include "entry.h"
#include "memory.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

namespace {

// Bytes from the first to past the last one.
size_t extent(size_t width, size_t height, size_t depth, size_t pitch, size_t rows) {
  if (width == 0 || height == 0 || depth == 0) return 0;
  return ((depth - 1) * rows + height - 1) * pitch + width;
}

[[noreturn]] void refuse(Driver& driver, Fault fault, const char* function, const std::string& text) {
  driver.misuse(faultName(fault), std::string(function) + ": " + text, CUDA_ERROR_INVALID_VALUE);
}

void checkDeviceRange(Driver& driver, Gpu& gpu, uint64_t address, size_t bytes, const char* function) {
  Memory::Range range;
  if (!gpu.memory.find(address, &range)) refuse(driver, Fault::kOutOfBounds, function, gpu.memory.describe(address));
  if (!range.live) refuse(driver, Fault::kUseAfterFree, function, gpu.memory.describe(address));
  if (address + bytes > range.address + range.bytes)
    refuse(driver, Fault::kOutOfBounds, function,
           describeBytes(driver, address, bytes) + ", which has only " + std::to_string(range.bytes) + " bytes");
}

// A copy between any two cards works, by way of the host if it must; that memory of another card turns up in an
// ordinary copy is nearly always an allocation made while the wrong context was current.
void checkAccess(Driver& driver, const Context& context, const Gpu& gpu, uint64_t address, const char* function) {
  if (&gpu == &context.gpu || context.peers.count(gpu.ordinal) || !driver.settings.checkContexts) return;
  if (const Block* block = driver.block(address);
      block && block->pool && block->pool->access.count(context.gpu.ordinal))
    return;
  driver.misuse("wrong context",
                std::string(function) + ": memory of device " + std::to_string(gpu.ordinal) +
                    " in a stream of device " + std::to_string(context.gpu.ordinal) +
                    ", which has no access to that peer",
                CUDA_ERROR_INVALID_VALUE);
}

void resolveSide(Driver& driver, Context& context, Side& side, const CopyWork& work, bool isHostPointer,
                 const char* function) {
  const size_t bytes = extent(work.width, work.height, work.depth, side.pitch, side.rows);
  if (Gpu* gpu = driver.owner(side.address)) {
    if (isHostPointer)
      refuse(driver, Fault::kHostDereference, function, "a device address was given for a host pointer");
    side.where = Side::Where::kDevice;
    side.device = gpu->ordinal;
    checkDeviceRange(driver, *gpu, side.address, bytes, function);
    if (!work.peer) checkAccess(driver, context, *gpu, side.address, function);
    return;
  }
  const auto block = driver.hostBlock(side.address);
  if (block != driver.hostBlocks.end()) {
    side.where = Side::Where::kPinned;
    if (side.address + bytes > block->first + block->second.bytes)
      refuse(driver, Fault::kOutOfBounds, function,
             std::to_string(bytes) + " bytes at byte " + std::to_string(side.address - block->first) +
                 " of pinned host memory of " + std::to_string(block->second.bytes));
    return;
  }
  if (side.where == Side::Where::kDevice && !isHostPointer)
    refuse(driver, Fault::kHostDereference, function, "a host pointer, or garbage, was given for a device address");
  side.where = Side::Where::kPageable;
}

}  // namespace

void resolve(Driver& driver, Context& context, CopyWork& work, const char* function) {
  const bool toHost = work.to.where != Side::Where::kDevice, fromHost = work.from.where != Side::Where::kDevice;
  resolveSide(driver, context, work.to, work, toHost, function);
  resolveSide(driver, context, work.from, work, fromHost, function);
}

void checkSet(Driver& driver, Context& context, const SetWork& work, const char* function) {
  const size_t width = work.width * work.elementBytes;
  if (work.address % work.elementBytes || work.pitch % work.elementBytes)
    refuse(driver, Fault::kMisaligned, function,
           "address or pitch is no multiple of " + std::to_string(work.elementBytes));
  require(work.height <= 1 || work.pitch >= width, CUDA_ERROR_INVALID_VALUE, "the pitch is smaller than a row");
  const size_t bytes = extent(width, work.height, 1, work.pitch, work.height);
  if (Gpu* gpu = driver.owner(work.address)) {
    checkDeviceRange(driver, *gpu, work.address, bytes, function);
    checkAccess(driver, context, *gpu, work.address, function);
    return;
  }
  const auto block = driver.hostBlock(work.address);
  if (block == driver.hostBlocks.end() || work.address + bytes > block->first + block->second.bytes)
    refuse(driver, Fault::kHostDereference, function, "neither device memory nor pinned host memory");
}

namespace {

uint64_t sideOf(CUmemorytype type, const void* host, CUdeviceptr device, Side& side) {
  require(type != CU_MEMORYTYPE_ARRAY, CUDA_ERROR_NOT_SUPPORTED, "arrays are not simulated");
  require(type >= CU_MEMORYTYPE_HOST && type <= CU_MEMORYTYPE_UNIFIED, CUDA_ERROR_INVALID_VALUE);
  side.where = type == CU_MEMORYTYPE_HOST ? Side::Where::kPageable : Side::Where::kDevice;
  return type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uint64_t>(host) : device;
}

}  // namespace

CopyWork fromMemcpy3D(const CUDA_MEMCPY3D& copy) {
  CopyWork work;
  work.width = copy.WidthInBytes;
  work.height = copy.Height;
  work.depth = copy.Depth;
  const auto place = [&](Side& side, uint64_t base, size_t pitch, size_t rows, size_t x, size_t y, size_t z) {
    require(pitch == 0 || pitch >= x + copy.WidthInBytes, CUDA_ERROR_INVALID_VALUE, "the pitch is smaller than a row");
    require(rows == 0 || rows >= y + copy.Height, CUDA_ERROR_INVALID_VALUE, "a slice has fewer rows than the copy");
    side.pitch = pitch ? pitch : copy.WidthInBytes;
    side.rows = rows ? rows : copy.Height;
    side.address = base + (z * side.rows + y) * side.pitch + x;
  };
  place(work.from, sideOf(copy.srcMemoryType, copy.srcHost, copy.srcDevice, work.from), copy.srcPitch, copy.srcHeight,
        copy.srcXInBytes, copy.srcY, copy.srcZ);
  place(work.to, sideOf(copy.dstMemoryType, copy.dstHost, copy.dstDevice, work.to), copy.dstPitch, copy.dstHeight,
        copy.dstXInBytes, copy.dstY, copy.dstZ);
  return work;
}

// Pinned memory is read and written when the copy runs. A pageable source is read before the call returns (the driver
// stages it), a pageable target is complete when the call returns. Copies within devices never wait.
void copy(Driver& driver, const std::shared_ptr<Stream>& stream, CopyWork work, bool isSynchronous,
          const char* function) {
  if (isSynchronous) refuseUnsafeInCapture(driver, function);
  if (work.width == 0 || work.height == 0 || work.depth == 0) return;
  resolve(driver, *stream->context, work, function);
  const bool involvesHost = work.to.where != Side::Where::kDevice || work.from.where != Side::Where::kDevice;
  const bool toPageable = work.to.where == Side::Where::kPageable;
  if (work.from.where == Side::Where::kPageable && !stream->capture) {
    const auto* from = reinterpret_cast<const std::byte*>(work.from.address);
    const size_t bytes = extent(work.width, work.height, work.depth, work.from.pitch, work.from.rows);
    work.staged = std::make_shared<std::vector<std::byte>>(from, from + bytes);
  }
  const OpRef op = submit(driver, stream, std::move(work));
  if (!op || !((isSynchronous && involvesHost) || toPageable)) return;
  driver.finish(op);
  require(stream->context->sticky == CUDA_SUCCESS, stream->context->sticky);
}

namespace {

CopyWork linear(Side::Where to, uint64_t toAddress, Side::Where from, uint64_t fromAddress, size_t bytes) {
  CopyWork work;
  work.to = {to, -1, toAddress, bytes, 1};
  work.from = {from, -1, fromAddress, bytes, 1};
  work.width = bytes;
  return work;
}

constexpr Side::Where kDevice = Side::Where::kDevice, kHost = Side::Where::kPageable;

CUresult copyEntry(const char* function, CUstream stream, bool isSynchronous, const CopyWork& work) {
  return entry(function, Needs::kContext, [&](Driver& driver) {
    copy(driver, isSynchronous ? current()->legacy : streamOf(driver, stream), work, isSynchronous, function);
  });
}

CUresult copyEntry(const char* function, CUstream stream, bool isSynchronous, const CUDA_MEMCPY3D* copyParams) {
  return entry(function, Needs::kContext, [&](Driver& driver) {
    require(copyParams != nullptr, CUDA_ERROR_INVALID_VALUE);
    copy(driver, isSynchronous ? current()->legacy : streamOf(driver, stream), fromMemcpy3D(*copyParams), isSynchronous,
         function);
  });
}

CUDA_MEMCPY3D fromMemcpy2D(const CUDA_MEMCPY2D& c) {
  CUDA_MEMCPY3D copy{};
  copy.srcXInBytes = c.srcXInBytes;
  copy.srcY = c.srcY;
  copy.srcMemoryType = c.srcMemoryType;
  copy.srcHost = c.srcHost;
  copy.srcDevice = c.srcDevice;
  copy.srcPitch = c.srcPitch;
  copy.dstXInBytes = c.dstXInBytes;
  copy.dstY = c.dstY;
  copy.dstMemoryType = c.dstMemoryType;
  copy.dstHost = c.dstHost;
  copy.dstDevice = c.dstDevice;
  copy.dstPitch = c.dstPitch;
  copy.WidthInBytes = c.WidthInBytes;
  copy.Height = c.Height;
  copy.Depth = 1;
  return copy;
}

CUresult copyEntry(const char* function, CUstream stream, bool isSynchronous, const CUDA_MEMCPY2D* copyParams) {
  if (!copyParams) return CUDA_ERROR_INVALID_VALUE;
  const CUDA_MEMCPY3D copy = fromMemcpy2D(*copyParams);
  return copyEntry(function, stream, isSynchronous, &copy);
}

uint64_t addressOf(const void* host) { return reinterpret_cast<uint64_t>(host); }

// Unified addresses: the kind of memory follows from the address; anything unknown is the host's.
CopyWork unified(CUdeviceptr target, CUdeviceptr source, size_t bytes) {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  return linear(driver.owner(target) ? kDevice : kHost, target, driver.owner(source) ? kDevice : kHost, source, bytes);
}

CUresult peerEntry(const char* function, CUdeviceptr target, CUcontext targetContext, CUdeviceptr source,
                   CUcontext sourceContext, size_t bytes, CUstream stream, bool isSynchronous) {
  return entry(function, Needs::kContext, [&](Driver& driver) {
    CopyWork work = linear(kDevice, target, kDevice, source, bytes);
    work.peer = true;
    for (const auto& [address, handle] : {std::pair(target, targetContext), std::pair(source, sourceContext)}) {
      const std::shared_ptr<Context> context = driver.object<Context>(handle);
      if (driver.owner(address) != &context->gpu)
        driver.misuse("wrong context",
                      std::string(function) + ": the memory does not belong to the context given for it",
                      CUDA_ERROR_INVALID_VALUE);
    }
    copy(driver, isSynchronous ? current()->legacy : streamOf(driver, stream), work, isSynchronous, function);
  });
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" {

CUresult cuMemcpy(CUdeviceptr target, CUdeviceptr source, size_t bytes) {
  return copyEntry("cuMemcpy", nullptr, true, unified(target, source, bytes));
}

CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copyEntry("cuMemcpyAsync", stream, false, unified(target, source, bytes));
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void* source, size_t bytes) {
  return copyEntry("cuMemcpyHtoD", nullptr, true, linear(kDevice, target, kHost, addressOf(source), bytes));
}

CUresult cuMemcpyDtoH_v2(void* target, CUdeviceptr source, size_t bytes) {
  return copyEntry("cuMemcpyDtoH", nullptr, true, linear(kHost, addressOf(target), kDevice, source, bytes));
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes) {
  return copyEntry("cuMemcpyDtoD", nullptr, true, linear(kDevice, target, kDevice, source, bytes));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, size_t bytes, CUstream stream) {
  return copyEntry("cuMemcpyHtoDAsync", stream, false, linear(kDevice, target, kHost, addressOf(source), bytes));
}

CUresult cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copyEntry("cuMemcpyDtoHAsync", stream, false, linear(kHost, addressOf(target), kDevice, source, bytes));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return copyEntry("cuMemcpyDtoDAsync", stream, false, linear(kDevice, target, kDevice, source, bytes));
}

CUresult cuMemcpyPeer(CUdeviceptr target, CUcontext targetContext, CUdeviceptr source, CUcontext sourceContext,
                      size_t bytes) {
  return peerEntry("cuMemcpyPeer", target, targetContext, source, sourceContext, bytes, nullptr, true);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr target, CUcontext targetContext, CUdeviceptr source, CUcontext sourceContext,
                           size_t bytes, CUstream stream) {
  return peerEntry("cuMemcpyPeerAsync", target, targetContext, source, sourceContext, bytes, stream, false);
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* params) { return copyEntry("cuMemcpy2D", nullptr, true, params); }

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* params) {
  return copyEntry("cuMemcpy2DUnaligned", nullptr, true, params);
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* params, CUstream stream) {
  return copyEntry("cuMemcpy2DAsync", stream, false, params);
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* params) { return copyEntry("cuMemcpy3D", nullptr, true, params); }

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* params, CUstream stream) {
  return copyEntry("cuMemcpy3DAsync", stream, false, params);
}
}

}  // namespace cudasim::abi
