// Stream-ordered allocation.
#pragma once

#include "objects.h"

namespace cudasim::driver {

std::shared_ptr<Pool> makePool(Gpu& gpu, bool isDefault);

// Bookkeeping of a pool. Freed memory stays reserved until a wait finds more than the threshold.
void takeFromPool(Pool& pool, size_t bytes);
void giveToPool(Pool& pool, size_t bytes);
void trimPool(Pool& pool, uint64_t keep);
void trimToThreshold(Pool& pool);
size_t cachedInPools(const Gpu& gpu);  // freed, but not given back to the card

}  // namespace cudasim::driver
