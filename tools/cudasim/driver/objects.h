// What the handles of the interface stand for.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>

#include "op.h"
#include "status.h"
#include "work.h"

namespace cudasim::driver {

struct Object {
  virtual ~Object() = default;
  uintptr_t handle = 0;  // 0: not in the table
};

struct Pool;
struct Capture;
struct GraphNode;
using NodeRef = std::shared_ptr<GraphNode>;

// A block of device memory that a call returned.
struct Block {
  uint64_t address = 0;
  size_t bytes = 0;
  std::string label;
  std::shared_ptr<Context> context;
  std::shared_ptr<Pool> pool;  // null: cuMemAlloc
  bool freeQueued = false;     // cuMemFreeAsync was called
};

// A simulated card.
struct Gpu {
  Gpu(int ordinal, size_t capacity);
  const int ordinal;
  Memory memory;
  std::map<uint64_t, Block> blocks;  // by address
  std::shared_ptr<Context> primary;  // null: not active
  int retained = 0;
  unsigned flags = 0;
  std::shared_ptr<Pool> defaultPool, currentPool;
  std::vector<std::weak_ptr<Pool>> pools;  // all of them
  uint64_t nanoseconds = 0;                // virtual time, for events: see execute.cc
};

struct Stream : Object {
  std::shared_ptr<Context> context;
  Lane lane;
  unsigned flags = 0;
  int priority = 0;
  bool isLegacy = false;
  uint64_t id = 0;
  std::shared_ptr<Capture> capture;  // null: not capturing
  std::vector<NodeRef> captured;     // what the next captured call depends on
  bool isBlocking() const { return !isLegacy && !(flags & abi::CU_STREAM_NON_BLOCKING); }
  std::string name() const;  // "stream 3 of device 0"
};

struct Event : Object {
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  OpRef op;                                        // of the last record; null: never recorded
  std::shared_ptr<uint64_t> time;                  // nanoseconds, written when that ran
  std::weak_ptr<Capture> capture;                  // recorded last in a capturing stream
  std::vector<std::weak_ptr<GraphNode>> captured;  // what a waiting stream depends on
  bool isCaptured = false;
};

struct Pool : Object {
  Gpu* gpu = nullptr;
  bool isDefault = false;
  std::map<abi::CUmemPool_attribute, uint64_t> attributes;
  std::set<int> access;  // other devices that may touch its memory
  uint64_t used = 0, usedHigh = 0, reserved = 0, reservedHigh = 0;
};

struct LoadedModule : Object, std::enable_shared_from_this<LoadedModule> {
  std::shared_ptr<Context> context;
  std::shared_ptr<const Module> code;
  std::unique_ptr<ModuleInstance> instance;
  std::map<std::string, std::shared_ptr<Function>, std::less<>> functions;
};

struct Function : Object {
  std::weak_ptr<LoadedModule> module;
  std::shared_ptr<const Module> code;  // keeps the kernel alive
  std::shared_ptr<Context> context;
  const Kernel* kernel = nullptr;
  int maxDynamicShared = 48 << 10;
  int carveout = -1;
};

class Context : public Object, public std::enable_shared_from_this<Context> {
 public:
  Context(Gpu& gpu, unsigned flags);
  Gpu& gpu;
  unsigned flags;
  uint64_t id = 0;
  bool isDestroyed = false;
  abi::CUresult sticky = abi::CUDA_SUCCESS;  // after a fault, every call returns it
  std::shared_ptr<Stream> legacy;
  std::map<std::thread::id, std::shared_ptr<Stream>> perThread;
  std::vector<std::weak_ptr<Stream>> streams;  // all of them
  std::vector<OpRef> orphans;                  // last operations of streams that were destroyed
  std::set<int> peers;                         // devices whose memory it may touch
  std::map<abi::CUlimit, size_t> limits;

  std::shared_ptr<Stream> addStream(unsigned flags, int priority);
  void each(const std::function<void(Stream&)>& visit);
};

inline constexpr int kGreatestPriority = -5;  // lower is more urgent; 0 is the least

struct HostBlock {
  size_t bytes = 0;
  unsigned flags = 0;
  bool isRegistered = false;  // the program's memory, pinned by cuMemHostRegister
  std::shared_ptr<Context> context;
};

}  // namespace cudasim::driver
