// A CUDA device: its primary context, one stream, memory, and the modules of its kernels.
#pragma once

#include "../core/parcel.h"
#include "failure.h"
#include "memory.h"
#include "module.h"
#include "waiter.h"

namespace gradus::cuda {

class Graph;
struct GraphPool;
class Mark;

// Where the number of a peer's operation that failed comes to, and room for the kernel that looks at it.
struct PeerSerial {
  long long seen;
  unsigned serial;
};

// What the driver gives for a device.
struct Opened : Place {
  CudaStream queue = nullptr;
  FailureWord* word = nullptr;       // in the device's memory
  PeerSerial* peerSerial = nullptr;  // behind it
  int architecture = 0;              // 10 * major + minor
  int multiprocessors = 0;
  uint64_t bytes = 0;
};

// What the device's allocators need before there are any.
struct Sources {
  explicit Sources(int index);
  const Opened opened;
  DeviceMemory memorySource;
  PinnedMemory pinnedSource;
};

class CudaDevice final : public Sources, public Device {
 public:
  explicit CudaDevice(int index);

  Modules modules;

  Ran run(int op, const OpCall& call) override;
  std::shared_ptr<const Failure> lateFailure(uint32_t number) override { return failures_.find(number); }
  bool isMadeAnew(uint32_t number) override { return failures_.isOfGraph(number); }
  uint32_t carried(uint32_t number) override { return failures_.carried(number); }
  void settle() override;
  void read(const void* from, void* to, size_t bytes, uint32_t number, Then then) override;
  void unpack(const std::shared_ptr<Parcel>& parcel, Storage& storage) override;
  void passed(Then then) override;
  void await(Storage& storage) noexcept override;
  Allocation stage(size_t bytes, uint32_t context) override { return pinned_.allocate(bytes, context); }
  void unstage(const Allocation& memory) noexcept override;

  // On the executor. The launch is asynchronous; `arguments` are copied at once.
  void launch(Kernel& kernel, unsigned blocks, unsigned threads, unsigned sharedBytes, void* arguments);
  // Memory beside the allocator's, which is never null. Throws Error(kOutOfMemory).
  void* takeFrom(MemorySource& source, size_t bytes);
  void copyWithin(void* to, const void* from, size_t bytes);
  // The calling thread's device from here on; what the driver is asked for is asked of it.
  void bind();
  // Where kernels report what they find in the data; for the operation that is running. What is given besides is for
  // its error, see failure.cc.
  FailureSlot failureSlot(const char* name, int64_t a = 0, int64_t b = 0, int64_t c = 0) {
    return {opened.word, failures_.begin(name, a, b, c)};
  }
  // What kernels that write in place read first: then their targets stay as they are, whatever failed.
  const FailureWord* failureWord() {
    looksFirst();
    return opened.word;
  }
  // The same of kernels that have a failure slot.
  void looksFirst() { leavesTargets_ = true; }
  // Of what adds to a target without looking, whatever else the operation does.
  void addsUnseen() { addsUnseen_ = true; }

  // On the executor: what follows in `later`, which may be another device's, waits for what is in `earlier` by now.
  void orderAfter(CudaStream later, CudaStream earlier);
  // On the executor: calls `then` behind what is on the stream, with the failure that a tensor of this number has part
  // in.
  void readWord(uint32_t number, Then then);
  // The same of what the driver tells alone, without a look at what kernels found.
  void reach(Then then);
  // On the executor: the number of a tensor that depends on all that was queued so far; for one with `number`.
  uint32_t latest(uint32_t number) const;
  // On the executor: what has this number fails if `outcome` is a failure. `then` hears what kernels of this device
  // found before, where nobody has.
  void dependOn(unsigned number, SharedOutcome outcome, Then then);
  // Whether a failure was found on another device, which tells of it.
  bool isFromElsewhere(const std::shared_ptr<const Failure>& failure) { return failures_.isFromElsewhere(failure); }

  // On the executor: the mark is reached when everything so far has run.
  void record(const std::shared_ptr<Mark>& mark);

  // On the executor, for the graph that is captured; null: none is.
  Graph* capturing() const { return capturing_; }
  void beginCapture(Graph& graph, Allocator& pool);
  Result endCapture(DriverGraph* graph, FailureRange* numbers) noexcept;
  void launchGraph(GraphExec executable, void* cells, const std::shared_ptr<Parcel>& contents, FailureRange numbers);
  // What a replay would have made is not there.
  void missReplay(FailureRange numbers, std::shared_ptr<const Failure> failure) {
    failures_.missReplay(numbers, std::move(failure));
  }
  void closeGraph(GraphExec executable, FailureRange numbers) noexcept;
  // Ends a graph, or lets it wait for the end of the capture that is under way.
  void close(std::shared_ptr<Graph> graph) noexcept;
  GraphPool* openPool();
  void closePool(GraphPool* pool) noexcept;

 private:
  void clearWord();
  void refuseInCapture() const;
  void bringAside(const std::shared_ptr<Parcel>& parcel, Storage& storage);
  // Gives up the pools that graphs have left and in which nothing lies any more; whether there were any.
  bool sweepPools() noexcept;
  void holdMemory() noexcept;
  void letGoOfMemory() noexcept;
  std::shared_ptr<void> pinned(size_t bytes);
  Allocator pinned_;
  Waiter waiter_;
  // The word as it is behind what is on the stream.
  std::shared_ptr<const FailureWord> copyWord();

  FailureLog failures_;
  CudaStream side_ = nullptr;  // for copies beside the stream; made when it is first wanted
  Graph* capturing_ = nullptr;
  bool leavesTargets_ = false, addsUnseen_ = false;  // the operation that runs
  std::vector<std::shared_ptr<Graph>> closing_;
  std::vector<std::unique_ptr<GraphPool>> graphPools_;
};

// The device whose executor the calling thread is.
CudaDevice& currentDevice();

Device* openDevice(int index);
// One JSON object for `gradus doctor` and cuda.deviceCount; opens no device, never throws for what is missing.
std::string describe();
// One line each for `gradus doctor`: the libraries for products and for collectives, or that there is none.
std::string describeBlas();
std::string describeNccl();

}  // namespace gradus::cuda
