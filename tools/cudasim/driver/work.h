// What an operation or a graph's node does. Everything that the call gave by pointer has been copied, but host buffers,
// which belong to the program until the work has run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "../machine/machine.h"
#include "types.h"

namespace cudasim::driver {

struct Function;
class Context;
struct Block;
class Task;

struct EmptyWork {};

struct KernelWork {
  std::shared_ptr<Function> function;
  Dim3 grid, block;
  uint32_t dynamicShared = 0;
  uint32_t maxDynamicShared = 0;  // as the function allowed when it was launched
  bool cooperative = false;
  std::vector<std::byte> params;
};

// One side of a copy: rows of `width` bytes, `pitch` apart, in slices of `rows` rows.
struct Side {
  enum class Where : uint8_t { kDevice, kPinned, kPageable };
  Where where = Where::kDevice;
  int device = -1;       // of the memory, for kDevice
  uint64_t address = 0;  // of the first byte
  size_t pitch = 0, rows = 0;
};

struct CopyWork {
  Side to, from;
  size_t width = 0, height = 1, depth = 1;
  std::shared_ptr<std::vector<std::byte>> staged;  // the bytes of a pageable source, taken at the call
  bool peer = false;                               // one of the calls made for copies between devices
};

struct SetWork {
  uint64_t address = 0;
  size_t pitch = 0;
  uint32_t value = 0, elementBytes = 1;
  size_t width = 0, height = 1;  // in elements
};

struct HostWork {
  std::function<void(abi::CUresult)> call;
  bool runsOnError = false;  // callbacks of cuStreamAddCallback hear of errors, host functions do not
};

// Work of another library (cuBLAS, NCCL): see extension.h.
struct TaskWork {
  std::string name;
  std::function<void(Task&)> run;
};

struct FreeWork {
  uint64_t address = 0;
};

using Work = std::variant<EmptyWork, KernelWork, CopyWork, SetWork, HostWork, TaskWork, FreeWork>;

abi::CUgraphNodeType nodeType(const Work& work);
std::string describe(const Work& work);  // "kernel add", "copy of 64 bytes to the device"

}  // namespace cudasim::driver
