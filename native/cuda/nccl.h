// Our own declarations of NCCL: what gradus uses of it, looked up at run time. The library is optional; what needs it
// (collective.cc) throws where it is missing. `npm run check:cuda` compares the declarations with NVIDIA's header where
// that is given (check/nccl_abi.cc).
#pragma once

#include "driver.h"

namespace gradus::cuda {

using NcclResult = int;
struct NcclCommunicator;  // one rank of a group of devices; opaque to us

constexpr NcclResult kNcclSuccess = 0, kNcclCudaError = 1, kNcclSystemError = 2;
constexpr NcclResult kNcclRemoteError = 6, kNcclInProgress = 7;
constexpr int kNcclUint8 = 1, kNcclInt32 = 2, kNcclUint32 = 3, kNcclInt64 = 4;  // types of elements
constexpr int kNcclFloat16 = 6, kNcclFloat32 = 7, kNcclFloat64 = 8, kNcclBFloat16 = 9;
constexpr int kNcclSum = 0, kNcclProd = 1, kNcclMax = 2, kNcclMin = 3, kNcclAvg = 4;  // operations

// X(name here, symbol, result, parameters)
#define GRADUS_NCCL_FUNCTIONS(X)                                                                                  \
  X(getVersion, ncclGetVersion, NcclResult, (int* version))                                                       \
  X(getErrorString, ncclGetErrorString, const char*, (NcclResult result))                                         \
  X(getLastError, ncclGetLastError, const char*, (NcclCommunicator * communicator))                               \
  X(initAll, ncclCommInitAll, NcclResult, (NcclCommunicator * *communicators, int count, const int* devices))     \
  X(abort, ncclCommAbort, NcclResult, (NcclCommunicator * communicator))                                          \
  X(getAsyncError, ncclCommGetAsyncError, NcclResult, (NcclCommunicator * communicator, NcclResult * error))      \
  X(groupStart, ncclGroupStart, NcclResult, ())                                                                   \
  X(groupEnd, ncclGroupEnd, NcclResult, ())                                                                       \
  X(allReduce, ncclAllReduce, NcclResult,                                                                         \
    (const void* send, void* receive, size_t count, int type, int op, NcclCommunicator* communicator,             \
     CudaStream stream))                                                                                          \
  X(reduce, ncclReduce, NcclResult,                                                                               \
    (const void* send, void* receive, size_t count, int type, int op, int root, NcclCommunicator* communicator,   \
     CudaStream stream))                                                                                          \
  X(broadcast, ncclBroadcast, NcclResult,                                                                         \
    (const void* send, void* receive, size_t count, int type, int root, NcclCommunicator* communicator,           \
     CudaStream stream))                                                                                          \
  X(allGather, ncclAllGather, NcclResult,                                                                         \
    (const void* send, void* receive, size_t count, int type, NcclCommunicator* communicator, CudaStream stream)) \
  X(reduceScatter, ncclReduceScatter, NcclResult,                                                                 \
    (const void* send, void* receive, size_t count, int type, int op, NcclCommunicator* communicator,             \
     CudaStream stream))

struct Nccl {
#define GRADUS_NCCL_MEMBER(name, symbol, result, parameters) result(*name) parameters = nullptr;
  GRADUS_NCCL_FUNCTIONS(GRADUS_NCCL_MEMBER)
#undef GRADUS_NCCL_MEMBER
  int version = 0;  // 10000 * major + 100 * minor + patch
};

// The library, loaded once a process: libnccl.so.2, or the file that GRADUS_NCCL names. Throws Error(kDevice), each
// time with the reason and what to do about it, where there is none, one that is too old, or GRADUS_NCCL=0.
const Nccl& nccl();
// What `gradus doctor` says of it; never throws.
std::string describeNccl();

// `communicator`: whose error it may be; null: none's.
[[noreturn]] void failNccl(NcclResult result, const char* call, NcclCommunicator* communicator = nullptr);
inline void checkNccl(NcclResult result, const char* call, NcclCommunicator* communicator = nullptr) {
  if (__builtin_expect(result != kNcclSuccess, 0)) failNccl(result, call, communicator);
}

}  // namespace gradus::cuda
