// Kernels in the binary: one PTX a family, and cubins where the build made some; loaded when they are first used.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "../core/device.h"
#include "driver.h"

namespace gradus::cuda {

class CudaDevice;

// One image of a family; the build's generated table lists them.
struct Blob {
  const char* family;
  int architecture;  // of a cubin, such as 80; 0: PTX
  const char* begin;
  const char* end;
};
struct BlobTable {
  const Blob* blobs;
  int count;
  int version;  // of the compiler, as the driver API counts; 0 where there are no kernels
};
const BlobTable& blobTable();

// A kernel of a family by its name in the source, looked up once a device.
class Kernel {
 public:
  // `sharedBytes`: dynamic shared memory of a block.
  Kernel(const char* family, std::string name, unsigned sharedBytes = 0)
      : sharedBytes(sharedBytes), family_(family), name_(std::move(name)) {}
  Function on(CudaDevice& device);
  const char* name() const { return name_.c_str(); }

  const unsigned sharedBytes;

 private:
  const char* family_;
  std::string name_;
  std::atomic<Function> found_[kMostDevices] = {};
};

// The modules of one device.
class Modules {
 public:
  // `architecture` is the device's: 10 * major + minor.
  Function find(const char* family, const char* name, int architecture);

 private:
  struct Loaded {
    const char* family;
    Module module;
  };
  Module moduleOf(const char* family, int architecture);
  std::mutex mutex_;
  std::vector<Loaded> loaded_;
};

}  // namespace gradus::cuda
