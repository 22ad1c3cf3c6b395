// Collectives: operations of NCCL over devices of this process, which its ranks are.
//
// A collective is a meeting of the devices' executors, and its launches for all of them are one group of NCCL's, by the
// executor that came last: either every device has its part in its stream, or none has. Streams wait for each other on
// the devices; executors go on. What NCCL finds after that is asked for by the next collective, which fails with it; the
// outputs of the one that broke do not know. What kernels have found in their data by then (failure.h) travels along where what
// somebody gives may depend on it: a failure on one device counts on all of them.
#pragma once

#include <memory>
#include <vector>

#include "../core/meeting.h"
#include "device.h"
#include "nccl.h"

namespace gradus::cuda {

// The order is lib/ops/nccl.ts's.
enum class CollectiveKind : uint8_t { kAllReduce, kReduce, kBroadcast, kAllGather, kReduceScatter };
constexpr int kCollectiveKinds = 5;
enum class CollectiveOp : uint8_t { kSum, kProd, kMin, kMax, kAvg };
constexpr int kCollectiveOps = 5;

struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  CollectiveOp op = CollectiveOp::kSum;
  int root = 0;
  // Found by makeCollective().
  DType dtype = DType::kFloat32;
  int64_t count = 0;  // as NCCL counts: of allGather what one rank gives, of reduceScatter what one gets
};

// One rank: a device's end of a communicator.
class Communicator {
 public:
  Communicator(CudaDevice& device, int ranks) : device_(device), ranks_(ranks) {}

  CudaDevice& device() const { return device_; }
  NcclCommunicator* handle() const { return handle_; }
  // Memory that stays; before it is connected.
  void prepare();
  // Takes a communicator of NCCL's over.
  void connect(NcclCommunicator* handle) { handle_ = handle; }
  // Lets go of it, and of what it has not finished.
  void abort() noexcept;
  // Throws what NCCL found after it had taken a call.
  void expectHealthy() const;

  // Within a group.
  NcclResult submit(const CollectiveCall& call, const void* send, void* receive) const;
  // Within a group: brings the numbers of the first operation that failed, of all ranks.
  NcclResult gatherFailures() const;
  // On the device's executor, behind them: reports those of other ranks, as failures of an operation `name`, whose
  // number is returned. `devices`: indices by rank, 4 bits each.
  unsigned reportFailures(const char* name, int64_t devices);

 private:
  CudaDevice& device_;
  const int ranks_;
  NcclCommunicator* handle_ = nullptr;
  long long* seen_ = nullptr;    // [ranks] in the device's memory: scratch of the kernel that reports
  unsigned* serials_ = nullptr;  // [ranks], behind it
};

// Devices that take part in collectives together, as ranks in this order. Made once for a list of devices, and
// connected by the first collective; it stays until the process ends, as devices do.
class Clique {
 public:
  explicit Clique(const std::vector<CudaDevice*>& devices);
  static Clique& of(const std::vector<CudaDevice*>& devices);

  std::vector<Communicator>& ranks() { return ranks_; }
  int64_t devices() const { return devices_; }
  // On an executor, while those of all ranks wait. Throws for what NCCL has against it, and for what went wrong since.
  void expectConnected();
  // The next collective connects anew.
  void disconnect() noexcept;

 private:
  std::vector<Communicator> ranks_;
  int64_t devices_ = 0;
  bool isConnected_ = false;
};

// Checks operands, as far as memory depends on it, and makes the meeting of their devices, with `in` and `out` of each:
//   allReduce, allGather, reduceScatter  both of every rank
//   reduce     in of every rank, out of the root
//   broadcast  in of the root, out of the others
SharedMeeting makeCollective(Account* account, uint32_t context, CollectiveCall call,
                             std::vector<Meeting::Member> members);
const char* nameOf(CollectiveKind kind);

}  // namespace gradus::cuda
