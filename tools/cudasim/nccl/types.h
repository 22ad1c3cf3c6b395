// The part of NCCL's binary interface that the simulator offers, in our own declarations; abi_check.cc compares them
// with NVIDIA's header where that is given.
#pragma once

#include <cstddef>

#include "../driver/types.h"

namespace cudasim::nccl {

using cudaStream_t = abi::CUstream;

enum ncclResult_t : int {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
enum ncclRedOp_t : int { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3, ncclAvg = 4, ncclNumOps = 5 };
enum ncclDataType_t : int {
  ncclInt8 = 0,
  ncclUint8 = 1,
  ncclInt32 = 2,
  ncclUint32 = 3,
  ncclInt64 = 4,
  ncclUint64 = 5,
  ncclFloat16 = 6,
  ncclFloat32 = 7,
  ncclFloat64 = 8,
  ncclBfloat16 = 9,
};

struct ncclUniqueId {
  char internal[128];
};
using ncclComm_t = struct ncclComm*;

}  // namespace cudasim::nccl
