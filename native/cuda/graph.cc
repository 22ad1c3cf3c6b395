#include "graph.h"

#include "../core/parcel.h"

namespace gradus::cuda {
namespace {

std::shared_ptr<const Failure> unwritten(const char* got, const char* remedy) {
  const std::string text =
      std::string("CUDAGraph: a tensor that a captured function made has no contents: got ") + got + "; " + remedy;
  return std::make_shared<const Failure>(Failure{ErrorCode::kState, text, 0});
}

std::shared_ptr<const Failure> moved() {
  static const auto* const once = new auto(std::make_shared<const Failure>(
      Failure{ErrorCode::kState,
              "CUDAGraph.replay: a tensor that the graph uses was written anew after a capture that failed: got other "
              "memory, expected that of the capture; capture again",
              0}));
  return *once;
}

}  // namespace

GraphPool::GraphPool(CudaDevice& device)
    : source(device.opened, device.opened.queue, device.opened.bytes), allocator(source, &device.memory) {
  source.hold();
  static const auto* const before = new auto(unwritten(
      "a use of it before the first replay, expected one after it",
      "call replay() first, or run the function once before it is captured, so that what it keeps is there by then"));
  allocator.unwritten = *before;
}

void Graph::begin() {
  device_.memory
      .trim();  // what is cached there is of no use to the graph, and during the capture nothing can be given back
  pool_ = device_.openPool();
  try {
    cells_ = static_cast<GraphCells*>(device_.takeFrom(pool_->source, sizeof(GraphCells)));
  } catch (...) {
    device_.closePool(std::exchange(pool_, nullptr));
    throw;
  }
  try {
    device_.beginCapture(*this, pool_->allocator);
  } catch (...) {
    reset();
    throw;
  }
}

DriverGraph Graph::finish() noexcept {
  DriverGraph graph = nullptr;
  const Result result = device_.endCapture(&graph, &numbers_);
  if (result == kSuccess || failure_) return graph;
  failure_ = std::make_shared<Failure>(Failure{ErrorCode::kNative, describeResult(result, "cuStreamEndCapture"), 0});
  return graph;
}

void Graph::end() {
  DriverGraph graph = finish();
  account_->take(device_);  // failed() has heard of it, too
  if (!failure_) {
    const Result result = driver().graphInstantiate(&executable_, graph, 0);
    if (result != kSuccess) {
      failure_ = std::make_shared<Failure>(
          Failure{ErrorCode::kNative, describeResult(result, "cuGraphInstantiateWithFlags"), 0});
    }
  }
  if (graph != nullptr) driver().graphDestroy(graph);
  if (!failure_) return;
  const std::shared_ptr<const Failure> failure = failure_;
  reset();
  throw Error(failure->code, failure->message);
}

void Graph::abandon() noexcept {
  drop();
  account_->take(device_);
}

void Graph::drop() noexcept {
  if (DriverGraph graph = finish()) driver().graphDestroy(graph);
  reset();
}

void Graph::replay(const SharedParcel& cells) noexcept {
  if (executable_ == nullptr) return;
  for (const auto& [storage, place] : kept_) {
    std::shared_ptr<const Failure> failure = storage->failure;
    const uint32_t number = storage->lateFailure;
    if (!failure && storage->memory.owner) failure = storage->memory.owner->unwritten;
    if (!failure && storage->memory.data != place) failure = moved();
    if (!failure && !numbers_.has(number)) failure = device_.lateFailure(number);  // what it makes itself is made anew
    if (failure) return missed(std::move(failure));
  }
  try {
    device_.launchGraph(executable_, cells_, cells, numbers_);
    pool_->allocator.unwritten = nullptr;
  } catch (const Error& error) {
    missed(std::make_shared<Failure>(Failure{error.code(), error.what(), 0}));
  }
}

void Graph::missed(std::shared_ptr<const Failure> failure) noexcept {
  device_.missReplay(numbers_, failure);
  account_->note(device_, std::move(failure));
}

void Graph::reset() noexcept {
  if (pool_ == nullptr) return;
  device_.closeGraph(std::exchange(executable_, nullptr), numbers_);
  static const auto* const never = new auto(unwritten("one of a graph that was never replayed, or whose capture failed",
                                                      "run the function once before it is captured, so that what it "
                                                      "keeps (states of optimizers, gradients) is there by "
                                                      "then"));
  if (pool_->allocator.unwritten) pool_->allocator.unwritten = *never;
  pool_->allocator.isAbandoned = true;
  pool_->source.give(cells_, sizeof(GraphCells));
  device_.closePool(std::exchange(pool_, nullptr));
  for (const auto& [storage, place] : kept_) dropReference(storage);
  kept_.clear();
}

void Graph::check(const Account* account) {
  GRADUS_CHECK(
      account == account_, ErrorCode::kState,
      "CUDAGraph.capture: another thread uses %s: got its operation between those of the graph, expected none; "
      "wait for it",
      device_.name.c_str());
}

void Graph::uses(Storage& storage) {
  if (storage.memory.owner == &pool_->allocator || !kept_.try_emplace(&storage, storage.memory.data).second) return;
  storage.references.fetch_add(1, std::memory_order_relaxed);
}

void Graph::failed(const std::shared_ptr<const Failure>& failure) {
  if (!failure_) failure_ = failure;
}

const double* Graph::nextRate() {
  GRADUS_CHECK(rates_ < kMostRates, ErrorCode::kState,
               "CUDAGraph.capture: too many steps of optimizers: got more than %d, expected fewer groups and devices",
               kMostRates);
  return &cells_->rates[rates_++];
}

}  // namespace gradus::cuda
