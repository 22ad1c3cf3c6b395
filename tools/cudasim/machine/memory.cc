#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "allocation.h"
#include "machine.h"
#include "run/order.h"

namespace cudasim {

namespace {

constexpr size_t kKeptReleased = 16384;  // how many released allocations are remembered by name

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void fail(Fault fault, uint64_t address, const std::string& message) {
  throw SimError({.fault = fault, .message = message, .kernel = {}, .address = address});
}

// Zeros. Large shadows are reserved only: their pages appear when touched.
constexpr size_t kReserveFrom = size_t{1} << 20;

uint64_t* reserveWords(size_t bytes) {
  void* p = bytes < kReserveFrom
                ? std::calloc(bytes, 1)
                : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!p || p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint64_t*>(p);
}

void releaseWords(uint64_t* p, size_t bytes) {
  if (bytes < kReserveFrom)
    std::free(p);
  else
    munmap(p, bytes);
}

Bytes zeroed(size_t bytes) {
  auto* p = static_cast<uint8_t*>(std::calloc(std::max<size_t>(bytes, 1), 1));
  if (!p) throw std::bad_alloc();
  return Bytes(p);
}

std::mutex ownersMutex;
std::vector<const Memory*> owners;

}  // namespace

void FreeBytes::operator()(uint8_t* p) const { std::free(p); }

RaceShadow::RaceShadow(size_t bytes, int s) : shift(s), mapped_(bytesOf(bytes, s)) {
  writers = reserveWords(mapped_);
  readers = reserveWords(mapped_);
  touched.resize(bytes / kTouchedBytes + 1);
}

RaceShadow::~RaceShadow() {
  releaseWords(writers, mapped_);
  releaseWords(readers, mapped_);
}

RaceShadow& Allocation::raceShadow(int shift) {
  const auto fits = [&](const RaceShadow* s) { return s && s->shift == shift && s->generation == shadowGeneration; };
  RaceShadow* found = shadow.load(std::memory_order_acquire);
  if (fits(found)) return *found;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  found = shadow.load(std::memory_order_acquire);
  if (fits(found)) return *found;
  // Only one launch uses a device's memory at a time and it has one granule, so nobody reads the one that goes.
  shadowStorage = std::make_unique<RaceShadow>(bytes, shift);
  shadow.store(shadowStorage.get(), std::memory_order_release);
  return *shadowStorage;
}

Memory::Memory(int device, size_t capacity) : device_(device), capacity_(capacity) {
  // Room for every byte many times over: an address that was released stays unused for long.
  for (reserved_ = size_t{1} << 40; reserved_ >= capacity; reserved_ /= 2) {
    void* p = mmap(nullptr, reserved_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    base_ = reinterpret_cast<uint64_t>(p);
    next_ = (base_ + kGlobalRedZone + 511) / 512 * 512;
    const std::lock_guard lock(ownersMutex);
    owners.push_back(this);
    return;
  }
  throw std::bad_alloc();
}

void Memory::collectTouched(uint64_t firstRun, std::vector<Touched>& out) const {
  for (const auto& [address, a] : allocations_) {
    const RaceShadow* s = a->shadow;
    if (!s) continue;
    const uint64_t base = firstRun << kBlockShift, perPiece = kTouchedBytes >> s->shift;
    const uint64_t granules = (a->bytes + (uint64_t{1} << s->shift) - 1) >> s->shift;
    for (const bool written : {false, true}) {
      const uint64_t* entries = written ? s->writers : s->readers;
      uint64_t begin = 0, end = 0;  // of the range that grows
      const auto flush = [&] {
        if (begin != end)
          out.push_back({address + (begin << s->shift),
                         std::min<uint64_t>(end << s->shift, a->bytes) - (begin << s->shift), written});
        begin = end = 0;
      };
      for (uint64_t piece = 0; piece < s->touched.size(); ++piece) {
        if (s->touched[piece] != firstRun) continue;
        for (uint64_t g = piece * perPiece; g < std::min((piece + 1) * perPiece, granules); ++g) {
          if (entries[g] < base) continue;
          if (g != end) flush(), begin = g;
          end = g + 1;
        }
      }
      flush();
    }
  }
}

Memory::~Memory() {
  {
    const std::lock_guard lock(ownersMutex);
    std::erase(owners, this);
  }
  munmap(reinterpret_cast<void*>(base_), reserved_);
}

const Memory* Memory::ownerOf(uint64_t address) {
  const std::lock_guard lock(ownersMutex);
  for (const Memory* m : owners)
    if (m->owns(address)) return m;
  return nullptr;
}

bool Memory::owns(uint64_t address) const { return address - base_ < reserved_; }

uint64_t Memory::allocate(size_t bytes, std::string label) {
  if (bytes > capacity_ - used_) return 0;
  const size_t room = (bytes + 511) / 512 * 512 + kGlobalRedZone;
  if (next_ + room > base_ + reserved_) {
    next_ = (base_ + kGlobalRedZone + 511) / 512 * 512;
    forgetReleased();
  }
  for (auto a = allocations_.lower_bound(next_ - kGlobalRedZone);
       a != allocations_.end() && a->second->live && a->first < next_ + room; ++a)
    next_ = a->first + (a->second->bytes + 511) / 512 * 512 + kGlobalRedZone;
  if (next_ + room > base_ + reserved_) return 0;
  auto a = std::make_unique<Allocation>();
  a->address = next_;
  a->bytes = bytes;
  a->label = std::move(label);
  a->storage = zeroed(bytes);
  a->validStorage = zeroed(bytes);
  a->data = a->storage.get();
  a->valid = a->validStorage.get();
  next_ += room;
  used_ += bytes;
  const uint64_t address = a->address;
  allocations_[address] = std::move(a);
  return address;
}

void Memory::release(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end() || found->second->host)
    fail(Fault::kOutOfBounds, address, "release of " + hex(address) + ", which is " + describe(address));
  Allocation& a = *found->second;
  if (!a.live)
    fail(Fault::kUseAfterFree, address, "release of '" + a.label + "' at " + hex(address) + ", released before");
  a.live = false;
  used_ -= a.bytes;
  a.storage.reset();
  a.validStorage.reset();
  a.shadowStorage.reset();
  a.shadow = nullptr;
  a.data = a.valid = nullptr;
  if (++released_ >= kKeptReleased) forgetReleased();
}

void Memory::forgetReleased() {
  std::erase_if(allocations_, [](const auto& one) { return !one.second->live; });
  released_ = 0;
}

void Memory::mapHost(void* host, size_t bytes, std::string label) {
  auto a = std::make_unique<Allocation>();
  a->address = reinterpret_cast<uint64_t>(host);
  a->bytes = bytes;
  a->label = std::move(label);
  a->data = static_cast<uint8_t*>(host);
  a->host = true;
  allocations_[a->address] = std::move(a);
}

void Memory::unmapHost(void* host) {
  const auto found = allocations_.find(reinterpret_cast<uint64_t>(host));
  if (found != allocations_.end() && found->second->host) allocations_.erase(found);
}

Allocation* Memory::lookup(uint64_t address) const {
  const auto after = allocations_.upper_bound(address);
  if (after != allocations_.begin()) {
    Allocation* before = std::prev(after)->second.get();
    if (address - before->address < before->bytes) return before;
    if (!before->host && address - before->address < before->bytes + kGlobalRedZone) return before;
  }
  if (after != allocations_.end() && !after->second->host && after->first - address <= kGlobalRedZone)
    return after->second.get();
  return nullptr;
}

std::string Memory::describe(uint64_t address) const {
  if (address < 4096) return "near null";
  const Allocation* a = lookup(address);
  if (!a) return owns(address) ? "in no allocation of device " + std::to_string(device_) : "no device address";
  const std::string name = "'" + a->label + "' (" + std::to_string(a->bytes) + " bytes at " + hex(a->address) + ")";
  const std::string what = a->live ? "" : "released ";
  if (address < a->address) return std::to_string(a->address - address) + " bytes before " + what + name;
  const uint64_t offset = address - a->address;
  if (offset < a->bytes) return "byte " + std::to_string(offset) + " of " + what + name;
  return std::to_string(offset - a->bytes) + " bytes past the end of " + what + name;
}

bool Memory::find(uint64_t address, Range* range) const {
  const Allocation* a = lookup(address);
  if (!a || address - a->address >= std::max<size_t>(a->bytes, 1)) return false;
  *range = {a->address, a->bytes, a->label, a->live, a->host};
  return true;
}

std::vector<Memory::Range> Memory::live() const {
  std::vector<Range> result;
  for (const auto& [address, a] : allocations_)
    if (a->live && !a->host) result.push_back({address, a->bytes, a->label, true, false});
  return result;
}

Allocation& Memory::checked(uint64_t address, size_t bytes, const char* what) const {
  Allocation* a = lookup(address);
  if (a && !a->live)
    fail(Fault::kUseAfterFree, address, std::string(what) + " at " + hex(address) + ", " + describe(address));
  if (!a || address < a->address || bytes > a->bytes || address - a->address > a->bytes - bytes)
    fail(Fault::kOutOfBounds, address,
         std::string(what) + " of " + std::to_string(bytes) + " bytes at " + hex(address) + ", " + describe(address));
  return *a;
}

void Memory::copyIn(uint64_t to, const void* from, size_t bytes) {
  if (!bytes) return;
  Allocation& a = checked(to, bytes, "copy");
  std::memcpy(a.data + (to - a.address), from, bytes);
  if (a.valid) std::memset(a.valid + (to - a.address), 1, bytes);
}

void Memory::copyOut(void* to, uint64_t from, size_t bytes) {
  if (!bytes) return;
  const Allocation& a = checked(from, bytes, "copy");
  std::memcpy(to, a.data + (from - a.address), bytes);
}

void Memory::copyWithin(uint64_t to, Memory& source, uint64_t from, size_t bytes) {
  if (!bytes) return;
  const Allocation& s = source.checked(from, bytes, "copy");
  Allocation& d = checked(to, bytes, "copy");
  std::memmove(d.data + (to - d.address), s.data + (from - s.address), bytes);
  if (!d.valid) return;
  if (s.valid)
    std::memmove(d.valid + (to - d.address), s.valid + (from - s.address), bytes);
  else
    std::memset(d.valid + (to - d.address), 1, bytes);
}

void Memory::set(uint64_t to, uint32_t value, size_t width, size_t count) {
  if (!count) return;
  if (to % width) fail(Fault::kMisaligned, to, "set of " + std::to_string(width) + "-byte elements at " + hex(to));
  Allocation& a = checked(to, width * count, "set");
  uint8_t* data = a.data + (to - a.address);
  const auto fill = [&](auto element) {
    for (size_t i = 0; i < count; ++i) std::memcpy(data + i * sizeof element, &element, sizeof element);
  };
  if (width == 1)
    fill(static_cast<uint8_t>(value));
  else if (width == 2)
    fill(static_cast<uint16_t>(value));
  else
    fill(value);
  if (a.valid) std::memset(a.valid + (to - a.address), 1, width * count);
}

void Memory::invalidate(uint64_t address, size_t bytes) {
  if (!bytes) return;
  Allocation& a = checked(address, bytes, "invalidate");
  if (a.valid) std::memset(a.valid + (address - a.address), 0, bytes);
}

size_t Memory::uninitializedBytes(uint64_t address, size_t bytes) {
  if (!bytes) return 0;
  const Allocation& a = checked(address, bytes, "query");
  if (!a.valid) return 0;
  const uint8_t* valid = a.valid + (address - a.address);
  return static_cast<size_t>(std::count(valid, valid + bytes, 0));
}

void Memory::setReadOnly(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found != allocations_.end()) found->second->readOnly = true;
}

}  // namespace cudasim
