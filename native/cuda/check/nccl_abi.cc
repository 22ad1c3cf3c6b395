// Compares our declarations of NCCL with NVIDIA's header, where that is given:
//   cmake -DNCCL_INCLUDE=.../nvidia/nccl/include build && npm run check:cuda
#include <nccl.h>

#include "../nccl.h"
#include "plain.h"

namespace gradus::cuda {

// What is opaque to us has a name of ours.
template <>
struct PlainOf<ncclComm> {
  using Type = NcclCommunicator;
};

namespace {

#define GRADUS_COMPARE(name, symbol, result, parameters) \
  static_assert(std::is_same_v<Plain<decltype(::symbol)>*, decltype(Nccl::name)>, #symbol " differs");
GRADUS_NCCL_FUNCTIONS(GRADUS_COMPARE)

static_assert(kNcclSuccess == ncclSuccess && kNcclCudaError == ncclUnhandledCudaError &&
              kNcclSystemError == ncclSystemError && kNcclRemoteError == ncclRemoteError &&
              kNcclInProgress == ncclInProgress);
static_assert(kNcclUint8 == ncclUint8 && kNcclInt32 == ncclInt32 && kNcclUint32 == ncclUint32 &&
              kNcclInt64 == ncclInt64 && kNcclFloat16 == ncclFloat16 && kNcclFloat32 == ncclFloat32 &&
              kNcclFloat64 == ncclFloat64 && kNcclBFloat16 == ncclBfloat16);
static_assert(kNcclSum == ncclSum && kNcclProd == ncclProd && kNcclMax == ncclMax && kNcclMin == ncclMin &&
              kNcclAvg == ncclAvg);
static_assert(NCCL_VERSION(2, 13, 0) == 21300, "how versions are counted");

}  // namespace
}  // namespace gradus::cuda
