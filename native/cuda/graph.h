// A captured graph: what operations launched between begin() and end(), to be launched again as a whole.
//
// While it is captured nothing runs, and what operations make comes from a pool of the graph's own: its kernels write
// there at every replay. Storages from elsewhere (parameters, states of optimizers, inputs) stay for as long as the
// graph does, whoever lets go of them. Three kinds of numbers that launches carry change from step to step: they lie in
// cells on the device, which a replay fills first. Everything here runs on the executor.
#pragma once

#include <unordered_map>

#include "device.h"
#include "kernels/cells.h"

namespace gradus::cuda {

// Memory of one graph. It outlives the graph for as long as tensors lie in it.
struct GraphPool {
  explicit GraphPool(CudaDevice& device);
  DeviceMemory source;
  Allocator allocator;
  bool isRetired = false;
};

class Graph final : public Device::Recorder {
 public:
  Graph(CudaDevice& device, Account* account) : device_(device), account_(account) {}
  Graph(const Graph&) = delete;

  void begin();
  // Throws what an operation failed with, or the driver; nothing is left of the graph then.
  void end();
  // Ends a capture that is not wanted.
  void abandon() noexcept;
  // The same when its environment is gone.
  void drop() noexcept;
  // Notes a failure for the next wait to report.
  void replay(const std::shared_ptr<Parcel>& cells) noexcept;
  // Gives everything back. Replays that are queued run first.
  void reset() noexcept;

  void check(const Account* account) override;
  void uses(Storage& storage) override;
  void failed(const std::shared_ptr<const Failure>& failure) override;

  const PhiloxCell* philox() const { return &cells_->philox; }
  const double* nextRate();

 private:
  DriverGraph finish() noexcept;
  void missed(std::shared_ptr<const Failure> failure) noexcept;

  CudaDevice& device_;
  Account* account_;
  GraphPool* pool_ = nullptr;
  GraphCells* cells_ = nullptr;  // in the device's memory
  GraphExec executable_ = nullptr;
  int rates_ = 0;
  std::shared_ptr<const Failure> failure_;
  FailureRange numbers_;
  std::unordered_map<Storage*, const void*> kept_;  // and where each lay
};

}  // namespace gradus::cuda
