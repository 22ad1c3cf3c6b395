// Compares our declarations with NVIDIA's nccl.h (NCCL_INCLUDE); built only where that is given.
#include <nccl.h>

#include <cstddef>

#include "types.h"

namespace {

// The list names its types as NVIDIA does, so here they mean NVIDIA's: each symbol must have exactly this signature.
#define NCCL_API(result, symbol, parameters) \
  using symbol##_type = result parameters;   \
  static_assert(                             \
      requires { static_cast<symbol##_type*>(&::symbol); }, #symbol);
#include "api.def"
#undef NCCL_API

#define VALUE(name) static_assert(static_cast<int>(::name) == static_cast<int>(cudasim::nccl::name), #name)
VALUE(ncclSuccess);
VALUE(ncclUnhandledCudaError);
VALUE(ncclSystemError);
VALUE(ncclInternalError);
VALUE(ncclInvalidArgument);
VALUE(ncclInvalidUsage);
VALUE(ncclRemoteError);
VALUE(ncclInProgress);
VALUE(ncclSum);
VALUE(ncclProd);
VALUE(ncclMax);
VALUE(ncclMin);
VALUE(ncclAvg);
VALUE(ncclNumOps);
VALUE(ncclInt8);
VALUE(ncclUint8);
VALUE(ncclInt32);
VALUE(ncclUint32);
VALUE(ncclInt64);
VALUE(ncclUint64);
VALUE(ncclFloat16);
VALUE(ncclFloat32);
VALUE(ncclFloat64);
VALUE(ncclBfloat16);
static_assert(sizeof(::ncclUniqueId) == sizeof(cudasim::nccl::ncclUniqueId));
static_assert(NCCL_VERSION_CODE == 23007, "the version that this was written against");

}  // namespace
