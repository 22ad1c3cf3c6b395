// Carrying out queued work.
#include <cstring>

#include "access.h"
#include "entry.h"
#include "extension.h"
#include "pool.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

namespace {

// Virtual time, so that events give the same figures on every run. The rates are those of an A100 on a PCIe 4 bus at
// full tilt; they make times plausible and increasing, no more.
constexpr uint64_t kLaunchNanoseconds = 2000;
constexpr double kInstructionsPerNanosecond = 108 * 64 * 1.41;
constexpr double kDeviceBytesPerNanosecond = 1500;
constexpr double kHostBytesPerNanosecond = 25;

void spend(Gpu& gpu, double amount, double perNanosecond) {
  gpu.nanoseconds += kLaunchNanoseconds + static_cast<uint64_t>(amount / perNanosecond);
}

// A pool's memory is open to the devices that it names; here that opens the whole card, as access to a peer does.
bool mayAccess(const Context& context, const Gpu& other) {
  if (&other == &context.gpu) return false;
  if (context.peers.count(other.ordinal)) return true;
  for (const auto& weak : other.pools)
    if (const auto pool = weak.lock(); pool && pool->access.count(context.gpu.ordinal)) return true;
  return false;
}

void runKernel(Driver& driver, Op& op, const KernelWork& work) {
  Gpu& gpu = op.context->gpu;
  const Kernel& kernel = *work.function->kernel;
  KernelCount& count = driver.kernels[kernel.name];
  ++count.launches;
  count.threadsPerBlock = std::max(count.threadsPerBlock, work.block.count());
  count.dynamicSharedBytes = std::max<uint64_t>(count.dynamicSharedBytes, work.dynamicShared);
  if (driver.settings.failLaunch && --driver.settings.failLaunch == 0)
    driver.misuse("injected fault", op.name + " fails", CUDA_ERROR_LAUNCH_FAILED);
  if (driver.settings.recordOnly) return spend(gpu, 0, 1);

  const std::shared_ptr<LoadedModule> module = work.function->module.lock();
  if (!module) driver.misuse("module unloaded in use", op.name, CUDA_ERROR_LAUNCH_FAILED);
  Device device{.memory = &gpu.memory, .peers = {}, .limits = {}};
  for (const auto& other : driver.gpus)
    if (mayAccess(*op.context, *other)) device.peers.push_back(&other->memory);
  Launch launch;
  launch.kernel = &kernel;
  launch.instance = module->instance.get();
  launch.grid = work.grid;
  launch.block = work.block;
  launch.dynamicShared = work.dynamicShared;
  launch.maxDynamicShared = work.maxDynamicShared;
  launch.params = work.params;
  launch.cooperative = work.cooperative;
  Options options = driver.settings.options();
  std::vector<Touched> touched;
  if (driver.settings.checkStreams && driver.scheduler.hasSeveralLanes()) options.touched = &touched;
  const Counters counters = cudasim::launch(device, launch, options);
  count.counters += counters;
  for (const Touched& range : touched) touch(driver, op, range.address, range.bytes, range.written);
  spend(gpu, static_cast<double>(counters.threadInstructions), kInstructionsPerNanosecond);
}

Memory& memoryOf(Driver& driver, const Side& side) { return driver.gpus[side.device]->memory; }

void copyRow(Driver& driver, const Op& op, const CopyWork& work, uint64_t to, uint64_t from) {
  const bool toDevice = work.to.where == Side::Where::kDevice, fromDevice = work.from.where == Side::Where::kDevice;
  if (work.from.where != Side::Where::kPageable) touch(driver, op, from, work.width, false);
  if (work.to.where != Side::Where::kPageable) touch(driver, op, to, work.width, true);
  if (fromDevice && !toDevice) {
    Memory& memory = memoryOf(driver, work.from);
    requireInitialized(driver, op.name, memory, from, work.width);
    memory.copyOut(reinterpret_cast<void*>(to), from, work.width);
  } else if (toDevice && !fromDevice) {
    memoryOf(driver, work.to).copyIn(to, reinterpret_cast<const void*>(from), work.width);
  } else if (toDevice) {
    memoryOf(driver, work.to).copyWithin(to, memoryOf(driver, work.from), from, work.width);
  } else {
    std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), work.width);
  }
}

void runCopy(Driver& driver, Op& op, const CopyWork& work) {
  const uint64_t from = work.staged ? reinterpret_cast<uint64_t>(work.staged->data()) : work.from.address;
  for (size_t z = 0; z < work.depth; ++z)
    for (size_t y = 0; y < work.height; ++y)
      copyRow(driver, op, work, work.to.address + (z * work.to.rows + y) * work.to.pitch,
              from + (z * work.from.rows + y) * work.from.pitch);
  const bool crossesBus = work.to.where != Side::Where::kDevice || work.from.where != Side::Where::kDevice;
  spend(op.context->gpu, static_cast<double>(work.width * work.height * work.depth),
        crossesBus ? kHostBytesPerNanosecond : kDeviceBytesPerNanosecond);
}

