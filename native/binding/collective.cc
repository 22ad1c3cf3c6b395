// Operations of several CUDA devices at once, in the scratch buffer:
//
//   collective  in   kind, operation, root, context, ranks, then for each of them the handles of what it gives and of
//                    what it takes, or 0
#include "../cuda/collective.h"

#include "environment.h"

namespace gradus::binding {
namespace {

int codeIn(double value, int limit, const char* what) {
  GRADUS_CHECK(value >= 0 && value < limit, ErrorCode::kNative, "collective: %s: got %g, expected 0 to %d", what, value,
               limit - 1);
  return static_cast<int>(value);
}

}  // namespace

napi_value collective(napi_env env, napi_callback_info info) {
  Environment* environment = environmentOf(env, info);
  return guarded(env, [&]() -> napi_value {
    const double* scratch = environment->scratch;
    cuda::CollectiveCall call;
    call.kind = static_cast<cuda::CollectiveKind>(codeIn(scratch[0], cuda::kCollectiveKinds, "kind"));
    call.op = static_cast<cuda::CollectiveOp>(codeIn(scratch[1], cuda::kCollectiveOps, "operation"));
    call.root = codeIn(scratch[2], kMostDevices, "root");
    const auto context = static_cast<uint32_t>(codeIn(scratch[3], INT32_MAX, "context"));
    const int ranks = codeIn(scratch[4], kMostDevices + 1, "ranks");
    std::vector<Meeting::Member> members(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      const double *in = scratch + 5 + 2 * rank, *out = in + 1;
      if (*in != 0) members[rank].in = environment->find(*in, nameOf(call.kind));
      if (*out != 0) members[rank].out = environment->find(*out, nameOf(call.kind));
    }
    queueMeeting(makeCollective(&environment->account, context, call, std::move(members)));
    return nullptr;
  });
}

// ncclVersion(): 10000 * major + 100 * minor + patch; fails where there is no library.
napi_value ncclVersion(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    napi_value result = nullptr;
    napi_create_int32(env, cuda::nccl().version, &result);
    return result;
  });
}

}  // namespace gradus::binding
