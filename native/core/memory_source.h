// Where an allocator's segments come from: the system, or a device's driver.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradus {

class MemorySource {
 public:
  virtual void* take(size_t bytes) = 0;  // aligned to 2 MB; null when there is no more
  virtual void give(void* base, size_t bytes) noexcept = 0;
  // The contents between two live tensors are not needed any more; the address range stays.
  virtual void discard(void* from, size_t bytes) noexcept {}
  virtual uint64_t limit() = 0;  // bytes that may be in use
  // Whether the host can touch it: then AddressSanitizer is told what is in use.
  virtual bool addressable() const { return true; }
  // False: every allocation is a segment of its own, so that a tool that knows the source's blocks sees each overrun.
  virtual bool keeps() const { return true; }
  // True: nothing is given back now, because a captured graph may use it.
  virtual bool holds() const { return false; }

 protected:
  ~MemorySource() = default;
};

MemorySource& hostMemory();  // pages of this process

}  // namespace gradus
