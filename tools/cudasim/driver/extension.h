// How the other libraries of the simulator (cuBLAS, NCCL) queue work of their own: a task runs in stream order and sees
// device memory through the same checks as a kernel.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "types.h"

namespace cudasim::driver {

#define CUDASIM_EXPORT __attribute__((visibility("default")))

class Driver;
struct Op;
class Context;

// Access to memory while a task runs. Everything throws SimError, as a kernel would, and notes the access for the check
// of races between streams.
class CUDASIM_EXPORT Task {
 public:
  Task(Driver& driver, Op& op, Context& context, std::string name);
  // Refuses bytes that nobody has written.
  void read(uint64_t address, void* to, size_t bytes);
  void write(uint64_t address, const void* from, size_t bytes);
  // The library found something wrong itself.
  [[noreturn]] void reject(const std::string& text);

 private:
  Driver& driver_;
  Op& op_;
  Context& context_;
  std::string name_;
};

namespace extension {

// The current context's device, or -1.
CUDASIM_EXPORT int currentDevice();
// CUDA_SUCCESS, or what a launch on this stream would return.
CUDASIM_EXPORT abi::CUresult submitTask(abi::CUstream stream, const std::string& name, std::function<void(Task&)> run);
// The device's primary context; null while it is not active.
CUDASIM_EXPORT abi::CUcontext contextOf(int device);
// Makes a context current for this thread; the one that was.
CUDASIM_EXPORT abi::CUcontext swapContext(abi::CUcontext context);
// The device that a stream belongs to, where `device` is the one whose default streams are meant; -1: no stream.
CUDASIM_EXPORT int deviceOfStream(int device, abi::CUstream stream);
CUDASIM_EXPORT bool isHealthy(int device);
CUDASIM_EXPORT int stuckCollectiveSeconds();
// What becomes of the next call of a rank to a collective, by the settings failCollective and breakCollective.
enum class CollectiveFault { kNone, kRefused, kBroken };
CUDASIM_EXPORT CollectiveFault nextCollectiveFault();
CUDASIM_EXPORT void reportFinding(const char* kind, const std::string& text);

// Work in which several streams meet: every member's stream waits until all have come and `run` has been carried out
// once, with one task a member. Members that stay away make the others' contexts fail after the setting
// stuckCollective.
class CUDASIM_EXPORT Meeting {
 public:
  Meeting(std::string name, int members, std::function<void(std::vector<Task>&)> run,
          std::function<std::string()> whoIsMissing);
  ~Meeting();
  // A member's stream has come; `leave` makes it wait. What is queued between the two does not wait for the others, so
  // that several meetings can overlap.
  abi::CUresult arrive(int member, abi::CUstream stream);
  abi::CUresult leave(abi::CUstream stream);
  // Nobody else will come. With a reason the members' contexts fail, without one they go on.
  void abandon(const std::string& why);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace extension
}  // namespace cudasim::driver
