#include "device.h"

namespace gradus {

void materialize(Storage& storage) {
  if (storage.memory.data == nullptr && storage.bytes > 0) {
    storage.memory = storage.device->memory.allocate(storage.bytes, storage.context);
  }
}

void dropReference(Storage* storage) {
  if (storage->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    storage->device->memory.release(storage->memory);
    delete storage;
  }
}

void destroyTensor(Tensor* tensor) {
  dropReference(tensor->storage);
  delete tensor;
}

}  // namespace gradus
