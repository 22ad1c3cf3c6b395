// What the simulator can find wrong, and the error that carries a finding to the caller.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cudasim {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

enum class Fault : uint8_t {
  kBadPtx,               // text that the front end cannot read
  kUnknownOpcode,        // an opcode, modifier or directive that the machine does not execute
  kOutOfBounds,          // an address outside every allocation, or past the end of one
  kMisaligned,           // an address that is no multiple of the access size
  kUseAfterFree,         // an address in an allocation that was released
  kReadOnly,             // a store to constant or parameter memory
  kUninitializedGlobal,  // bytes that nobody has written
  kUninitializedShared,
  kUninitializedLocal,
  kUninitializedRegister,
  kHostDereference,    // an address of ordinary host memory
  kPeerAccess,         // memory of another device that this one may not access
  kRaceShared,         // two warps, no barrier between them
  kRaceGlobal,         // two threads of one block, no barrier between them
  kRaceBlocks,         // two blocks of one launch
  kRaceLanes,          // two lanes of one warp, no __syncwarp between them
  kDivergentBarrier,   // bar.sync while lanes of the warp are elsewhere
  kExitedBarrier,      // threads of the block ended before a barrier that waits for them
  kBarrierMismatch,    // wrong number of threads, or warps that wait at different barriers for ever
  kBadMemberMask,      // .sync instruction whose mask leaves out its caller, or names lanes that never come
  kInactiveShuffle,    // value asked from a lane that does not take part
  kCpAsyncBeforeWait,  // destination of cp.async touched before its wait
  kUndefinedResult,    // an operand for which PTX leaves the result undefined
  kTrap,               // the kernel executed trap
  kWatchdog,           // more instructions than Options::watchdog
  kLaunchBounds,       // block larger than the kernel's or the device's bound
  kSharedLimit,        // more shared memory than the function's limit
  kGridLimit,          // grid dimension zero or past the device's limit, cooperative grid too large
  kBadLaunch,          // parameter bytes that do not fit the kernel
};

const char* faultName(Fault fault);  // "out of bounds", "race in shared memory", ...

struct Finding {
  Fault fault;
  std::string message;  // complete sentence: kernel, block, thread, PTX line and text, address, allocation
  std::string kernel;   // empty for findings of the front end
  Dim3 block{0, 0, 0}, thread{0, 0, 0};
  int line = 0;          // in the PTX text, 1-based; 0 when there is none
  uint64_t address = 0;  // the offending address, 0 when there is none
};

class SimError : public std::runtime_error {
 public:
  explicit SimError(Finding f) : std::runtime_error(f.message), finding(std::move(f)) {}
  Fault fault() const { return finding.fault; }
  Finding finding;
};

}  // namespace cudasim