void runSet(Driver& driver, Op& op, const SetWork& work) {
  const size_t rowBytes = work.width * work.elementBytes;
  for (size_t y = 0; y < work.height; ++y) {
    const uint64_t row = work.address + y * work.pitch;
    touch(driver, op, row, rowBytes, true);
    if (Gpu* gpu = driver.owner(row)) {
      gpu->memory.set(row, work.value, work.elementBytes, work.width);
    } else {
      auto* bytes = reinterpret_cast<std::byte*>(row);
      for (size_t x = 0; x < work.width; ++x)
        std::memcpy(bytes + x * work.elementBytes, &work.value, work.elementBytes);
    }
  }
  spend(op.context->gpu, static_cast<double>(rowBytes * work.height), kDeviceBytesPerNanosecond);
}

void runHostFunction(Driver& driver, const HostWork& work, CUresult status) {
  driver.mutex.unlock();
  markHostFunction(true);
  work.call(status);
  markHostFunction(false);
  driver.mutex.lock();
}

void runFree(Driver& driver, Op& op, const FreeWork& work) {
  Block* block = driver.block(work.address);
  if (!block) return;
  touch(driver, op, block->address, block->bytes, true);
  Gpu& gpu = *driver.owner(work.address);
  driver.history.forget(block->address, block->bytes);
  gpu.memory.release(block->address);
  giveToPool(*block->pool, block->bytes);
  gpu.blocks.erase(work.address);
}

struct Runner {
  Driver& driver;
  Op& op;
  void operator()(const EmptyWork&) {}
  void operator()(const KernelWork& work) { runKernel(driver, op, work); }
  void operator()(const CopyWork& work) { runCopy(driver, op, work); }
  void operator()(const SetWork& work) { runSet(driver, op, work); }
  void operator()(const HostWork& work) { runHostFunction(driver, work, CUDA_SUCCESS); }
  void operator()(const FreeWork& work) { runFree(driver, op, work); }
  void operator()(const TaskWork& work) {
    ++driver.kernels[work.name].launches;
    if (driver.settings.recordOnly) return;
    Task task(driver, op, *op.context, op.name);
    work.run(task);
    spend(op.context->gpu, 0, 1);
  }
};

}  // namespace

void execute(Driver& driver, Op& op, const Work& work) {
  Context& context = *op.context;
  if (context.isDestroyed) return;
  if (context.gpu.ordinal == driver.settings.lostDevice) failContext(context, CUDA_ERROR_UNKNOWN);
  if (context.sticky != CUDA_SUCCESS) {
    if (const auto* host = std::get_if<HostWork>(&work); host && host->runsOnError)
      runHostFunction(driver, *host, context.sticky);
    return;
  }
  try {
    std::visit(Runner{driver, op}, work);
  } catch (const SimError& error) {
    driver.report.finding(faultName(error.fault()), std::string(error.what()) + " [" + op.name + "]");
    failContext(context, statusOf(error.fault()));
  } catch (const Status& status) {
    failContext(context, status.code);
  } catch (const std::exception& error) {
    driver.report.finding("internal error of the simulator", op.name + ": " + error.what());
    failContext(context, CUDA_ERROR_LAUNCH_FAILED);
  }
}

CUgraphNodeType nodeType(const Work& work) {
  switch (work.index()) {
    case 1:
    case 5:
      return CU_GRAPH_NODE_TYPE_KERNEL;
    case 2:
      return CU_GRAPH_NODE_TYPE_MEMCPY;
    case 3:
      return CU_GRAPH_NODE_TYPE_MEMSET;
    case 4:
      return CU_GRAPH_NODE_TYPE_HOST;
  }
  return CU_GRAPH_NODE_TYPE_EMPTY;
}

std::string describe(const Work& work) {
  if (const auto* kernel = std::get_if<KernelWork>(&work)) return "kernel " + kernel->function->kernel->name;
  if (const auto* copy = std::get_if<CopyWork>(&work)) {
    const auto side = [](const Side& s) {
      return s.where == Side::Where::kDevice ? "device " + std::to_string(s.device) : std::string("the host");
    };
    return "copy of " + std::to_string(copy->width * copy->height * copy->depth) + " bytes from " + side(copy->from) +
           " to " + side(copy->to);
  }
  if (const auto* set = std::get_if<SetWork>(&work))
    return "memset of " + std::to_string(set->width * set->height * set->elementBytes) + " bytes";
  if (const auto* task = std::get_if<TaskWork>(&work)) return task->name;
  if (std::holds_alternative<HostWork>(work)) return "host function";
  if (std::holds_alternative<FreeWork>(work)) return "cuMemFreeAsync";
  return "marker";
}

}  // namespace cudasim::driver
