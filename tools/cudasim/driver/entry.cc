#include "entry.h"

#include <unistd.h>

namespace cudasim::driver {

using namespace abi;

namespace {
thread_local bool insideHostFunction = false;
}

std::vector<std::shared_ptr<Context>>& contextStack() {
  thread_local std::vector<std::shared_ptr<Context>> stack;
  return stack;
}

std::shared_ptr<Context> current() { return contextStack().empty() ? nullptr : contextStack().back(); }

void markHostFunction(bool inside) { insideHostFunction = inside; }

void checkEntry(Driver& driver, Needs needs) {
  if (insideHostFunction)
    driver.misuse("call from a host function", "cuLaunchHostFunc: the function may not call the driver",
                  CUDA_ERROR_NOT_PERMITTED);
  if (needs == Needs::kNothing) return;
  require(driver.isInitialized, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
  require(driver.process == getpid(), CUDA_ERROR_NOT_INITIALIZED, "cuInit was called before fork()");
  if (needs == Needs::kInit) return;
  const std::shared_ptr<Context> context = current();
  require(context != nullptr, CUDA_ERROR_INVALID_CONTEXT, "no context is current on this thread");
  require(!context->isDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  if (context->gpu.ordinal == driver.settings.lostDevice) context->sticky = CUDA_ERROR_UNKNOWN;
  require(context->sticky == CUDA_SUCCESS, context->sticky, "the context failed before");
}

std::shared_ptr<Stream> streamOf(Driver& driver, CUstream handle) {
  if (handle == nullptr || handle == kStreamLegacy) return current()->legacy;
  if (handle == kStreamPerThread) {
    std::shared_ptr<Stream>& stream = current()->perThread[std::this_thread::get_id()];
    if (!stream) stream = current()->addStream(CU_STREAM_DEFAULT, 0);
    return stream;
  }
  std::shared_ptr<Stream> stream = driver.object<Stream>(handle);
  require(!stream->context->isDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  require(stream->context->sticky == CUDA_SUCCESS, stream->context->sticky, "the stream's context failed before");
  return stream;
}

}  // namespace cudasim::driver
