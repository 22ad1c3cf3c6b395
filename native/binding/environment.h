// What one JavaScript environment (the main thread or a worker) owns: its handles, its scratch buffer and the
// promises it waits for.
#pragma once

#define NAPI_VERSION 9
#include <node_api.h>

#include <memory>
#include <string>
#include <unordered_set>

#include "../core/device.h"
#include "../core/handles.h"

namespace gradus::binding {

struct PendingRead;

struct Environment {
  napi_env env = nullptr;
  HandleTable handles;
  Account account;
  double* scratch = nullptr;  // shared with lib/native.ts; see dispatch.cc for its layout
  size_t scratchLength = 0;
  napi_ref scratchRef = nullptr;
  napi_threadsafe_function settle = nullptr;  // resolves promises on the JavaScript thread
  std::unordered_set<PendingRead*> pending;
  std::vector<Tensor*> in, out;       // reused by dispatch
  Allocator* logging = nullptr;       // the one whose log it began
  const Device* capturing = nullptr;  // the one on which it captures a graph
  std::string refused;                // the first call that the capture could not take

  void endLog() {
    if (logging) logging->stopLog();
    logging = nullptr;
  }

  Tensor* find(double handle, const char* what) const {
    Tensor* tensor = handles.find(handle);
    GRADUS_CHECK(tensor, ErrorCode::kState, "%s: the tensor was released; keep it with .keep()", what);
    return tensor;
  }
};

Environment* environmentOf(napi_env env, napi_callback_info info);
Environment* environmentOf(napi_env env, napi_callback_info info, size_t count, napi_value* args);

// [code, message, context], which lib/native.ts makes a typed error of.
napi_value makeFailure(napi_env env, ErrorCode code, const char* message, uint32_t context);

// Runs `body`, turning every C++ exception into the failure value that the caller in lib/native.ts throws.
template <class Body>
napi_value guarded(napi_env env, const Body& body) noexcept {
  try {
    return body();
  } catch (const Error& e) {
    return makeFailure(env, e.code(), e.what(), 0);
  } catch (const std::bad_alloc&) {
    return makeFailure(env, ErrorCode::kOutOfMemory, "the system refused it|0|0|0|0|", 0);
  } catch (const std::exception& e) {
    return makeFailure(env, ErrorCode::kNative, e.what(), 0);
  } catch (...) {
    return makeFailure(env, ErrorCode::kNative, "an unknown exception", 0);
  }
}

// Scratch numbers come from JavaScript and are not trusted.
int64_t readSize(double value, const char* what);
DType readDType(double value);
Device& readDevice(double value);
Device& deviceArgument(napi_env env, napi_value value);
void setLayout(TensorView& view, DType dtype, int rank, const double* sizes);  // contiguous

Tensor* newTensor(Device& device);                     // with a storage that its first operation fills
void releaseAll(const std::vector<Tensor*>& tensors);  // on the streams of their devices

// dispatch.cc
napi_value dispatch(napi_env env, napi_callback_info info);
napi_value view(napi_env env, napi_callback_info info);
napi_value release(napi_env env, napi_callback_info info);
// transfer.cc
napi_value upload(napi_env env, napi_callback_info info);
napi_value transfer(napi_env env, napi_callback_info info);
napi_value read(napi_env env, napi_callback_info info);
napi_value readSync(napi_env env, napi_callback_info info);
napi_value synchronize(napi_env env, napi_callback_info info);
napi_value passed(napi_env env, napi_callback_info info);
napi_value synchronizeSync(napi_env env, napi_callback_info info);
void settlePending(napi_env env, napi_value, void* context, void* data);
void abandonPending(Environment* environment);
// cuda.cc
napi_value markRecord(napi_env env, napi_callback_info info);
napi_value markReached(napi_env env, napi_callback_info info);
napi_value markPassed(napi_env env, napi_callback_info info);
napi_value markElapsed(napi_env env, napi_callback_info info);
napi_value graphBegin(napi_env env, napi_callback_info info);
napi_value graphEnd(napi_env env, napi_callback_info info);
napi_value graphReplay(napi_env env, napi_callback_info info);
napi_value graphReset(napi_env env, napi_callback_info info);
napi_value nvtx(napi_env env, napi_callback_info info);
// collective.cc
napi_value collective(napi_env env, napi_callback_info info);
napi_value ncclVersion(napi_env env, napi_callback_info info);
// info.cc
napi_value opTable(napi_env env, napi_callback_info info);
napi_value memoryStats(napi_env env, napi_callback_info info);
napi_value memoryControl(napi_env env, napi_callback_info info);
napi_value memoryNote(napi_env env, napi_callback_info info);
napi_value memoryEvents(napi_env env, napi_callback_info info);
napi_value threads(napi_env env, napi_callback_info info);
napi_value cudaMemory(napi_env env, napi_callback_info info);
napi_value describeCuda(napi_env env, napi_callback_info info);
napi_value describeBlas(napi_env env, napi_callback_info info);
napi_value describeNccl(napi_env env, napi_callback_info info);
napi_value cudaImages(napi_env env, napi_callback_info info);
napi_value openDevice(napi_env env, napi_callback_info info);
napi_value describe(napi_env env, napi_callback_info info);

}  // namespace gradus::binding
