#include "storage.h"

namespace gradus {

void materialize(Storage& storage) {
  if (storage.memory.data == nullptr && storage.bytes > 0) {
    storage.memory = hostAllocator().allocate(storage.bytes, storage.context);
  }
}

void dropReference(Storage* storage) {
  if (storage->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    hostAllocator().release(storage->memory);
    delete storage;
  }
}

void destroyTensor(Tensor* tensor) {
  dropReference(tensor->storage);
  delete tensor;
}

}  // namespace gradus
