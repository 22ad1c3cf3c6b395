#include "status.h"

#include "api.h"

namespace cudasim::driver {

using namespace abi;

CUresult statusOf(Fault fault) {
  switch (fault) {
    case Fault::kBadPtx:
      return CUDA_ERROR_INVALID_PTX;
    case Fault::kUnknownOpcode:
      return CUDA_ERROR_INVALID_PTX;
    case Fault::kOutOfBounds:
    case Fault::kUseAfterFree:
    case Fault::kReadOnly:
    case Fault::kHostDereference:
    case Fault::kPeerAccess:
      return CUDA_ERROR_ILLEGAL_ADDRESS;
    case Fault::kMisaligned:
      return CUDA_ERROR_MISALIGNED_ADDRESS;
    case Fault::kWatchdog:
      return CUDA_ERROR_LAUNCH_TIMEOUT;
    case Fault::kLaunchBounds:
    case Fault::kSharedLimit:
    case Fault::kGridLimit:
    case Fault::kBadLaunch:
      return CUDA_ERROR_INVALID_VALUE;
    default:
      return CUDA_ERROR_LAUNCH_FAILED;
  }
}

const char* nameOf(CUresult code) {
  switch (code) {
#define CUDASIM_RESULT(name, value, text) \
  case name:                              \
    return #name;
#include "results.def"
#undef CUDASIM_RESULT
  }
  return nullptr;
}

const char* textOf(CUresult code) {
  switch (code) {
#define CUDASIM_RESULT(name, value, text) \
  case name:                              \
    return text;
#include "results.def"
#undef CUDASIM_RESULT
  }
  return nullptr;
}

}  // namespace cudasim::driver

namespace cudasim::abi {

extern "C" CUresult cuGetErrorName(CUresult error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  *text = driver::nameOf(error);
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

extern "C" CUresult cuGetErrorString(CUresult error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  *text = driver::textOf(error);
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace cudasim::abi
