// Pinned host memory: every card may touch it under its host address, and copies read it when they run.
#include <sys/mman.h>
#include <unistd.h>

#include "access.h"
#include "capture.h"
#include "entry.h"
#include "memory.h"

namespace cudasim::driver {

using namespace abi;

namespace {

constexpr unsigned kAllocFlags = 0x07;     // portable, mapped, write-combined: all the same here
constexpr unsigned kRegisterFlags = 0x03;  // portable, mapped

void pin(Driver& driver, void* host, size_t bytes, unsigned flags, bool isRegistered) {
  std::string label = allocationLabel().empty() ? "pinned host memory" : allocationLabel();
  label += " #" + std::to_string(driver.nextId++);
  for (const auto& gpu : driver.gpus) gpu->memory.mapHost(host, bytes, label);
  driver.hostBlocks[reinterpret_cast<uint64_t>(host)] = {bytes, flags, isRegistered, current()};
}

// The wait is what the driver does; a program that relies on it frees memory that a copy uses.
void unpin(Driver& driver, std::map<uint64_t, HostBlock>::iterator block, const char* function) {
  const Clock before = driver.host;
  for (const auto& gpu : driver.gpus)
    if (gpu->primary) driver.drain(*gpu->primary);
  const auto conflict = driver.history.unordered(block->first, block->second.bytes, before);
  if (conflict && driver.settings.checkStreams)
    driver.report.finding("free in use", std::string(function) + " of pinned host memory while " + conflict->other +
                                             (conflict->otherWrote ? " writes" : " reads") +
                                             " it; wait for the stream first");
  driver.history.forget(block->first, block->second.bytes);
  for (const auto& gpu : driver.gpus) gpu->memory.unmapHost(reinterpret_cast<void*>(block->first));
  driver.hostBlocks.erase(block);
}

void allocateHost(Driver& driver, void** host, size_t bytes, unsigned flags) {
  require(host && bytes > 0, CUDA_ERROR_INVALID_VALUE);
  require((flags & ~kAllocFlags) == 0, CUDA_ERROR_INVALID_VALUE);
  refuseUnsafeInCapture(driver, "cuMemHostAlloc");
  refuseByRequest(driver.settings, driver.settings.failHostAllocation);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
  pin(driver, memory, bytes, flags, false);
  *host = memory;
}

std::map<uint64_t, HostBlock>::iterator exactBlock(Driver& driver, void* host, bool isRegistered, CUresult otherwise) {
  const auto block = driver.hostBlocks.find(reinterpret_cast<uint64_t>(host));
  require(block != driver.hostBlocks.end() && block->second.isRegistered == isRegistered, otherwise);
  return block;
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuMemAllocHost_v2(void** host, size_t bytes) {
  return entry("cuMemAllocHost", Needs::kContext, [&](Driver& driver) { allocateHost(driver, host, bytes, 0); });
}

extern "C" CUresult cuMemHostAlloc(void** host, size_t bytes, unsigned flags) {
  return entry("cuMemHostAlloc", Needs::kContext, [&](Driver& driver) { allocateHost(driver, host, bytes, flags); });
}

extern "C" CUresult cuMemFreeHost(void* host) {
  return entry("cuMemFreeHost", Needs::kContext, [&](Driver& driver) {
    if (!host) return;
    refuseUnsafeInCapture(driver, "cuMemFreeHost");
    const auto block = exactBlock(driver, host, false, CUDA_ERROR_INVALID_VALUE);
    const size_t bytes = block->second.bytes;
    unpin(driver, block, "cuMemFreeHost");
    munmap(host, bytes);
  });
}

extern "C" CUresult cuMemHostRegister_v2(void* host, size_t bytes, unsigned flags) {
  return entry("cuMemHostRegister", Needs::kContext, [&](Driver& driver) {
    require(host && bytes > 0 && (flags & ~kRegisterFlags) == 0, CUDA_ERROR_INVALID_VALUE);
    refuseUnsafeInCapture(driver, "cuMemHostRegister");
    const auto first = reinterpret_cast<uint64_t>(host);
    const auto after = driver.hostBlocks.lower_bound(first);
    const bool overlaps = driver.hostBlock(first) != driver.hostBlocks.end() ||
                          (after != driver.hostBlocks.end() && after->first < first + bytes);
    require(!overlaps, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    pin(driver, host, bytes, flags, true);
  });
}

extern "C" CUresult cuMemHostUnregister(void* host) {
  return entry("cuMemHostUnregister", Needs::kContext, [&](Driver& driver) {
    require(host != nullptr, CUDA_ERROR_INVALID_VALUE);
    refuseUnsafeInCapture(driver, "cuMemHostUnregister");
    unpin(driver, exactBlock(driver, host, true, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED), "cuMemHostUnregister");
  });
}

extern "C" CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* address, void* host, unsigned flags) {
  return entry("cuMemHostGetDevicePointer", Needs::kContext, [&](Driver& driver) {
    require(address && flags == 0, CUDA_ERROR_INVALID_VALUE);
    const auto wanted = reinterpret_cast<uint64_t>(host);
    require(driver.hostBlock(wanted) != driver.hostBlocks.end(), CUDA_ERROR_INVALID_VALUE, "not pinned");
    *address = wanted;  // one address for both, as on every 64-bit Linux
  });
}

extern "C" CUresult cuMemHostGetFlags(unsigned* flags, void* host) {
  return entry("cuMemHostGetFlags", Needs::kContext, [&](Driver& driver) {
    require(flags != nullptr, CUDA_ERROR_INVALID_VALUE);
    const auto block = driver.hostBlock(reinterpret_cast<uint64_t>(host));
    require(block != driver.hostBlocks.end(), CUDA_ERROR_INVALID_VALUE, "not pinned");
    *flags = block->second.flags;
  });
}

}  // namespace cudasim::abi
