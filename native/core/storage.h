// Memory shared by a tensor and its views, and the native side of one tensor.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "allocator.h"
#include "op.h"
#include "recycled.h"

namespace gradus {

class Device;

// Why the contents of a storage do not exist: the first operation that failed on the way to it.
struct Failure {
  ErrorCode code;
  std::string message;
  uint32_t context;  // module path of the operation, known to JavaScript
};

// A new constant that found no memory. Optimizers and scalers keep theirs for as long as they live, so it is made again
// by the next operation that wants it once the user has heard of a failure: until then everything that was queued along
// with it fails, too.
struct MissingConstant {
  double value;
  DType dtype;
  uint64_t reports;  // of its account by then
};

struct Storage : Recycled<Storage> {
  explicit Storage(Device* device) : device(device) {}
  Device* const device;
  Allocation memory;  // empty until the operation that makes it runs
  size_t bytes = 0;
  std::atomic<int32_t> references{1};
  uint32_t context = 0;
  // touched by the executor only
  std::shared_ptr<const Failure> failure;
  std::unique_ptr<MissingConstant> missing;  // what the failure is about; null: it is that of an operation
  uint32_t lateFailure = 0;  // number of the last operation on the way to it that may fail late; 0: none
  void* arrival = nullptr;   // of contents that a copy beside the stream brings; see Device::await
};

// Owned by its slot in a handle table. Operations are queued in order and releasing is one of them, so a tensor
// outlives every queued use of it without being counted.
struct Tensor : Recycled<Tensor> {
  TensorView view;  // data is filled in when an operation runs
  int64_t offset = 0;
  Storage* storage = nullptr;
  Device* device = nullptr;  // the storage's: calls look at it while the executor writes to the storage
};

// Called by the executor only.
void materialize(Storage& storage);
// Lets go of memory that never got contents; for an operation that writes all of them.
void leaveAbandoned(Storage& storage);
// A tensor's view with data, as operations see it.
void fill(TensorView& view, const Tensor& tensor);
void dropReference(Storage* storage);
void destroyTensor(Tensor* tensor);

}  // namespace gradus
