#include "collective.h"

#include <algorithm>
#include <map>

#include "peer.h"

namespace gradus::cuda {
namespace {

struct Names {
  const char *ours, *theirs;
};
constexpr Names kNames[kCollectiveKinds] = {{"nccl.allReduce", "ncclAllReduce"},
                                            {"nccl.reduce", "ncclReduce"},
                                            {"nccl.broadcast", "ncclBroadcast"},
                                            {"nccl.allGather", "ncclAllGather"},
                                            {"nccl.reduceScatter", "ncclReduceScatter"}};
Names namesOf(CollectiveKind kind) { return kNames[static_cast<int>(kind)]; }

int typeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return kNcclFloat32;
    case DType::kFloat64:
      return kNcclFloat64;
    case DType::kFloat16:
      return kNcclFloat16;
    case DType::kBFloat16:
      return kNcclBFloat16;
    case DType::kInt64:
      return kNcclInt64;
    case DType::kInt32:
      return kNcclInt32;
    default:
      return kNcclUint8;  // uint8, and bool with 0 and 1
  }
}

// The sum of truth values is whether any is true; as bytes it would be their number.
int operationOf(CollectiveOp op, DType dtype) {
  switch (op) {
    case CollectiveOp::kSum:
      return dtype == DType::kBool ? kNcclMax : kNcclSum;
    case CollectiveOp::kProd:
      return kNcclProd;
    case CollectiveOp::kMin:
      return kNcclMin;
    case CollectiveOp::kMax:
      return kNcclMax;
    case CollectiveOp::kAvg:
      return kNcclAvg;
  }
  return kNcclSum;
}

class Collective final : public Meeting {
 public:
  Collective(Account* account, uint32_t context, std::vector<Member> members, Clique& clique, CollectiveCall call)
      : Meeting(account, context, std::move(members)), clique_(clique), call_(call) {}

  Ran leave(size_t member) override {
    if (!gathersFailures_) return {};
    return {clique_.ranks()[member].reportFailures(namesOf(call_.kind).ours, clique_.devices()), false};
  }
  bool isLookedAfter() const override { return gathersFailures_; }

 protected:
  void run(size_t last) override {
    if (call_.count == 0) return;
    gathersFailures_ = std::any_of(members.begin(), members.end(), [](const Member& each) { return each.late != 0; });
    clique_.expectConnected();
    clique_.ranks()[last].device().bind();
    try {
      submit();
    } catch (...) {
      clique_.disconnect();
      throw;
    }
  }

 private:
  void submit() {
    const Nccl& library = nccl();
    const std::lock_guard together(launchesTogether());
    checkNccl(library.groupStart(), "ncclGroupStart");
    NcclResult result = kNcclSuccess;
    for (size_t rank = 0; rank < members.size() && result == kNcclSuccess; ++rank) {
      const Member& member = members[rank];
      const Communicator& communicator = clique_.ranks()[rank];
      const void* send = member.in ? member.inView.data : member.outView.data;
      result = communicator.submit(call_, send, member.out ? member.outView.data : member.inView.data);
      if (result == kNcclSuccess && gathersFailures_) result = communicator.gatherFailures();
    }
    const NcclResult ended = library.groupEnd();
    NcclCommunicator* first = clique_.ranks()[0].handle();
    checkNccl(result, namesOf(call_.kind).theirs, first);
    checkNccl(ended, namesOf(call_.kind).theirs, first);
  }

  Clique& clique_;
  const CollectiveCall call_;
  bool gathersFailures_ = false;
};

}  // namespace

const char* nameOf(CollectiveKind kind) { return namesOf(kind).ours; }

// --- one rank -------------------------------------------------------------------------------------------------------

void Communicator::prepare() {
  if (seen_ != nullptr) return;
  const size_t bytes = static_cast<size_t>(ranks_) * (sizeof *seen_ + sizeof *serials_);
  void* memory = device_.takeFrom(device_.memorySource, bytes);
  seen_ = static_cast<long long*>(memory);
  serials_ = reinterpret_cast<unsigned*>(seen_ + ranks_);
}

void Communicator::abort() noexcept {
  if (handle_ != nullptr) nccl().abort(handle_);
  handle_ = nullptr;
}

void Communicator::expectHealthy() const {
  NcclResult error = kNcclSuccess;
  checkNccl(nccl().getAsyncError(handle_, &error), "ncclCommGetAsyncError", handle_);
  if (error != kNcclInProgress) checkNccl(error, "a collective before this one", handle_);
}

NcclResult Communicator::submit(const CollectiveCall& call, const void* send, void* receive) const {
  const Nccl& library = nccl();
  const size_t count = static_cast<size_t>(call.count);
  const int type = typeOf(call.dtype), op = operationOf(call.op, call.dtype);
  const CudaStream stream = device_.opened.queue;
  switch (call.kind) {
    case CollectiveKind::kAllReduce:
      return library.allReduce(send, receive, count, type, op, handle_, stream);
    case CollectiveKind::kReduce:
      return library.reduce(send, receive, count, type, op, call.root, handle_, stream);
    case CollectiveKind::kBroadcast:
      return library.broadcast(send, receive, count, type, call.root, handle_, stream);
    case CollectiveKind::kAllGather:
      return library.allGather(send, receive, count, type, handle_, stream);
    case CollectiveKind::kReduceScatter:
      return library.reduceScatter(send, receive, count, type, op, handle_, stream);
  }
  return kNcclSuccess;
}

NcclResult Communicator::gatherFailures() const {
  return nccl().allGather(&device_.opened.word->serial, serials_, 1, kNcclUint32, handle_, device_.opened.queue);
}

