// One device's global memory. Device addresses lie in a reserved range without host pages, so a host dereference traps
// at once; the bytes live elsewhere, next to a shadow that knows which of them were written.
//
// Not thread-safe against itself: the caller runs one operation of a device at a time (a launch is one operation, and
// uses its own threads inside).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fault.h"

namespace cudasim {

struct Allocation;  // allocation.h
struct Touched;     // machine.h

class Memory {
 public:
  explicit Memory(int device, size_t capacity = size_t{8} << 30);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // 256-byte aligned; red zones on both sides; contents uninitialized. 0 when the capacity is used up.
  uint64_t allocate(size_t bytes, std::string label);
  // Throws kUseAfterFree for an address released before, kOutOfBounds for one that allocate never returned.
  // The address range is not used again until the reserved range wraps around.
  void release(uint64_t address);

  // Pinned host memory that kernels may use under its host address. Always counts as initialized.
  void mapHost(void* host, size_t bytes, std::string label);
  void unmapHost(void* host);

  // All throw kOutOfBounds or kUseAfterFree unless [address, address + bytes) lies in one live allocation.
  void copyIn(uint64_t to, const void* from, size_t bytes);
  void copyOut(void* to, uint64_t from, size_t bytes);  // uninitialized bytes are copied as they are
  void copyWithin(uint64_t to, Memory& source, uint64_t from, size_t bytes);  // shadows travel with the bytes
  void set(uint64_t to, uint32_t value, size_t width, size_t count);          // width 1, 2 or 4
  void invalidate(uint64_t address, size_t bytes);  // uninitialized again: for allocators that recycle blocks
  size_t uninitializedBytes(uint64_t address, size_t bytes);

  struct Range {
    uint64_t address = 0;
    size_t bytes = 0;
    std::string label;
    bool live = false;  // false: released
    bool host = false;  // from mapHost
  };
  bool find(uint64_t address, Range* range) const;  // released allocations are found, too
  bool owns(uint64_t address) const;                // in this device's reserved range, allocated or not
  std::vector<Range> live() const;                  // in order of address, without mapped host memory

  int device() const { return device_; }
  size_t capacity() const { return capacity_; }
  size_t used() const { return used_; }

  // For the machine: the allocation whose range or red zone holds `address`, released ones too; null when none.
  Allocation* lookup(uint64_t address) const;
  // "16 bytes past the end of 'weights' (4096 bytes at 0x...)", "in no allocation", ...
  std::string describe(uint64_t address) const;
  static const Memory* ownerOf(uint64_t address);  // the device, of all in the process, whose range holds it
  void collectTouched(uint64_t firstRun, std::vector<Touched>& out) const;  // by blocks from `firstRun` on
  // For module variables in constant memory: kernels may not write.
  void setReadOnly(uint64_t address);

 private:
  void forgetReleased();
  Allocation& checked(uint64_t address, size_t bytes, const char* what) const;

  int device_;
  size_t capacity_, used_ = 0;
  uint64_t base_ = 0, next_ = 0;
  size_t reserved_ = 0, released_ = 0;
  std::map<uint64_t, std::unique_ptr<Allocation>> allocations_;  // by first address
};

}  // namespace cudasim
