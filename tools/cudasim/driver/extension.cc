#include "extension.h"

#include <cstring>

#include "access.h"
#include "capture.h"
#include "entry.h"
#include "queue.h"

namespace cudasim::driver {

using namespace abi;

Task::Task(Driver& driver, Op& op, Context& context, std::string name)
    : driver_(driver), op_(op), context_(context), name_(std::move(name)) {}

namespace {

// Pinned host memory needs no shadow.
Memory* deviceMemory(Driver& driver, const Context& context, const std::string& who, uint64_t address, size_t bytes) {
  Gpu* gpu = driver.owner(address);
  if (gpu) {
    if (gpu == &context.gpu || context.peers.count(gpu->ordinal)) return &gpu->memory;
    driver.misuse("wrong context",
                  who + " touches memory of device " + std::to_string(gpu->ordinal) + ", to which device " +
                      std::to_string(context.gpu.ordinal) + " has no access",
                  CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  const auto block = driver.hostBlock(address);
  if (block != driver.hostBlocks.end() && address + bytes <= block->first + block->second.bytes) return nullptr;
  Finding finding{.fault = Fault::kHostDereference, .message = {}, .kernel = who};
  finding.message = who + " touches " + std::to_string(bytes) + " bytes at " + std::to_string(address) +
                    ", which is neither device memory nor pinned host memory";
  finding.address = address;
  throw SimError(finding);
}

}  // namespace

void Task::read(uint64_t address, void* to, size_t bytes) {
  if (bytes == 0) return;
  Memory* memory = deviceMemory(driver_, context_, name_, address, bytes);
  touch(driver_, op_, address, bytes, false);
  if (!memory) {
    std::memcpy(to, reinterpret_cast<const void*>(address), bytes);
    return;
  }
  memory->copyOut(to, address, bytes);  // checks the bounds first
  requireInitialized(driver_, name_, *memory, address, bytes);
}

void Task::write(uint64_t address, const void* from, size_t bytes) {
  if (bytes == 0) return;
  Memory* memory = deviceMemory(driver_, context_, name_, address, bytes);
  touch(driver_, op_, address, bytes, true);
  if (memory)
    memory->copyIn(address, from, bytes);
  else
    std::memcpy(reinterpret_cast<void*>(address), from, bytes);
}

void Task::reject(const std::string& text) {
  driver_.misuse("library call", name_ + ": " + text, CUDA_ERROR_LAUNCH_FAILED);
}

namespace extension {

int currentDevice() {
  int device = -1;
  entry("cudasim", Needs::kContext, [&](Driver&) { device = current()->gpu.ordinal; });
  return device;
}

CUcontext contextOf(int device) {
  CUcontext context = nullptr;
  entry("cudasim", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Context> primary = driver.gpu(device).primary;
    if (primary) context = driver.handle<CUcontext>(primary);
  });
  return context;
}

CUcontext swapContext(CUcontext context) {
  CUcontext before = nullptr;
  cuCtxGetCurrent(&before);
  cuCtxSetCurrent(context);
  return before;
}

int deviceOfStream(int device, CUstream stream) {
  const bool isDefault = reinterpret_cast<uintptr_t>(stream) <= reinterpret_cast<uintptr_t>(kStreamPerThread);
  if (isDefault) return device;
  int found = -1;
  entry("cudasim", Needs::kInit, [&](Driver& driver) { found = driver.object<Stream>(stream)->context->gpu.ordinal; });
  return found;
}

bool isHealthy(int device) {
  bool healthy = false;
  entry("cudasim", Needs::kInit, [&](Driver& driver) {
    const std::shared_ptr<Context> primary = driver.gpu(device).primary;
    healthy = primary && primary->sticky == CUDA_SUCCESS;
  });
  return healthy;
}

int stuckCollectiveSeconds() {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  return driver.settings.stuckCollective;
}

CUresult submitTask(CUstream handle, const std::string& name, std::function<void(Task&)> run) {
  return entry(name.c_str(), Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    if (stream->context != current())
      driver.misuse("wrong context",
                    name + " in " + stream->name() + " while the context of device " +
                        std::to_string(current()->gpu.ordinal) + " is current",
                    CUDA_ERROR_INVALID_HANDLE);
    submit(driver, stream, TaskWork{name, std::move(run)});
  });
}

CollectiveFault nextCollectiveFault() {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  Settings& settings = driver.settings;
  const bool refused = settings.failCollective && --settings.failCollective == 0;
  const bool broken = settings.breakCollective && --settings.breakCollective == 0;
  return refused ? CollectiveFault::kRefused : broken ? CollectiveFault::kBroken : CollectiveFault::kNone;
}

void reportFinding(const char* kind, const std::string& text) { Driver::get().report.finding(kind, text); }

struct Meeting::State {
  std::string name;
  std::function<void(std::vector<Task>&)> run;
  std::function<std::string()> whoIsMissing;
  Lane lane;
  OpRef meet;  // runs once all have come
  std::vector<std::shared_ptr<Context>> members;
  bool isAbandoned = false;

