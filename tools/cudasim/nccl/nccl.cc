// libnccl.so.2: communicators and the calls on them.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <set>

#include "group.h"

namespace cudasim::nccl {

extern "C" {
#define NCCL_API(result, symbol, parameters) CUDASIM_EXPORT result symbol parameters;
#include "api.def"
#undef NCCL_API
}

namespace {

constexpr int kVersion = 23007;  // 2.30.7, which the declarations are compared with

std::set<Communicator*>& live() {
  static auto* const all = new std::set<Communicator*>;
  return *all;
}

std::map<std::string, std::weak_ptr<Team>>& teams() {
  static auto* const all = new std::map<std::string, std::weak_ptr<Team>>;
  return *all;
}

Communicator* find(ncclComm_t handle) {
  const std::lock_guard held(lock());
  auto* comm = reinterpret_cast<Communicator*>(handle);
  return live().count(comm) ? comm : nullptr;
}

ncclResult_t refuse(Communicator& comm, const std::string& why, ncclResult_t result) {
  const std::lock_guard held(lock());
  comm.team->lastError = why;
  driver::extension::reportFinding("collective", why);
  return result;
}

uint64_t address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

ncclResult_t call(ncclComm_t handle, Call call, int peer = -1) {
  Communicator* comm = find(handle);
  if (!comm) return ncclInvalidArgument;
  if (comm->isAborted) return ncclInvalidUsage;
  const int ranks = static_cast<int>(comm->team->members.size());
  const std::string who = "rank " + std::to_string(comm->rank) + ": ";
  if (call.type < ncclInt8 || call.type > ncclBfloat16) return refuse(*comm, who + "unknown type", ncclInvalidArgument);
  if (call.op < ncclSum || call.op > ncclAvg) return refuse(*comm, who + "unknown operation", ncclInvalidArgument);
  if (call.root >= ranks || call.root < -1 || peer >= ranks)
    return refuse(*comm, who + "no such rank in " + call.text(), ncclInvalidArgument);
  if (driver::extension::deviceOfStream(comm->device, call.stream) != comm->device)
    return refuse(*comm, who + "the stream of " + call.text() + " is not one of device " + std::to_string(comm->device),
                  ncclInvalidUsage);
  return submit(comm, call, peer);
}

ncclResult_t join(ncclComm_t* handle, int ranks, const ncclUniqueId& id, int rank) {
  if (!handle || ranks < 1 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  const int device = driver::extension::currentDevice();
  if (device < 0) return ncclUnhandledCudaError;
  std::unique_lock held(lock());
  std::weak_ptr<Team>& slot = teams()[std::string(id.internal, sizeof id.internal)];
  std::shared_ptr<Team> team = slot.lock();
  if (!team) slot = team = std::make_shared<Team>(ranks);
  const auto misuse = [&](const std::string& why) {
    driver::extension::reportFinding("collective", "ncclCommInitRank: " + why);
    return ncclInvalidUsage;
  };
  if (static_cast<int>(team->members.size()) != ranks)
    return misuse("rank " + std::to_string(rank) + " counts " + std::to_string(ranks) + " ranks, the others " +
                  std::to_string(team->members.size()));
  if (team->members[rank]) return misuse("rank " + std::to_string(rank) + " is taken");
  for (const Communicator* other : team->members)
    if (other && other->device == device)
      return misuse("ranks " + std::to_string(other->rank) + " and " + std::to_string(rank) + " share device " +
                    std::to_string(device));
  auto* comm = new Communicator;
  comm->team = team;
  comm->rank = rank;
  comm->device = device;
  team->members[rank] = comm;
  ++team->joined;
  live().insert(comm);
  *handle = reinterpret_cast<ncclComm_t>(comm);
  changed().notify_all();
  if (isInGroup()) {
    waitLater(team);
    return ncclSuccess;
  }
  return waitForTeam(*team, held);
}

ncclResult_t leave(ncclComm_t handle, bool abort) {
  Communicator* comm = find(handle);
  if (!comm) return ncclInvalidArgument;
  const std::lock_guard held(lock());
  Team& team = *comm->team;
  team.members[comm->rank] = nullptr;
  if (abort) {  // what nobody can finish any more lets go of its streams; the other ranks hear of it
    for (Communicator* other : team.members)
      if (other && other->error == ncclSuccess) other->error = ncclRemoteError;
    for (auto& [number, collective] : team.collectives) collective->meeting->abandon("");
    for (auto& [key, collective] : team.messages) collective->meeting->abandon("");
    team.collectives.clear();
    team.messages.clear();
  }
  live().erase(comm);
  delete comm;
  return ncclSuccess;
}

template <class T>
ncclResult_t ask(ncclComm_t handle, T* value, T (*answer)(const Communicator&)) {
  const Communicator* comm = find(handle);
  if (!comm || !value) return ncclInvalidArgument;
  *value = answer(*comm);
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  if (!version) return ncclInvalidArgument;
  *version = kVersion;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next{1};
  if (!id) return ncclInvalidArgument;
  std::memset(id->internal, 0, sizeof id->internal);
  std::snprintf(id->internal, sizeof id->internal, "cudasim team %d", next++);
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInternalError:
      return "internal error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

const char* ncclGetLastError(ncclComm_t handle) {
  thread_local std::string text;  // valid until this thread's next call
  const Communicator* comm = find(handle);
  const std::lock_guard held(lock());
  text = comm ? comm->team->lastError : "";
  return text.c_str();
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId id, int rank) {
  return join(comm, nranks, id, rank);
}

ncclResult_t ncclCommInitAll(ncclComm_t* comms, int count, const int* devices) {
  if (!comms || count < 1) return ncclInvalidArgument;
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  ncclGroupStart();
  ncclResult_t result = ncclSuccess;
  for (int rank = 0; rank < count && result == ncclSuccess; ++rank) {
    const abi::CUcontext saved =
        driver::extension::swapContext(driver::extension::contextOf(devices ? devices[rank] : rank));
    result = join(&comms[rank], count, id, rank);
    driver::extension::swapContext(saved);
  }
  const ncclResult_t ended = ncclGroupEnd();
  return result == ncclSuccess ? ended : result;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) { return find(comm) ? ncclSuccess : ncclInvalidArgument; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) { return leave(comm, false); }
ncclResult_t ncclCommAbort(ncclComm_t comm) { return leave(comm, true); }

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error) {
  const Communicator* comm = find(handle);
  if (!comm || !error) return ncclInvalidArgument;
  *error = comm->error;
  if (*error == ncclSuccess && !driver::extension::isHealthy(comm->device)) *error = ncclUnhandledCudaError;
  return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  return ask<int>(comm, count, [](const Communicator& c) { return static_cast<int>(c.team->members.size()); });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  return ask<int>(comm, device, [](const Communicator& c) { return c.device; });
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return ask<int>(comm, rank, [](const Communicator& c) { return c.rank; });
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return call(comm, {Kind::kAllReduce, count, type, op, -1, address(send), address(receive), stream});
}

ncclResult_t ncclReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  return call(comm, {Kind::kReduce, count, type, op, root, address(send), address(receive), stream});
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return call(comm, {Kind::kReduceScatter, count, type, op, -1, address(send), address(receive), stream});
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return call(comm, {Kind::kBroadcast, count, type, ncclSum, root, address(send), address(receive), stream});
}

ncclResult_t ncclBcast(void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return call(comm, {Kind::kAllGather, count, type, ncclSum, -1, address(send), address(receive), stream});
}

ncclResult_t ncclGather(const void* send, void* receive, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                        cudaStream_t stream) {
  return call(comm, {Kind::kGather, count, type, ncclSum, root, address(send), address(receive), stream});
}

ncclResult_t ncclScatter(const void* send, void* receive, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                         cudaStream_t stream) {
  return call(comm, {Kind::kScatter, count, type, ncclSum, root, address(send), address(receive), stream});
}

ncclResult_t ncclAlltoAll(const void* send, void* receive, size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
  return call(comm, {Kind::kAllToAll, count, type, ncclSum, -1, address(send), address(receive), stream});
}

// The root of a message is its sender, which both sides know.
ncclResult_t ncclSend(const void* send, size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                      cudaStream_t stream) {
  const Communicator* comm = find(handle);
  if (!comm || peer < 0) return ncclInvalidArgument;
  return call(handle, {Kind::kSendReceive, count, type, ncclSum, comm->rank, address(send), 0, stream}, peer);
}

ncclResult_t ncclRecv(void* receive, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (peer < 0) return ncclInvalidArgument;
  return call(comm, {Kind::kSendReceive, count, type, ncclSum, peer, 0, address(receive), stream}, peer);
}

}  // namespace cudasim::nccl
