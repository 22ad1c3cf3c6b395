// One allocation of device memory: bytes, which of them are written, and who used them last.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace cudasim {

// Shadows of an earlier generation hold block numbers that have come round again.
inline std::atomic<uint32_t> shadowGeneration{0};

// Last writer and last reader of each granule of 1 << shift bytes; see run/order.h. Pages appear when touched.
class RaceShadow {
 public:
  RaceShadow(size_t bytes, int shift);
  ~RaceShadow();
  RaceShadow(const RaceShadow&) = delete;
  RaceShadow& operator=(const RaceShadow&) = delete;

  // Whether there is room for so many granules, and no entry that could look new.
  bool holds(size_t bytes, int shift) const {
    return bytesOf(bytes, shift) <= mapped_ && generation == shadowGeneration;
  }

  uint64_t *writers = nullptr, *readers = nullptr;
  std::vector<uint64_t> touched;  // by piece of kTouchedBytes: the last launch that used it and was asked to tell
  const int shift;
  const uint32_t generation = shadowGeneration;

 private:
  static size_t bytesOf(size_t bytes, int shift) { return ((bytes >> shift) + 2) * sizeof(uint64_t); }
  size_t mapped_;
};

constexpr uint64_t kTouchedBytes = 4096;

struct FreeBytes {
  void operator()(uint8_t* p) const;
};
using Bytes = std::unique_ptr<uint8_t[], FreeBytes>;

struct Allocation {
  uint64_t address = 0;
  size_t bytes = 0;
  std::string label;
  uint8_t* data = nullptr;
  uint8_t* valid = nullptr;  // one byte a byte, 1 when written; null: all of it counts as written
  bool live = true, host = false, readOnly = false;
  std::atomic<RaceShadow*> shadow = nullptr;
  Bytes storage, validStorage;
  std::unique_ptr<RaceShadow> shadowStorage;

  // Called by the launch's threads; made anew when a kernel needs finer granules.
  RaceShadow& raceShadow(int shift);
};

constexpr size_t kGlobalRedZone = 512;

}  // namespace cudasim
