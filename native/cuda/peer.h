// Copies from one CUDA device to another, which the driver does: from card to card where they reach each other, through
// memory of its own where not. No thread of JavaScript waits, and executors until both have come to it.
//
// A copy is a meeting of the two executors (core/meeting.h) and runs on the source's stream: behind what makes its
// elements and before what may write over them. It waits for what the target's stream has by then, which may still use
// the memory that the elements come to, and what the target's stream gets from there on waits for it.
//
// What the source finds out late (failure.h) the copy fails with, and what depends on it. The copy takes the number of
// the operation that failed along, so that the target's optimizers look at it, too; the error itself is what the
// source's waiter hears and the target's waiter waits for. A waiter waits for what was queued in an earlier meeting
// only, so never in a circle.
#pragma once

#include "../core/meeting.h"
#include "device.h"

namespace gradus::cuda {

// Whether they are two CUDA devices.
bool arePeers(const Device& source, const Device& target);
// Both are contiguous, of one dtype and size, on peers; `to` is new.
SharedMeeting makePeerCopy(Account* account, Tensor* from, Tensor* to);

// On the device's executor: where one of `count` numbers of other devices' operations is not 0, the slot's operation
// failed. `seen`: scratch, as many.
void reportSerials(CudaDevice& device, const unsigned* serials, int count, long long* seen, const FailureSlot& slot);

}  // namespace gradus::cuda
