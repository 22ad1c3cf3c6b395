// ncclGroupStart and ncclGroupEnd: calls and initializations of this thread that are made together.
#pragma once

#include "communicator.h"

namespace cudasim::nccl {

// A rank's place in a collective, found but not queued yet.
struct Entered {
  std::shared_ptr<Collective> collective;
  int member = 0;
  cudaStream_t stream = nullptr;
};

ncclResult_t enter(Communicator& comm, const Call& call, int peer, Entered& entered);

bool isInGroup();
// For ncclGroupEnd: waits until all ranks of the team are there.
void waitLater(std::shared_ptr<Team> team);
ncclResult_t waitForTeam(const Team& team, std::unique_lock<std::mutex>& held);

}  // namespace cudasim::nccl
