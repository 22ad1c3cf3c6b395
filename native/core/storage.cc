#include "device.h"

namespace gradus {

void materialize(Storage& storage) {
  if (storage.memory.data == nullptr && storage.bytes > 0) {
    storage.memory = storage.device->arena().allocate(storage.bytes, storage.context);
  }
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
