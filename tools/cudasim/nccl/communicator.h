// Communicators: who belongs together, and what each rank has called so far. All ranks live in this process.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../driver/extension.h"
#include "types.h"

namespace cudasim::nccl {

enum class Kind : uint8_t {
  kAllReduce,
  kReduce,
  kReduceScatter,
  kBroadcast,
  kAllGather,
  kGather,
  kScatter,
  kAllToAll,
  kSendReceive,
};

// What one rank asks for. Ranks must agree on everything but the buffers.
struct Call {
  Kind kind = Kind::kAllReduce;
  size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int root = -1;
  uint64_t send = 0, receive = 0;
  cudaStream_t stream = nullptr;

  bool agrees(const Call& other) const;
  std::string text() const;  // "allReduce of 1024 float32, sum"
};

// One collective: filled in by the ranks as they come, carried out by the driver once all have.
struct Collective {
  std::vector<Call> calls;  // by rank
  std::vector<bool> has;    // who has called
  int firstRank = -1;
  std::unique_ptr<driver::extension::Meeting> meeting;
  std::string missing() const;
};

struct Team;

struct Communicator {
  std::shared_ptr<Team> team;
  int rank = 0, device = 0;
  uint64_t collectives = 0;                       // called so far
  std::map<std::pair<int, int>, uint64_t> pairs;  // messages so far, by sender and receiver
  ncclResult_t error = ncclSuccess;
  bool isAborted = false;
};

struct Team {
  explicit Team(int ranks) : members(ranks) {}
  std::vector<Communicator*> members;  // by rank; null: not there yet, or gone
  int joined = 0;
  std::map<uint64_t, std::shared_ptr<Collective>> collectives;                     // by number
  std::map<std::tuple<int, int, uint64_t>, std::shared_ptr<Collective>> messages;  // sender, receiver, number
  std::string lastError;
};

// One lock for all of NCCL; always taken before the driver's.
std::mutex& lock();
std::condition_variable& changed();

// The collective has not been carried out and will not be: every rank learns of it.
void failTeam(Team& team, const std::string& why);

// Does what the collective says, in device memory.
void carryOut(const Collective& collective, std::vector<driver::Task>& tasks);

// Queues a call, or keeps it for ncclGroupEnd.
ncclResult_t submit(Communicator* comm, Call call, int peer = -1);

size_t bytesOf(ncclDataType_t type);
const char* nameOf(ncclDataType_t type);

}  // namespace cudasim::nccl
