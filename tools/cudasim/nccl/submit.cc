// From a call of one rank to a collective of all. Calls that do not fit together are found when they are made; a rank
// that never comes is found when the others wait for it.
#include <algorithm>

#include "communicator.h"
#include "group.h"

namespace cudasim::nccl {

using driver::Task;
using driver::extension::Meeting;

namespace {

const char* nameOf(Kind kind) {
  constexpr const char* kNames[] = {"allReduce", "reduce",  "reduceScatter", "broadcast",       "allGather",
                                    "gather",    "scatter", "allToAll",      "send and receive"};
  return kNames[static_cast<int>(kind)];
}

std::shared_ptr<Collective> begin(const Call& call, int members, int member, const std::string& name) {
  auto made = std::make_shared<Collective>();
  made->calls.resize(members);
  made->has.resize(members);
  made->firstRank = member;
  made->calls[member] = call;
  // The meeting lives in the collective, so it must not keep it; the ranks' operations and the team do.
  const std::weak_ptr<Collective> weak = made;
  made->meeting = std::make_unique<Meeting>(
      name, members, [made = std::shared_ptr<Collective>(made)](std::vector<Task>& tasks) { carryOut(*made, tasks); },
      [weak] {
        const auto collective = weak.lock();
        return collective ? collective->missing() : std::string("a rank is gone");
      });
  return made;
}

}  // namespace

bool Call::agrees(const Call& other) const {
  return kind == other.kind && count == other.count && type == other.type && op == other.op && root == other.root;
}

std::string Call::text() const {
  constexpr const char* kOps[] = {"sum", "product", "maximum", "minimum", "average"};
  std::string text = std::string(nameOf(kind)) + " of " + std::to_string(count) + " " + nccl::nameOf(type);
  if (kind <= Kind::kReduceScatter) text += std::string(", ") + kOps[op];
  if (root >= 0 && kind != Kind::kSendReceive) text += ", root " + std::to_string(root);
  return text;
}

std::string Collective::missing() const {
  std::string ranks;
  for (size_t i = 0; i < has.size(); ++i)
    if (!has[i]) ranks += (ranks.empty() ? "" : ", ") + std::to_string(i);
  return "rank " + ranks + " did not come to " + calls[firstRank].text() + " that rank " + std::to_string(firstRank) +
         " called";
}

void failTeam(Team& team, const std::string& why) {
  team.lastError = why;
  for (Communicator* member : team.members)
    if (member && member->error == ncclSuccess) member->error = ncclRemoteError;
  for (auto& [number, collective] : team.collectives) collective->meeting->abandon(why);
  for (auto& [key, collective] : team.messages) collective->meeting->abandon(why);
  team.collectives.clear();
  team.messages.clear();
}

// Under the lock of NCCL. Finds or makes the collective that this call belongs to.
ncclResult_t enter(Communicator& comm, const Call& call, int peer, Entered& entered) {
  Team& team = *comm.team;
  if (comm.error != ncclSuccess) return comm.error;
  std::shared_ptr<Collective>* slot = nullptr;
  int members = static_cast<int>(team.members.size()), member = comm.rank;
  std::string name = "nccl ";
  std::tuple<int, int, uint64_t> message;
  uint64_t number = 0;
  if (peer >= 0) {
    const bool isSender = call.root == comm.rank;
    const std::pair<int, int> pair = isSender ? std::pair(comm.rank, peer) : std::pair(peer, comm.rank);
    number = comm.pairs[pair]++;
    message = {pair.first, pair.second, number};
    slot = &team.messages[message];
    members = 2;
    member = isSender ? 0 : 1;
    name += "message " + std::to_string(number) + " from rank " + std::to_string(pair.first) + " to rank " +
            std::to_string(pair.second);
  } else {
    number = comm.collectives++;
    slot = &team.collectives[number];
    name += "collective " + std::to_string(number);
  }
  if (!*slot) *slot = begin(call, members, member, name);
  const std::shared_ptr<Collective> collective = *slot;
  const Call& first = collective->calls[collective->firstRank];
  if (!call.agrees(first)) {
    const std::string why = "rank " + std::to_string(comm.rank) + " calls " + call.text() +
                            ", the rank before it called " + first.text();
    comm.error = ncclInvalidUsage;
    failTeam(team, why);
    return ncclInvalidUsage;
  }
  collective->calls[member] = call;
  collective->has[member] = true;
  if (std::all_of(collective->has.begin(), collective->has.end(), [](bool has) { return has; })) {
    if (peer >= 0)
      team.messages.erase(message);
    else
      team.collectives.erase(number);
  }
  entered = {collective, member, call.stream};
  return ncclSuccess;
}

}  // namespace cudasim::nccl
