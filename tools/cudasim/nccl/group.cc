#include "group.h"

#include <chrono>
#include <utility>

namespace cudasim::nccl {

extern "C" {
#define NCCL_API(result, symbol, parameters) CUDASIM_EXPORT result symbol parameters;
#include "api.def"
#undef NCCL_API
}

namespace {

struct Pending {
  Communicator* comm;
  Call call;
  int peer;
};

struct Group {
  int depth = 0;
  std::vector<Pending> calls;
  std::vector<std::shared_ptr<Team>> teams;
};

Group& group() {
  thread_local Group mine;
  return mine;
}

class CurrentDevice {  // a group may hold calls of several devices, made under one context
 public:
  explicit CurrentDevice(int device) { saved_ = driver::extension::swapContext(driver::extension::contextOf(device)); }
  ~CurrentDevice() { driver::extension::swapContext(saved_); }

 private:
  abi::CUcontext saved_ = nullptr;
};

// All streams arrive before any waits: a send and a receive of one group need each other's other half.
ncclResult_t queue(const std::vector<Pending>& calls) {
  using driver::extension::CollectiveFault;
  std::vector<std::pair<Entered, int>> entered;
  std::vector<std::shared_ptr<Team>> broken;
  for (const Pending& pending : calls) {
    Entered place;
    const CollectiveFault fault = driver::extension::nextCollectiveFault();
    const std::lock_guard held(lock());
    if (fault == CollectiveFault::kRefused) {
      failTeam(*pending.comm->team, "");  // the ranks that have come go on, as if there had been no call
      pending.comm->team->lastError = "setting failCollective";
      return ncclSystemError;
    }
    if (fault == CollectiveFault::kBroken) broken.push_back(pending.comm->team);
    if (const ncclResult_t result = enter(*pending.comm, pending.call, pending.peer, place); result != ncclSuccess)
      return result;
    const CurrentDevice device(pending.comm->device);
    if (place.collective->meeting->arrive(place.member, place.stream) != abi::CUDA_SUCCESS)
      return pending.comm->error = ncclUnhandledCudaError;
    entered.emplace_back(std::move(place), pending.comm->device);
  }
  for (const auto& [place, ordinal] : entered) {
    const CurrentDevice device(ordinal);
    if (place.collective->meeting->leave(place.stream) != abi::CUDA_SUCCESS) return ncclUnhandledCudaError;
  }
  const std::lock_guard held(lock());
  for (const auto& team : broken) {
    team->lastError = "setting breakCollective";
    for (Communicator* member : team->members)
      if (member) member->error = ncclRemoteError;
  }
  return ncclSuccess;
}

}  // namespace

std::mutex& lock() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

std::condition_variable& changed() {
  static auto* const condition = new std::condition_variable;
  return *condition;
}

bool isInGroup() { return group().depth > 0; }
void waitLater(std::shared_ptr<Team> team) { group().teams.push_back(std::move(team)); }

ncclResult_t waitForTeam(const Team& team, std::unique_lock<std::mutex>& held) {
  const auto patience = std::chrono::seconds(driver::extension::stuckCollectiveSeconds());
  if (changed().wait_for(held, patience, [&] { return team.joined == static_cast<int>(team.members.size()); }))
    return ncclSuccess;
  std::string missing;
  for (size_t rank = 0; rank < team.members.size(); ++rank)
    if (!team.members[rank]) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  driver::extension::reportFinding("collective", "ncclCommInitRank: rank " + missing + " of " +
                                                     std::to_string(team.members.size()) + " did not come");
  return ncclSystemError;
}

ncclResult_t submit(Communicator* comm, Call call, int peer) {
  if (isInGroup()) {
    group().calls.push_back({comm, call, peer});
    return ncclSuccess;
  }
  return queue({{comm, call, peer}});
}

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  Group& mine = group();
  if (mine.depth == 0) return ncclInvalidUsage;
  if (--mine.depth > 0) return ncclSuccess;
  const std::vector<std::shared_ptr<Team>> teams = std::exchange(mine.teams, {});
  const std::vector<Pending> calls = std::exchange(mine.calls, {});
  for (const auto& team : teams) {
    std::unique_lock held(lock());
    if (const ncclResult_t result = waitForTeam(*team, held); result != ncclSuccess) return result;
  }
  return queue(calls);
}

}  // namespace cudasim::nccl
