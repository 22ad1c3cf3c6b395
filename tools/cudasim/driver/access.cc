#include "access.h"

namespace cudasim::driver {

std::string describeBytes(Driver& driver, uint64_t address, size_t bytes) {
  std::string text = std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
  Memory::Range range;
  for (const auto& gpu : driver.gpus)
    if (gpu->memory.find(address, &range)) {
      text += " at byte " + std::to_string(address - range.address) + " of '" + range.label + "'";
      return range.host ? text : text + " on device " + std::to_string(gpu->ordinal);
    }
  return text + " at " + std::to_string(address);
}

void touch(Driver& driver, const Op& op, uint64_t address, size_t bytes, bool write) {
  if (!driver.settings.checkStreams) return;
  const auto conflict = driver.history.touch(address, bytes, write, {op.epoch, op.name}, op.clock);
  if (!conflict) return;
  driver.misuse("race between streams",
                op.name + (write ? " writes " : " reads ") + describeBytes(driver, conflict->address, conflict->bytes) +
                    ", which " + conflict->other + (conflict->otherWrote ? " wrote" : " read") +
                    "; no event or wait orders the two",
                abi::CUDA_ERROR_LAUNCH_FAILED);
}

void requireInitialized(Driver& driver, const std::string& who, Memory& memory, uint64_t address, size_t bytes) {
  if (!driver.settings.checkInitialized || driver.settings.recordOnly) return;
  const size_t missing = memory.uninitializedBytes(address, bytes);
  if (missing == 0) return;
  Finding finding{.fault = Fault::kUninitializedGlobal, .message = {}, .kernel = who};
  finding.message = who + " reads " + describeBytes(driver, address, bytes) + ", of which nobody has written " +
                    std::to_string(missing);
  finding.address = address;
  throw SimError(finding);
}

}  // namespace cudasim::driver
