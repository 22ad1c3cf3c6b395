#include "device.h"

namespace gradus {
namespace {

// Where a tensor without memory lies: kernels compute addresses before they know that there is nothing to do, and from
// a null pointer that is not allowed.
alignas(64) char emptyMemory[64];

}  // namespace

void materialize(Storage& storage) {
  if (storage.memory.data == nullptr && storage.bytes > 0) {
    storage.memory = storage.device->arena().allocate(storage.bytes, storage.context);
  }
}

void leaveAbandoned(Storage& storage) {
  Allocator* const owner = storage.memory.owner;
  if (owner == nullptr || !owner->unwritten || !owner->isAbandoned) return;
  owner->release(storage.memory);
  storage.memory = {};
}

void fill(TensorView& view, const Tensor& tensor) {
  view = tensor.view;
  char* memory = tensor.storage->memory.data ? static_cast<char*>(tensor.storage->memory.data) : emptyMemory;
  view.data = memory + tensor.offset * static_cast<int64_t>(itemSize(view.dtype));
}

void dropReference(Storage* storage) {
  if (storage->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    if (storage->arrival) storage->device->await(*storage);  // nobody else may write where a copy still does
    if (storage->memory.owner) storage->memory.owner->release(storage->memory);
    delete storage;
  }
}

void destroyTensor(Tensor* tensor) {
  dropReference(tensor->storage);
  delete tensor;
}

}  // namespace gradus
