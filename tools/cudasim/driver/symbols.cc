// Which entry points this driver has: cuGetProcAddress, and the symbols that dlsym finds. An older driver, or one
// without a symbol that a test names, is made by taking names out of the library's own dynamic symbol table when it is
// loaded.
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "entry.h"

namespace cudasim::driver {

using namespace abi;

namespace {

struct Entry {
  const char* symbol;  // as exported
  const char* base;    // as cuGetProcAddress knows it
  int version;
  void* address;
};

const Entry kEntries[] = {
#define CUDASIM_API(symbol, base, version, parameters) {#symbol, #base, version, reinterpret_cast<void*>(&symbol)},
#include "api.def"
#undef CUDASIM_API
};

bool isHidden(const Settings& settings, const Entry& entry) {
  return entry.version > settings.driverVersion || settings.missing.count(entry.symbol) ||
         settings.missing.count(entry.base);
}

// The number of symbols stands in no header; the hash table's chains end with the last one.
size_t symbolCount(const uint32_t* hash) {
  const uint32_t buckets = hash[0], first = hash[1], bloomWords = hash[2];
  const auto* bucket = reinterpret_cast<const uint32_t*>(reinterpret_cast<const ElfW(Addr)*>(hash + 4) + bloomWords);
  const uint32_t* chain = bucket + buckets;
  uint32_t last = 0;
  for (uint32_t i = 0; i < buckets; ++i) last = std::max(last, bucket[i]);
  if (last < first) return first;
  while (!(chain[last - first] & 1)) ++last;
  return last + 1;
}

void hideSymbols(const Settings& settings) {
  Dl_info info;
  link_map* map = nullptr;
  if (!dladdr1(reinterpret_cast<void*>(&cuInit), &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) || !map)
    return;
  ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const uint32_t* hash = nullptr;
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<ElfW(Sym)*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_STRTAB) names = reinterpret_cast<const char*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_GNU_HASH) hash = reinterpret_cast<const uint32_t*>(entry->d_un.d_ptr);
  }
  if (!symbols || !names || !hash) return;
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (size_t i = 0, count = symbolCount(hash); i < count; ++i)
    for (const Entry& entry : kEntries)
      if (isHidden(settings, entry) && std::strcmp(names + symbols[i].st_name, entry.symbol) == 0) {
        const uintptr_t first = reinterpret_cast<uintptr_t>(&symbols[i]) / page * page;
        const size_t bytes = reinterpret_cast<uintptr_t>(&symbols[i] + 1) - first;
        if (mprotect(reinterpret_cast<void*>(first), bytes, PROT_READ | PROT_WRITE) != 0) return;
        symbols[i].st_value = 0;  // what dlsym takes for undefined
        symbols[i].st_shndx = SHN_UNDEF;
      }
}

// Before anybody can look a symbol up.
__attribute__((constructor)) void hideMissingSymbols() {
  const Settings& settings = Driver::get().settings;
  bool any = false;
  for (const Entry& entry : kEntries) any |= isHidden(settings, entry);
  if (any) hideSymbols(settings);
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuGetProcAddress_v2(const char* symbol, void** address, int cudaVersion, cuuint64_t flags,
                                        CUdriverProcAddressQueryResult* status) {
  return entry("cuGetProcAddress", Needs::kNothing, [&](Driver& driver) {
    constexpr cuuint64_t kPerThreadStream = 2;
    require(symbol && address, CUDA_ERROR_INVALID_VALUE);
    require((flags & kPerThreadStream) == 0, CUDA_ERROR_NOT_SUPPORTED, "per-thread variants are not simulated");
    const Entry* best = nullptr;
    bool isKnown = false;
    for (const Entry& entry : kEntries) {
      if (std::strcmp(entry.base, symbol) != 0 || isHidden(driver.settings, entry)) continue;
      isKnown = true;
      if (entry.version <= cudaVersion && (!best || entry.version > best->version)) best = &entry;
    }
    *address = best ? best->address : nullptr;
    if (status)
      *status = best      ? CU_GET_PROC_ADDRESS_SUCCESS
                : isKnown ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    require(best || status, CUDA_ERROR_NOT_FOUND, symbol);
  });
}

}  // namespace cudasim::abi