  void failAll(CUresult code) {
    for (const auto& context : members)
      if (context) failContext(*context, code);
  }

  void carryOut(Driver& driver, Op& op) {
    if (isAbandoned) return;
    std::vector<Task> tasks;
    for (const auto& context : members) {
      if (context->sticky != CUDA_SUCCESS) return failAll(context->sticky);
      tasks.emplace_back(driver, op, *context, name);
    }
    op.context = members.front();
    execute(driver, op, TaskWork{name, [&](Task&) { run(tasks); }});
    if (op.context->sticky != CUDA_SUCCESS) failAll(op.context->sticky);
    run = nullptr;  // it may hold what holds this meeting
  }

  void giveUp(Driver& driver, const std::string& why) {
    isAbandoned = true;
    run = nullptr;
    if (why.empty()) return;
    driver.report.finding("collective", name + ": " + why);
    failAll(CUDA_ERROR_LAUNCH_FAILED);
  }
};

Meeting::Meeting(std::string name, int members, std::function<void(std::vector<Task>&)> run,
                 std::function<std::string()> whoIsMissing)
    : state_(std::make_shared<State>()) {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  State& state = *state_;
  state.name = std::move(name);
  state.run = std::move(run);
  state.whoIsMissing = std::move(whoIsMissing);
  state.lane = driver.scheduler.newLane();
  state.members.resize(members);
  state.meet = std::make_shared<Op>();
  state.meet->name = state.name;
  const std::weak_ptr<State> weak = state_;  // the members' operations keep it
  state.meet->run = [weak, &driver](Op& op) {
    if (const auto state = weak.lock()) state->carryOut(driver, op);
    Lane lane{.id = op.epoch.lane, .steps = op.epoch.step, .last = nullptr};
    driver.scheduler.freeLane(lane);
  };
  state.meet->abandoned = [weak, &driver] {
    if (const auto state = weak.lock(); state && !state->isAbandoned) state->giveUp(driver, state->whoIsMissing());
  };
  driver.scheduler.enqueue(state.lane, state.meet, {}, members);
}

Meeting::~Meeting() = default;

CUresult Meeting::arrive(int member, CUstream handle) {
  return entry(state_->name.c_str(), Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    refuseOnCapturing(driver, *stream, state_->name.c_str());
    state_->members[member] = stream->context;
    const OpRef op = makeOp(stream->context, EmptyWork{}, stream->name());
    op->clock.join(driver.host);
    driver.scheduler.enqueue(stream->lane, op, implicitPredecessors(*stream));
    driver.scheduler.addPredecessor(state_->meet, op);
    driver.scheduler.release(state_->meet);
  });
}

CUresult Meeting::leave(CUstream handle) {
  return entry(state_->name.c_str(), Needs::kContext, [&](Driver& driver) {
    const std::shared_ptr<Stream> stream = streamOf(driver, handle);
    const OpRef op = makeOp(stream->context, EmptyWork{}, stream->name());
    op->run = [keep = state_](Op&) {};  // until everybody has left
    op->clock.join(driver.host);
    driver.scheduler.enqueue(stream->lane, op, {state_->meet});
  });
}

void Meeting::abandon(const std::string& why) {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  if (state_->meet->isDone() || state_->isAbandoned) return;
  state_->giveUp(driver, why);
  driver.scheduler.abandon(state_->meet);
}

}  // namespace extension
}  // namespace cudasim::driver
