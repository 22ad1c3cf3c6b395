// Memset in all its forms. None of them waits, but for pinned host memory in the synchronous ones.
#include "capture.h"
#include "copy.h"
#include "entry.h"
#include "queue.h"

namespace cudasim::driver {
namespace {

using namespace abi;

CUresult set(const char* function, CUstream handle, bool isSynchronous, SetWork work) {
  return entry(function, Needs::kContext, [&](Driver& driver) {
    if (isSynchronous) refuseUnsafeInCapture(driver, function);
    if (work.width == 0 || work.height == 0) return;
    const std::shared_ptr<Stream> stream = isSynchronous ? current()->legacy : streamOf(driver, handle);
    checkSet(driver, *stream->context, work, function);
    const bool isPinned = !driver.owner(work.address);
    const OpRef op = submit(driver, stream, std::move(work));
    if (!isSynchronous || !isPinned) return;
    driver.finish(op);
    require(stream->context->sticky == CUDA_SUCCESS, stream->context->sticky);
  });
}

SetWork row(CUdeviceptr target, uint32_t value, uint32_t elementBytes, size_t count) {
  return {target, count * elementBytes, value, elementBytes, count, 1};
}

}  // namespace
}  // namespace cudasim::driver

namespace cudasim::abi {

using namespace driver;

extern "C" {

CUresult cuMemsetD8_v2(CUdeviceptr target, unsigned char value, size_t count) {
  return set("cuMemsetD8", nullptr, true, row(target, value, 1, count));
}

CUresult cuMemsetD16_v2(CUdeviceptr target, unsigned short value, size_t count) {
  return set("cuMemsetD16", nullptr, true, row(target, value, 2, count));
}

CUresult cuMemsetD32_v2(CUdeviceptr target, unsigned value, size_t count) {
  return set("cuMemsetD32", nullptr, true, row(target, value, 4, count));
}

CUresult cuMemsetD2D8_v2(CUdeviceptr target, size_t pitch, unsigned char value, size_t width, size_t height) {
  return set("cuMemsetD2D8", nullptr, true, {target, pitch, value, 1, width, height});
}

CUresult cuMemsetD2D16_v2(CUdeviceptr target, size_t pitch, unsigned short value, size_t width, size_t height) {
  return set("cuMemsetD2D16", nullptr, true, {target, pitch, value, 2, width, height});
}

CUresult cuMemsetD2D32_v2(CUdeviceptr target, size_t pitch, unsigned value, size_t width, size_t height) {
  return set("cuMemsetD2D32", nullptr, true, {target, pitch, value, 4, width, height});
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, CUstream stream) {
  return set("cuMemsetD8Async", stream, false, row(target, value, 1, count));
}

CUresult cuMemsetD16Async(CUdeviceptr target, unsigned short value, size_t count, CUstream stream) {
  return set("cuMemsetD16Async", stream, false, row(target, value, 2, count));
}

CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, CUstream stream) {
  return set("cuMemsetD32Async", stream, false, row(target, value, 4, count));
}

CUresult cuMemsetD2D8Async(CUdeviceptr target, size_t pitch, unsigned char value, size_t width, size_t height,
                           CUstream stream) {
  return set("cuMemsetD2D8Async", stream, false, {target, pitch, value, 1, width, height});
}

CUresult cuMemsetD2D16Async(CUdeviceptr target, size_t pitch, unsigned short value, size_t width, size_t height,
                            CUstream stream) {
  return set("cuMemsetD2D16Async", stream, false, {target, pitch, value, 2, width, height});
}

CUresult cuMemsetD2D32Async(CUdeviceptr target, size_t pitch, unsigned value, size_t width, size_t height,
                            CUstream stream) {
  return set("cuMemsetD2D32Async", stream, false, {target, pitch, value, 4, width, height});
}
}

}  // namespace cudasim::abi
