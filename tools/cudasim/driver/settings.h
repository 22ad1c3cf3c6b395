// What a test asks of the simulator. Each setting is an environment variable CUDASIM_<NAME IN CAPITALS>, read once when
// the library loads, or a word `name=value` given to cudasimControl().
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "../machine/machine.h"

namespace cudasim::driver {

struct Settings {
  // The machine that is simulated; read by cuInit.
  int devices = 1;                  // of which CUDA_VISIBLE_DEVICES shows some, as with the driver
  size_t memory = size_t{4} << 30;  // bytes a device, with K, M or G behind the number if wished
  int driverVersion = 13000;
  bool peers = true;                           // its devices reach each other's memory
  std::set<std::string, std::less<>> missing;  // symbols that this driver lacks, separated by commas; see symbols.h

  // Faults. Counted from the call that sets them; 0: never.
  uint64_t failAllocation = 0;      // the n-th allocation of device memory is out of memory
  uint64_t failHostAllocation = 0;  // the same for pinned host memory
  uint64_t failAllocations = 1;     // so many in a row of either, for programs that try again
  uint64_t failLaunch = 0;          // the n-th kernel fails when it runs, and its context with it
  uint64_t failCollective = 0;      // the n-th call of a rank to a collective is refused with a system error
  uint64_t breakCollective = 0;     // the n-th is taken, and its ranks hear of a remote error afterwards
  int lostDevice = -1;              // this device answers nothing from now on
  int stuckCollective = 10;         // seconds that a collective waits for ranks that have not called it

  // Order and speed.
  uint64_t seed = 0;        // order of blocks and warps (machine) and of streams (scheduler); 0: only what is asked for
  int progress = 1;         // milliseconds without a call after which queued host functions run by themselves
  bool paused = false;      // nothing runs, and who waits goes on waiting, until it is false again
  bool recordOnly = false;  // kernels are counted, not executed; their outputs count as written
  int threads = 0;          // host threads of a launch; 0: the processor's count
  int ulp = 0;              // see Options::ulpPerturbation
  uint64_t watchdog = 0;    // warp instructions of one launch; 0: the machine's default

  // Checks, all on: checks=none, checks=all, checks=-races,-streams (what the names turn off is in settings.cc).
  bool checkMemory = true, checkInitialized = true, checkRaces = true, checkLanes = true, checkWarpSync = true;
  bool checkStreams = true;   // races between streams, freeing in use
  bool checkContexts = true;  // memory of a device that is not current and not a peer
  bool leaks = true;          // a line a block when a context goes

  std::string report;    // file that findings are appended to
  std::string counters;  // file that cudasimCounters()'s text is written to when the process ends; counters.h

  // Throws std::invalid_argument that names the word.
  void apply(std::string_view words);
  void applyEnvironment();
  Options options() const;
};

}  // namespace cudasim::driver
