#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "counters.h"
#include "pool.h"

namespace cudasim::driver {

using namespace abi;

Driver& Driver::get() {
  static Driver* const driver = new Driver;
  return *driver;
}

Driver::Driver() {
  settings.applyEnvironment();
  applySettings();
  writeCountersAtExit();
}

void Driver::applySettings() {
  report.setFile(settings.report);
  scheduler.seed(settings.seed);
  scheduler.setProgress(settings.progress);
  scheduler.setPaused(settings.paused);
  scheduler.setPatience(settings.stuckCollective);
}

void Driver::initialize() {
  require(settings.devices > 0, CUDA_ERROR_NO_DEVICE);
  if (isInitialized) return;
  for (int i = 0; i < settings.devices; ++i) {
    gpus.push_back(std::make_unique<Gpu>(i, settings.memory));
    gpus.back()->defaultPool = gpus.back()->currentPool = makePool(*gpus.back(), true);
  }
  isInitialized = true;
  process = getpid();
}

Gpu& Driver::gpu(CUdevice ordinal) {
  require(ordinal >= 0 && ordinal < static_cast<int>(gpus.size()), CUDA_ERROR_INVALID_DEVICE);
  return *gpus[ordinal];
}

Gpu* Driver::owner(uint64_t address) {
  for (const auto& gpu : gpus)
    if (gpu->memory.owns(address)) return gpu.get();
  return nullptr;
}

std::map<uint64_t, HostBlock>::iterator Driver::hostBlock(uint64_t address) {
  auto after = hostBlocks.upper_bound(address);
  if (after == hostBlocks.begin()) return hostBlocks.end();
  --after;
  return address - after->first < after->second.bytes ? after : hostBlocks.end();
}

Block* Driver::block(uint64_t address) {
  Gpu* gpu = owner(address);
  if (!gpu) return nullptr;
  const auto found = gpu->blocks.find(address);
  return found == gpu->blocks.end() ? nullptr : &found->second;
}

uintptr_t Driver::publish(const std::shared_ptr<Object>& object) {
  constexpr size_t kRange = size_t{1} << 36;  // never filled: a handle takes 64 of its addresses
  if (nextHandle_ == 0) {
    void* range = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(range != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
    nextHandle_ = reinterpret_cast<uintptr_t>(range);
  }
  object->handle = nextHandle_;
  nextHandle_ += 64;
  handles_.emplace(object->handle, object);
  return object->handle;
}

void Driver::withdraw(Object& object) { handles_.erase(object.handle); }

void Driver::withdrawAll(const Context& context) {
  std::erase_if(handles_, [&](const auto& entry) {
    const Object* object = entry.second.get();
    if (const auto* stream = dynamic_cast<const Stream*>(object)) return stream->context.get() == &context;
    if (const auto* event = dynamic_cast<const Event*>(object)) return event->context.get() == &context;
    if (const auto* module = dynamic_cast<const LoadedModule*>(object)) return module->context.get() == &context;
    if (const auto* function = dynamic_cast<const Function*>(object)) return function->context.get() == &context;
    if (const auto* pool = dynamic_cast<const Pool*>(object)) return pool->gpu == &context.gpu;
    return false;  // contexts stay, so that their handles are told apart from garbage; graphs may span devices
  });
}

void Driver::misuse(const char* kind, const std::string& text, CUresult code) {
  report.finding(kind, text);
  fail(code, text);
}

void Driver::finish(const OpRef& op) {
  if (!op) return;
  scheduler.runUntil(op);
  host.join(op->clock);
  forgetWhenIdle();
  writeCounters(*this, false);
}

std::vector<OpRef> Driver::drain(Context& context) {
  std::vector<OpRef> last = std::exchange(context.orphans, {});
  context.each([&](Stream& stream) {
    if (stream.lane.last) last.push_back(stream.lane.last);
  });
  for (const OpRef& op : last) scheduler.runUntil(op);
  return last;
}

void Driver::finish(Context& context) {
  for (const OpRef& op : drain(context)) host.join(op->clock);
  forgetWhenIdle();
  writeCounters(*this, false);
}

// With nothing queued, everything that will be queued comes after everything that has run and was waited for.
void Driver::forgetWhenIdle() {
  if (!scheduler.isIdle()) return;
  for (const auto& gpu : gpus) {
    bool isKnown = true;
    if (gpu->primary)
      gpu->primary->each([&](Stream& stream) {
        if (stream.lane.last) isKnown &= host.isAfter(stream.lane.last->epoch);
      });
    if (!isKnown) return;
  }
  history.clear();
}

CUresult Driver::poll(const OpRef& op, Context& context) {
  if (op && !op->isDone()) {
    scheduler.step(op);
    return context.sticky == CUDA_SUCCESS ? CUDA_ERROR_NOT_READY : context.sticky;
  }
  if (op) host.join(op->clock);
  forgetWhenIdle();
  writeCounters(*this, false);
  return context.sticky;
}

Gpu::Gpu(int ordinal, size_t capacity) : ordinal(ordinal), memory(ordinal, capacity) {}

std::string Stream::name() const {
  std::string text = isLegacy ? "the legacy stream" : "stream " + std::to_string(id);
  return text + " of device " + std::to_string(context->gpu.ordinal);
}

}  // namespace cudasim::driver