unsigned Communicator::reportFailures(const char* name, int64_t devices) {
  device_.bind();
  const FailureSlot slot = device_.failureSlot(name, kOfDevices, devices);
  reportSerials(device_, serials_, ranks_, seen_, slot);
  return slot.serial;
}

// --- all of them ----------------------------------------------------------------------------------------------------

Clique::Clique(const std::vector<CudaDevice*>& devices) {
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    ranks_.emplace_back(*devices[rank], static_cast<int>(devices.size()));
    devices_ |= static_cast<int64_t>(static_cast<uint64_t>(devices[rank]->index) << (4 * rank));
  }
}

Clique& Clique::of(const std::vector<CudaDevice*>& devices) {
  static auto* const mutex = new std::mutex;
  static auto* const all = new std::map<std::vector<CudaDevice*>, std::unique_ptr<Clique>>;
  std::lock_guard lock(*mutex);
  std::unique_ptr<Clique>& clique = (*all)[devices];
  if (!clique) clique = std::make_unique<Clique>(devices);
  return *clique;
}

void Clique::expectConnected() {
  if (isConnected_) {
    try {
      for (const Communicator& rank : ranks_) rank.expectHealthy();
    } catch (...) {
      disconnect();
      throw;
    }
    return;
  }
  std::vector<int> ordinals;
  for (Communicator& rank : ranks_) {
    rank.prepare();
    ordinals.push_back(rank.device().index);
  }
  std::vector<NcclCommunicator*> made(ranks_.size());
  checkNccl(nccl().initAll(made.data(), static_cast<int>(made.size()), ordinals.data()), "ncclCommInitAll");
  for (size_t rank = 0; rank < made.size(); ++rank) ranks_[rank].connect(made[rank]);
  isConnected_ = true;
}

void Clique::disconnect() noexcept {
  for (Communicator& rank : ranks_) rank.abort();
  isConnected_ = false;
}

// --- from a call ----------------------------------------------------------------------------------------------------

SharedMeeting makeCollective(Account* account, uint32_t context, CollectiveCall call,
                             std::vector<Meeting::Member> members) {
  nccl();  // throws where there is none
  const char* name = nameOf(call.kind);
  const auto ranks = static_cast<int64_t>(members.size());
  GRADUS_CHECK(ranks >= 1 && ranks <= kMostDevices && call.root >= 0 && call.root < ranks, ErrorCode::kIndex,
               "%s: got %lld ranks and root %d, expected up to %d, the root among them", name,
               static_cast<long long>(ranks), call.root, kMostDevices);
  const Tensor* first = members[0].in ? members[0].in : members[0].out;
  std::vector<CudaDevice*> devices;
  int64_t numel[2] = {-1, -1};  // of every in, of every out
  for (int64_t rank = 0; rank < ranks; ++rank) {
    Meeting::Member& member = members[rank];
    const bool isRoot = rank == call.root;
    const bool gives = call.kind != CollectiveKind::kBroadcast || isRoot;
    const bool takes =
        call.kind == CollectiveKind::kBroadcast ? !isRoot : call.kind != CollectiveKind::kReduce || isRoot;
    GRADUS_CHECK(first && (member.in != nullptr) == gives && (member.out != nullptr) == takes, ErrorCode::kNative,
                 "%s: rank %lld has the wrong operands", name, static_cast<long long>(rank));
    const Tensor* operands[] = {member.in, member.out};
    for (int i = 0; i < 2; ++i) {
      const Tensor* tensor = operands[i];
      if (tensor == nullptr) continue;
      if (member.device == nullptr) member.device = tensor->device;
      GRADUS_CHECK(tensor->device == member.device && tensor->device->kind == DeviceKind::kCuda, ErrorCode::kDevice,
                   "%s: operands of a rank are not on one CUDA device: got %s and %s", name,
                   tensor->device->name.c_str(), member.device->name.c_str());
      GRADUS_CHECK(tensor->view.dtype == first->view.dtype, ErrorCode::kDType, "%s: operands are of different dtypes",
                   name);
      if (numel[i] < 0) numel[i] = tensor->view.numel;
      GRADUS_CHECK(tensor->view.contiguous && tensor->view.numel == numel[i], ErrorCode::kShape,
                   "%s: operands are not contiguous, or not of one size", name);
    }
    GRADUS_CHECK(!member.device->isCapturing, ErrorCode::kState,
                 "%s: a graph is being captured on %s: got an operation of several devices, expected those of one; "
                 "call it before or after a replay",
                 name, member.device->name.c_str());
    auto* device = static_cast<CudaDevice*>(member.device);
    GRADUS_CHECK(std::find(devices.begin(), devices.end(), device) == devices.end(), ErrorCode::kDevice,
                 "%s: ranks share a device: got %s twice, expected a device of its own for each", name,
                 device->name.c_str());
    devices.push_back(device);
  }
  const bool gathers = call.kind == CollectiveKind::kAllGather, scatters = call.kind == CollectiveKind::kReduceScatter;
  const int64_t in = numel[0], out = numel[1] < 0 ? in : numel[1];  // broadcasts of one rank write nothing
  GRADUS_CHECK(gathers    ? out == in * ranks
               : scatters ? in == out * ranks
                          : in == out,
               ErrorCode::kShape,
               "%s: sizes do not fit: got inputs of %lld and outputs of %lld elements with %lld ranks", name,
               static_cast<long long>(in), static_cast<long long>(out), static_cast<long long>(ranks));
  call.dtype = first->view.dtype;
  call.count = scatters ? out : in;
  GRADUS_CHECK(call.op != CollectiveOp::kAvg || call.dtype != DType::kBool, ErrorCode::kDType,
               "%s: truth values have no average", name);
  return std::make_shared<Collective>(account, context, std::move(members), Clique::of(devices), call);
}

}  // namespace gradus::cuda
