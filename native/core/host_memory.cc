// Pages of this process, in huge pages where the system has them.
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdio>

#include "memory_source.h"

namespace gradus {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 << 20;

constexpr size_t roundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

class HostMemory final : public MemorySource {
 public:
  void* take(size_t bytes) override {
    void* base =
        mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    // Huge pages need their alignment; what sticks out at both ends is given back.
    char* start = static_cast<char*>(base);
    char* aligned = reinterpret_cast<char*>(roundUp(reinterpret_cast<size_t>(start), kHugePage));
    if (aligned > start) munmap(start, aligned - start);
    if (const size_t tail = kHugePage - (aligned - start); tail > 0) munmap(aligned + bytes, tail);
    madvise(aligned, bytes, MADV_HUGEPAGE);
    return aligned;
  }

  void give(void* base, size_t bytes) noexcept override { munmap(base, bytes); }

  void discard(void* from, size_t bytes) noexcept override {
    char* first = reinterpret_cast<char*>(roundUp(reinterpret_cast<size_t>(from), kPage));
    char* last = reinterpret_cast<char*>((reinterpret_cast<size_t>(from) + bytes) / kPage * kPage);
    if (last > first) madvise(first, last - first, MADV_DONTNEED);
  }

  // What this process may use: physical memory, or the container's limit where that is lower.
  uint64_t limit() override {
    struct sysinfo info;
    uint64_t bytes = sysinfo(&info) == 0 ? static_cast<uint64_t>(info.totalram) * info.mem_unit : UINT64_MAX;
    for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
      if (FILE* file = std::fopen(path, "re")) {
        unsigned long long most = 0;
        if (std::fscanf(file, "%llu", &most) == 1 && most > 0) bytes = std::min<uint64_t>(bytes, most);
        std::fclose(file);
      }
    }
    return bytes / 100 * 95;  // the rest of the process needs some too
  }
};

}  // namespace

MemorySource& hostMemory() {
  static HostMemory* memory = new HostMemory;
  return *memory;
}

}  // namespace gradus
