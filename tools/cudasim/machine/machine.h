// The simulated CUDA machine: loads PTX, runs kernels on the CPU and checks every access.
//
//   auto module = loadModule(ptx);                 // refuses what it cannot execute, with the PTX line
//   Memory memory(0);
//   ModuleInstance instance(module, memory);       // module variables get addresses on one device
//   Device device{&memory};
//   launch(device, {.kernel = module->find("add"), .instance = &instance, .grid = {8}, .block = {256}, .params =
//   bytes});
//
// Work is synchronous: when launch returns, memory holds the result. Streams and asynchrony are the driver's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fault.h"
#include "memory.h"

namespace cudasim {

struct Program;  // program.h: decoded instructions

struct Kernel {
  struct Param {
    uint32_t offset, bytes, align;
  };
  std::string name;
  std::vector<Param> params;
  uint32_t paramBytes = 0;     // end of the last parameter
  uint32_t staticShared = 0;   // bytes, without dynamic shared memory
  uint32_t localBytes = 0;     // a thread's stack
  uint32_t registers = 0;      // 32-bit registers at the highest pressure: an estimate, ptxas knows better
  Dim3 reqntid{0, 0, 0};       // 0: no .reqntid
  Dim3 maxntid{0, 0, 0};       // 0: no .maxntid
  uint32_t maxThreads = 1024;  // from both
  uint32_t minBlocks = 0;      // .minnctapersm
  std::shared_ptr<const Program> program;
};

struct Symbol {  // a .global or .const variable
  std::string name;
  uint64_t bytes = 0;
  bool constant = false;
};

class Module {
 public:
  virtual ~Module() = default;
  virtual const Kernel* find(std::string_view kernel) const = 0;  // null when there is none
  virtual const Symbol* symbol(std::string_view name) const = 0;
  virtual std::vector<const Kernel*> kernels() const = 0;  // in the order of the text
  virtual int ptxVersion() const = 0;                      // 90 for 9.0
  virtual int target() const = 0;                          // 80 for sm_80
};

// Throws SimError with kBadPtx or kUnknownOpcode.
std::shared_ptr<const Module> loadModule(std::string_view ptx);

// A module's variables on one device, initialized as the text says. Released with the instance.
class ModuleInstance {
 public:
  ModuleInstance(std::shared_ptr<const Module> module, Memory& memory);
  ~ModuleInstance();
  ModuleInstance(const ModuleInstance&) = delete;
  ModuleInstance& operator=(const ModuleInstance&) = delete;

  uint64_t address(std::string_view symbol) const;  // 0 when there is none
  const Module& module() const { return *module_; }

 private:
  std::shared_ptr<const Module> module_;
  Memory& memory_;
  std::map<std::string, uint64_t, std::less<>> addresses_;
};

// Limits of compute capability 8.0.
struct DeviceLimits {
  uint32_t maxThreadsPerBlock = 1024;
  Dim3 maxBlock{1024, 1024, 64};
  Dim3 maxGrid{0x7fffffff, 65535, 65535};
  uint32_t sharedPerBlock = 48 << 10;
  uint32_t sharedPerBlockOptIn = 163 << 10;
  uint32_t multiprocessors = 108;
  uint32_t threadsPerMultiprocessor = 2048;
  uint32_t blocksPerMultiprocessor = 32;
  uint32_t sharedPerMultiprocessor = 164 << 10;
};

struct Device {
  Memory* memory = nullptr;
  std::vector<Memory*> peers;  // memories of other devices that this one may access
  DeviceLimits limits;
};

struct Launch {
  const Kernel* kernel = nullptr;
  const ModuleInstance* instance = nullptr;  // may be null when the module has no variables
  Dim3 grid, block;
  uint32_t dynamicShared = 0;
  uint32_t maxDynamicShared = 48 << 10;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
  std::span<const std::byte> params;     // laid out as Kernel::params says; may be longer
  bool cooperative = false;              // every block resident at once
};

struct Touched {  // a range of bytes of global memory that a launch used
  uint64_t address;
  size_t bytes;
  bool written;  // otherwise read
};

struct Options {
  bool checkMemory = true;                   // bounds are always checked; this is alignment, use after free, read-only
  bool checkInitialized = true;              // global, shared, local, registers
  bool checkRaces = true;                    // shared, global, between blocks
  bool checkLanes = true;                    // races between lanes of one warp
  bool checkWarpSync = true;                 // member masks, shuffles from inactive lanes
  uint64_t seed = 0;                         // order of blocks and warps; 0: ascending
  int ulpPerturbation = 0;                   // approximate operations are off by up to so many ulp, by seed
  uint64_t watchdog = 4'000'000'000;         // warp instructions of one launch
  int hostThreads = 0;                       // 0: CUDASIM_THREADS, or the processor's count
  std::vector<Finding>* findings = nullptr;  // collect (one per instruction and fault) instead of throwing the first
  std::vector<Touched>* touched = nullptr;   // filled when given, also if the launch throws; needs checkRaces
};

struct Counters {
  uint64_t launches = 0, blocks = 0, threads = 0;
  uint64_t warpInstructions = 0, threadInstructions = 0;
  struct Count {
    uint64_t warps = 0, threads = 0;
  };
  std::shared_ptr<const std::vector<std::string>> opcodes;      // "fma.rn.f32", ...
  std::vector<Count> ofOpcodes;                                 // for each of them
  uint64_t globalBytesLoaded = 0, globalBytesStored = 0;        // asked for by active threads; atomics count as both
  uint64_t globalDistinctLoaded = 0, globalDistinctStored = 0;  // the same, once where lanes share an address
  uint64_t globalLoadRequests = 0, globalStoreRequests = 0;     // warp instructions
  uint64_t globalLoadSectors = 0, globalStoreSectors = 0;       // 32-byte sectors touched
  uint64_t sharedBytesLoaded = 0, sharedBytesStored = 0;
  uint64_t sharedLoadRequests = 0, sharedStoreRequests = 0;
  uint64_t sharedLoadWavefronts = 0,
           sharedStoreWavefronts = 0;  // = requests (x2, x4 for 8, 16 bytes) without conflicts
  uint64_t sharedIdealWavefronts = 0;  // loads and stores, as if there were no conflicts
  uint64_t barriers = 0, atomics = 0, divergentBranches = 0;

  Counters& operator+=(const Counters& other);
  std::map<std::string, Count> byOpcode() const;
};

// Blocks until the grid has run. Throws SimError on the first finding, unless options.findings collects them.
// After a throw, memory holds whatever had been written by then.
Counters launch(Device& device, const Launch& launch, const Options& options = {});

}  // namespace cudasim
