// What the kernels did, as JSON: given to cudasimCounters(), and written to the file that the setting `counters` names.
#pragma once

#include "driver.h"

namespace cudasim::driver {

// The caller holds the driver's lock.
std::string countersJson(Driver& driver);
// To the file, if one is named; "%p" in its name is the process's number. `now`: otherwise at most once a second, so
// that a process that is killed leaves most of it behind.
void writeCounters(Driver& driver, bool now);
// The last word when the process ends.
void writeCountersAtExit();

}  // namespace cudasim::driver
