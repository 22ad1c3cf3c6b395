#include "device.h"

#include <cstring>
#include <optional>

#include "graph.h"
#include "kernel_table.h"
#include "mark.h"

namespace gradus::cuda {
namespace {

constexpr int kLeastArchitecture = 80;             // bfloat16, cp.async and mma of 16-bit types
constexpr size_t kPinnedKept = size_t{256} << 20;  // of reads and uploads; more goes back to the system after use

thread_local CudaDevice* current = nullptr;

int attribute(int which, DeviceNumber device) {
  int value = 0;
  check(driver().deviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

Address address(const void* pointer) { return reinterpret_cast<Address>(pointer); }

// Of waiting for what was queued.
std::shared_ptr<const Failure> failureOf(Result result) {
  if (result == kSuccess) return nullptr;
  return std::make_shared<Failure>(
      Failure{ErrorCode::kNative, describeResult(result, "a kernel or copy on the device"), 0});
}

// Lets go of what was opened when the rest fails: the next call tries again.
struct Opening {
  Opened opened;
  DeviceNumber number = 0;
  std::optional<Visit> visit;
  bool done = false;

  ~Opening() {
    if (done || opened.context == nullptr) return;
    if (opened.word != nullptr) driver().memFree(address(opened.word));
    if (opened.queue != nullptr) driver().streamDestroy(opened.queue);
    visit.reset();
    driver().primaryCtxRelease(number);
  }
};

Opened open(int index) {
  int count = 0;
  check(driver().deviceGetCount(&count), "cuDeviceGetCount");
  GRADUS_CHECK(index < count, ErrorCode::kDevice, "device: no such device: got cuda:%d, expected an index below %d.",
               index, count);
  GRADUS_CHECK(blobTable().count > 0, ErrorCode::kDevice,
               "device: this build has no CUDA kernels: got cuda:%d; build it with nvcc on the PATH.", index);
  Opening opening;
  Opened& opened = opening.opened;
  DeviceNumber& number = opening.number;
  check(driver().deviceGet(&number, index), "cuDeviceGet");
  opened.architecture = 10 * attribute(kCapabilityMajor, number) + attribute(kCapabilityMinor, number);
  GRADUS_CHECK(opened.architecture >= kLeastArchitecture, ErrorCode::kDevice,
               "device: cuda:%d is too old: got compute capability %d.%d, expected 8.0 or newer (Ampere).", index,
               opened.architecture / 10, opened.architecture % 10);
  opened.multiprocessors = attribute(kMultiprocessors, number);
  check(driver().primaryCtxRetain(&opened.context, number), "cuDevicePrimaryCtxRetain");
  opened.index = index;
  opening.visit.emplace(opened);
  size_t bytes = 0;
  check(driver().deviceTotalMem(&bytes, number), "cuDeviceTotalMem");
  opened.bytes = bytes;
  check(driver().streamCreate(&opened.queue, kNonBlockingStream), "cuStreamCreate");
  Address word = 0;
  check(driver().memAlloc(&word, sizeof(FailureWord) + sizeof(PeerSerial)), "cuMemAlloc");
  opened.word = reinterpret_cast<FailureWord*>(word);
  opened.peerSerial = reinterpret_cast<PeerSerial*>(opened.word + 1);
  check(driver().memsetD8Async(word, 0, sizeof(FailureWord), opened.queue), "cuMemsetD8Async");
  opening.done = true;
  return opened;
}

}  // namespace

Sources::Sources(int index)
    : opened(open(index)), memorySource(opened, opened.queue, opened.bytes), pinnedSource(opened) {}

CudaDevice::CudaDevice(int index)
    : Sources(index),
      Device(DeviceKind::kCuda, index, memorySource, kernelTable()),
      pinned_(pinnedSource),
      waiter_(opened) {
  memorySource.reclaim = [this] { return capturing_ == nullptr && sweepPools(); };
}

CudaDevice& currentDevice() { return *current; }

void CudaDevice::bind() {
  makeCurrent(opened);
  current = this;
}

Ran CudaDevice::run(int op, const OpCall& call) {
  bind();
  leavesTargets_ = addsUnseen_ = false;
  failures_.beginContext(call.context);
  struct Ends {
    FailureLog& failures;
    ~Ends() { failures.beginContext(0); }  // also where the kernel's host side throws
  } ends{failures_};
  const unsigned before = failures_.last();
  kernels[op](call);
  return {failures_.last() != before ? failures_.last() : 0, leavesTargets_ && !addsUnseen_};
}

void CudaDevice::settle() {
  if (capturing_ != nullptr || !failures_.takeClearing()) return;  // a graph would do it at every replay
  bind();
  clearWord();
}

// A lost device tells by itself.
void CudaDevice::clearWord() {
  driver().memsetD8Async(address(opened.word), 0, sizeof(FailureWord), opened.queue);
  driver().memsetD32Async(address(&opened.word->clears), failures_.clears(), 1, opened.queue);
}

void CudaDevice::launch(Kernel& kernel, unsigned blocks, unsigned threads, unsigned sharedBytes, void* arguments) {
  void* parameters[] = {arguments};
  const Result result = driver().launchKernel(kernel.on(*this), blocks, 1, 1, threads, 1, 1, sharedBytes, opened.queue,
                                              parameters, nullptr);
  if (__builtin_expect(result != kSuccess, 0)) {
    failCall(result, (std::string("cuLaunchKernel of ") + kernel.name()).c_str());
  }
}

void* CudaDevice::takeFrom(MemorySource& source, size_t bytes) {
  if (void* taken = source.take(bytes)) return taken;
  const MemoryStats now = stats();
  fail(ErrorCode::kOutOfMemory, "the device has none left|%zu|%llu|%llu|%llu||%s", bytes,
       static_cast<unsigned long long>(now.allocated), static_cast<unsigned long long>(now.reserved),
       static_cast<unsigned long long>(now.limit), name.c_str());
}

void CudaDevice::copyWithin(void* to, const void* from, size_t bytes) {
  check(driver().memcpyDtoDAsync(address(to), address(from), bytes, opened.queue), "cuMemcpyDtoDAsync");
}

void CudaDevice::unstage(const Allocation& memory) noexcept {
  pinned_.release(memory);
  const MemoryStats now = pinned_.stats();
  if (now.reserved - now.allocated > kPinnedKept) pinned_.trim();
}

std::shared_ptr<void> CudaDevice::pinned(size_t bytes) {
  const Allocation memory = stage(bytes, 0);
  return {memory.data, [this, memory](void*) { unstage(memory); }};
}

// Other threads see that a graph is captured only when it has begun.
void CudaDevice::refuseInCapture() const {
  GRADUS_CHECK(capturing_ == nullptr, ErrorCode::kState,
               "device: a graph is being captured on %s by another thread: got a copy or a wait, expected none; wait "
               "for the end of the capture",
               name.c_str());
}

void CudaDevice::passed(Then then) {
  refuseInCapture();
  readWord(0, std::move(then));
}

void CudaDevice::read(const void* from, void* to, size_t bytes, uint32_t number, Then then) {
  refuseInCapture();
  bind();
  if (bytes == 0) return readWord(number, std::move(then));
  std::shared_ptr<void> staged = pinned(bytes);
  check(driver().memcpyDtoHAsync(staged.get(), address(from), bytes, opened.queue), "cuMemcpyDtoHAsync");
  readWord(number, [staged = std::move(staged), to, bytes, then = std::move(then)](auto failure) {
    if (!failure) std::memcpy(to, staged.get(), bytes);
    then(std::move(failure));
  });
}

void CudaDevice::unpack(const SharedParcel& parcel, Storage& storage) {
  refuseInCapture();
  bind();
  storage.memory = memory.allocate(storage.bytes, storage.context);
  if (parcel->isAside) return bringAside(parcel, storage);
  check(driver().memcpyHtoDAsync(address(storage.memory.data), parcel->data(), storage.bytes, opened.queue),
        "cuMemcpyHtoDAsync");
  waiter_.after(opened.queue, [parcel](Result) {});  // the copy reads from it until then
}

void CudaDevice::orderAfter(CudaStream later, CudaStream earlier) {
  const Event event = waiter_.takeEvent();
  const Result recorded = driver().eventRecord(event, earlier);
  const Result ordered = recorded == kSuccess ? driver().streamWaitEvent(later, event, 0) : recorded;
  waiter_.giveEvent(event);  // waiting has seen what was recorded; the next may record over it
  check(ordered, "cuStreamWaitEvent");
}

// The memory may still be read by kernels that were queued before it was free, so the copy waits for those; but not for
// what is queued from here on, and of that only what uses the storage waits for the copy.
void CudaDevice::bringAside(const SharedParcel& parcel, Storage& storage) {
  if (side_ == nullptr) check(driver().streamCreate(&side_, kNonBlockingStream), "cuStreamCreate");
  orderAfter(side_, opened.queue);
  check(driver().memcpyHtoDAsync(address(storage.memory.data), parcel->data(), storage.bytes, side_),
        "cuMemcpyHtoDAsync");
  const Event arrival = waiter_.takeEvent();
  storage.arrival = arrival;
  check(driver().eventRecord(arrival, side_), "cuEventRecord");
  waiter_.after(side_, [parcel](Result) {});
}

void CudaDevice::await(Storage& storage) noexcept {
  const Event arrival = static_cast<Event>(std::exchange(storage.arrival, nullptr));
  try {
    bind();
  } catch (const Error&) {  // a lost context has nothing to wait for
  }
  // a capture has waited for all that was on its way before it began
  if (capturing_ == nullptr) driver().streamWaitEvent(opened.queue, arrival, 0);
  waiter_.giveEvent(arrival);
}

void CudaDevice::record(const std::shared_ptr<Mark>& mark) {
  refuseInCapture();
  bind();
  mark->record(opened.queue);
  waiter_.after(opened.queue, [mark](Result result) { mark->reach(failureOf(result)); });
}

// Giving memory back waits for the stream, which a capture does not allow.
void CudaDevice::holdMemory() noexcept {
  memorySource.hold();
  for (const auto& pool : graphPools_) pool->source.hold();
}

void CudaDevice::letGoOfMemory() noexcept {
  memorySource.letGo();
  for (const auto& pool : graphPools_) {
    if (pool->isRetired) pool->source.letGo();
  }
}

void CudaDevice::beginCapture(Graph& graph, Allocator& pool) {
  bind();
  settle();
  if (side_ != nullptr) orderAfter(opened.queue, side_);
  holdMemory();
  const Result result = [this] {
    std::lock_guard lock(trimLock_);  // who trims waits for the stream
    return driver().streamBeginCapture(opened.queue, kRelaxedCapture);
  }();
  if (result != kSuccess) {
    letGoOfMemory();
    failCall(result, "cuStreamBeginCapture");
  }
  failures_.beginGraph();
  capturing_ = &graph;
  recorder = &graph;
  arena_ = &pool;
}

Result CudaDevice::endCapture(DriverGraph* graph, FailureRange* numbers) noexcept {
  *numbers = failures_.endGraph();
  arena_ = &memory;
  recorder = nullptr;
  capturing_ = nullptr;
  const Result result = driver().streamEndCapture(opened.queue, graph);
  letGoOfMemory();
  for (const std::shared_ptr<Graph>& graph : std::exchange(closing_, {})) graph->reset();
  return result;
}

void CudaDevice::launchGraph(GraphExec executable, void* cells, const SharedParcel& contents, FailureRange numbers) {
  bind();
  if (failures_.replay(numbers)) clearWord();
  check(driver().memcpyHtoDAsync(address(cells), contents->data(), contents->bytes(), opened.queue),
        "cuMemcpyHtoDAsync");
  waiter_.after(opened.queue, [contents](Result) {});
  check(driver().graphLaunch(executable, opened.queue), "cuGraphLaunch");
}

void CudaDevice::closeGraph(GraphExec executable, FailureRange numbers) noexcept {
  failures_.closeGraph(numbers);
  if (executable == nullptr) return;
  try {
    bind();
  } catch (const Error&) {  // a lost context has nothing that runs
  }
  driver().streamSynchronize(opened.queue);
  driver().graphExecDestroy(executable);
}

void CudaDevice::close(std::shared_ptr<Graph> graph) noexcept {
  if (capturing_ == graph.get()) {  // its environment has ended in the middle of it
    graph->drop();
    isCapturing = false;
    return;
  }
  if (capturing_ != nullptr) return closing_.push_back(std::move(graph));
  graph->reset();
}

GraphPool* CudaDevice::openPool() {
  sweepPools();
  GraphPool* pool = graphPools_.emplace_back(std::make_unique<GraphPool>(*this)).get();
  std::lock_guard lock(poolsLock_);
  pools_.push_back(&pool->allocator);
  return pool;
}

void CudaDevice::closePool(GraphPool* pool) noexcept {
  pool->isRetired = true;
  pool->source.letGo();
  pool->allocator.trim();
  sweepPools();
}

bool CudaDevice::sweepPools() noexcept {
  std::lock_guard lock(poolsLock_);
  return 0 < std::erase_if(graphPools_, [this](const std::unique_ptr<GraphPool>& pool) {
           if (!pool->isRetired || pool->allocator.inUse() > 0) return false;
           pool->allocator.trim();
           std::erase(pools_, &pool->allocator);
           return true;
         });
}

std::shared_ptr<const FailureWord> CudaDevice::copyWord() {
  bind();
  const auto seen = std::static_pointer_cast<FailureWord>(pinned(sizeof(FailureWord)));
  check(driver().memcpyDtoHAsync(seen.get(), address(opened.word), sizeof(FailureWord), opened.queue),
        "cuMemcpyDtoHAsync");
  return seen;
}

void CudaDevice::readWord(uint32_t number, Then then) {
  const unsigned asOf = failures_.last();
  waiter_.after(opened.queue, [this, number, asOf, seen = copyWord(), then = std::move(then)](Result result) {
    then(result == kSuccess ? failures_.read(*seen, number, asOf) : failureOf(result));
  });
}

uint32_t CudaDevice::latest(uint32_t number) const {
  return failures_.isOfGraph(failures_.last()) ? number : failures_.last();
}

void CudaDevice::reach(Then then) {
  bind();
  waiter_.after(opened.queue, [then = std::move(then)](Result result) { then(failureOf(result)); });
}

// What reads it waits behind this.
void CudaDevice::dependOn(unsigned number, SharedOutcome outcome, Then then) {
  const unsigned clears = failures_.clears();
  waiter_.after(opened.queue, [this, number, clears, seen = copyWord(), outcome = std::move(outcome),
                               then = std::move(then)](Result result) {
    const std::shared_ptr<const Failure> failure = outcome->wait();
    if (failure == nullptr) return;
    then(failures_.failWith(result == kSuccess ? *seen : FailureWord{}, number, clears, failure));
  });
}

Device* openDevice(int index) { return new CudaDevice(index); }

}  // namespace gradus::cuda
