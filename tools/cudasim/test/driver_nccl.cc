// NCCL: collectives of several virtual cards in one process, and ranks that disagree.
#include <numeric>
#include <thread>

#include "../nccl/types.h"
#include "driver_library.h"

namespace cudasim::test {

using namespace nccl;

namespace {

struct Nccl {
#define NCCL_API(result, symbol, parameters) result(*symbol) parameters = nullptr;
#include "../nccl/api.def"
#undef NCCL_API
  int ranks;
  std::vector<ncclComm_t> comms;
  std::vector<CUstream> streams;
  Cuda& cu;

  Nccl(Cuda& cu, int ranks, bool start = true) : ranks(ranks), comms(ranks), streams(ranks), cu(cu) {
    void* library = loadBeside(cu, "libnccl.so.2");
#define NCCL_API(result, symbol, parameters) symbol = reinterpret_cast<result(*) parameters>(dlsym(library, #symbol));
#include "../nccl/api.def"
#undef NCCL_API
    for (int rank = 0; rank < ranks; ++rank) {
      cu.use(rank);
      streams[rank] = cu.stream();
    }
    if (start) EXPECT_OK(ncclCommInitAll(comms.data(), ranks, nullptr));
  }
  // A buffer a rank, with values that tell rank and place apart.
  std::vector<CUdeviceptr> buffers(size_t count, float scale = 1) {
    std::vector<CUdeviceptr> made;
    for (int rank = 0; rank < ranks; ++rank) {
      cu.use(rank);
      std::vector<float> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = scale * static_cast<float>(rank * 100 + static_cast<int>(i));
      made.push_back(upload(cu, values));
    }
    return made;
  }
  template <class Body>
  void each(Body body) {
    EXPECT_OK(ncclGroupStart());
    for (int rank = 0; rank < ranks; ++rank) {
      cu.use(rank);
      EXPECT_OK(body(rank));
    }
    EXPECT_OK(ncclGroupEnd());
  }
  std::vector<float> read(int rank, CUdeviceptr address, size_t count) {
    cu.use(rank);
    EXPECT_OK(cu.cuStreamSynchronize(streams[rank]));
    return download<float>(cu, address, count);
  }
};

}  // namespace

DRIVER_TEST("nccl: all-reduce in every operation, in place", "CUDASIM_DEVICES=3") {
  Nccl nccl(cu, 3);
  int count = 0, rank = 0, device = 0;
  EXPECT_OK(nccl.ncclCommCount(nccl.comms[2], &count));
  EXPECT_OK(nccl.ncclCommUserRank(nccl.comms[2], &rank));
  EXPECT_OK(nccl.ncclCommCuDevice(nccl.comms[2], &device));
  EXPECT_EQ(count * 100 + rank * 10 + device, 322);
  const float want[] = {300 + 3 * 5, 5.0f * 105 * 205, 205, 5, 105};
  for (const ncclRedOp_t op : {ncclSum, ncclProd, ncclMax, ncclMin, ncclAvg}) {
    const auto buffers = nccl.buffers(8);
    nccl.each([&](int r) {
      return nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 8, ncclFloat32, op, nccl.comms[r],
                                nccl.streams[r]);
    });
    for (int r = 0; r < 3; ++r) EXPECT_EQ(nccl.read(r, buffers[r], 8)[5], want[op]);
  }
  EXPECT_CLEAN();
}

DRIVER_TEST("nccl: reduce-scatter, all-gather, broadcast, reduce", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto in = nccl.buffers(8), out = nccl.buffers(8, 0);
  nccl.each([&](int r) {
    return nccl.ncclReduceScatter(pointer(in[r]), pointer(out[r]), 4, ncclFloat32, ncclSum, nccl.comms[r],
                                  nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 4)[1], 102.0f);
  EXPECT_EQ(nccl.read(1, out[1], 4)[1], 110.0f);
  nccl.each([&](int r) {
    return nccl.ncclAllGather(pointer(in[r]), pointer(out[r]), 4, ncclFloat32, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 8)[6], 102.0f);
  EXPECT_EQ(nccl.read(1, out[1], 8)[2], 2.0f);
  nccl.each([&](int r) {
    return nccl.ncclBroadcast(pointer(in[r]), pointer(out[r]), 8, ncclFloat32, 1, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 8)[7], 107.0f);
  nccl.each([&](int r) {
    return nccl.ncclReduce(pointer(in[r]), pointer(out[r]), 8, ncclFloat32, ncclSum, 0, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 8)[3], 106.0f);
  EXPECT_EQ(nccl.read(1, out[1], 8)[3], 103.0f);  // as the broadcast left it
}

DRIVER_TEST("nccl: all-to-all, gather, scatter, and messages both ways in a group", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto in = nccl.buffers(4), out = nccl.buffers(4, 0);
  nccl.each([&](int r) {
    return nccl.ncclAlltoAll(pointer(in[r]), pointer(out[r]), 2, ncclFloat32, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 4)[3], 101.0f);
  EXPECT_EQ(nccl.read(1, out[1], 4)[0], 2.0f);
  nccl.each([&](int r) {
    return nccl.ncclGather(pointer(in[r]), pointer(out[r]), 2, ncclFloat32, 0, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 4)[2], 100.0f);
  nccl.each([&](int r) {
    return nccl.ncclScatter(pointer(in[r]), pointer(out[r]), 2, ncclFloat32, 1, nccl.comms[r], nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, out[0], 2)[0], 100.0f);
  EXPECT_EQ(nccl.read(1, out[1], 2)[0], 102.0f);
  EXPECT_OK(nccl.ncclGroupStart());
  for (int r = 0; r < 2; ++r) {
    cu.use(r);
    EXPECT_OK(nccl.ncclSend(pointer(in[r]), 4, ncclFloat32, 1 - r, nccl.comms[r], nccl.streams[r]));
    EXPECT_OK(nccl.ncclRecv(pointer(out[r]), 4, ncclFloat32, 1 - r, nccl.comms[r], nccl.streams[r]));
  }
  EXPECT_OK(nccl.ncclGroupEnd());
  EXPECT_EQ(nccl.read(0, out[0], 4)[1], 101.0f);
  EXPECT_EQ(nccl.read(1, out[1], 4)[1], 1.0f);
  EXPECT_CLEAN();
}

DRIVER_TEST("nccl: a thread a rank, with the id handed round", "CUDASIM_DEVICES=2 CUDASIM_SEED=4") {
  Nccl nccl(cu, 2, false);
  ncclUniqueId id;
  EXPECT_OK(nccl.ncclGetUniqueId(&id));
  const auto buffers = nccl.buffers(16);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      cu.use(r);
      EXPECT_OK(nccl.ncclCommInitRank(&nccl.comms[r], 2, id, r));
      for (int i = 0; i < 20; ++i)
        EXPECT_OK(nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 16, ncclFloat32, ncclAvg, nccl.comms[r],
                                     nccl.streams[r]));
      EXPECT_OK(cu.cuStreamSynchronize(nccl.streams[r]));
      EXPECT_OK(nccl.ncclCommDestroy(nccl.comms[r]));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(nccl.read(1, buffers[1], 16)[3], 53.0f);
  EXPECT_CLEAN();
}

DRIVER_TEST("nccl: ranks that disagree are an error, not a hang", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto buffers = nccl.buffers(16);
  cu.use(0);
  EXPECT_OK(nccl.ncclAllReduce(pointer(buffers[0]), pointer(buffers[0]), 16, ncclFloat32, ncclSum, nccl.comms[0],
                               nccl.streams[0]));
  cu.use(1);
  EXPECT_STATUS(nccl.ncclAllReduce(pointer(buffers[1]), pointer(buffers[1]), 15, ncclFloat32, ncclSum, nccl.comms[1],
                                   nccl.streams[1]),
                ncclInvalidUsage);
  EXPECT_FOUND("rank 1 calls allReduce of 15 float32, sum, the rank before it called allReduce of 16 float32, sum");
  ncclResult_t error = ncclSuccess;
  EXPECT_OK(nccl.ncclCommGetAsyncError(nccl.comms[0], &error));
  EXPECT_STATUS(error, ncclRemoteError);
  cu.use(0);
  EXPECT_STATUS(cu.cuStreamSynchronize(nccl.streams[0]), CUDA_ERROR_LAUNCH_FAILED);
}

DRIVER_TEST("nccl: type, operation, root and order must agree, too", "CUDASIM_DEVICES=2") {
  const auto disagree = [&](auto first, auto second) {
    Nccl nccl(cu, 2);
    const auto buffers = nccl.buffers(16);
    cu.use(0);
    EXPECT_OK(first(nccl, pointer(buffers[0]), 0));
    cu.use(1);
    EXPECT_STATUS(second(nccl, pointer(buffers[1]), 1), ncclInvalidUsage);
    for (int device = 0; device < 2; ++device) EXPECT_OK(cu.cuDevicePrimaryCtxReset_v2(device));
  };
  const auto sum = [](Nccl& n, void* b, int r) {
    return n.ncclAllReduce(b, b, 8, ncclFloat32, ncclSum, n.comms[r], n.streams[r]);
  };
  disagree(sum, [](Nccl& n, void* b, int r) {
    return n.ncclAllReduce(b, b, 8, ncclInt32, ncclSum, n.comms[r], n.streams[r]);
  });
  disagree(sum, [](Nccl& n, void* b, int r) {
    return n.ncclAllReduce(b, b, 8, ncclFloat32, ncclMax, n.comms[r], n.streams[r]);
  });
  disagree(sum,
           [](Nccl& n, void* b, int r) { return n.ncclBroadcast(b, b, 8, ncclFloat32, 0, n.comms[r], n.streams[r]); });
  disagree([](Nccl& n, void* b, int r) { return n.ncclBroadcast(b, b, 8, ncclFloat32, 0, n.comms[r], n.streams[r]); },
           [](Nccl& n, void* b, int r) { return n.ncclBroadcast(b, b, 8, ncclFloat32, 1, n.comms[r], n.streams[r]); });
}

DRIVER_TEST("nccl: a rank that never comes is found by those who wait",
            "CUDASIM_DEVICES=2 CUDASIM_STUCK_COLLECTIVE=1") {
  Nccl nccl(cu, 2);
  const auto buffers = nccl.buffers(16);
  cu.use(0);
  EXPECT_OK(nccl.ncclAllReduce(pointer(buffers[0]), pointer(buffers[0]), 16, ncclFloat32, ncclSum, nccl.comms[0],
                               nccl.streams[0]));
  EXPECT_STATUS(cu.cuStreamSynchronize(nccl.streams[0]), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("rank 1 did not come to allReduce of 16 float32, sum that rank 0 called");
  ncclUniqueId id;
  ncclComm_t comm;
  cu.use(1);
  EXPECT_OK(nccl.ncclGetUniqueId(&id));
  EXPECT_STATUS(nccl.ncclCommInitRank(&comm, 2, id, 1), ncclSystemError);
  EXPECT_FOUND("ncclCommInitRank: rank 0 of 2 did not come");
}

DRIVER_TEST("nccl: an abort lets streams go on, and tells the others", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto buffers = nccl.buffers(16);
  cu.use(0);
  EXPECT_OK(nccl.ncclAllReduce(pointer(buffers[0]), pointer(buffers[0]), 16, ncclFloat32, ncclSum, nccl.comms[0],
                               nccl.streams[0]));
  EXPECT_OK(nccl.ncclCommAbort(nccl.comms[1]));
  ncclResult_t error = ncclSuccess;
  EXPECT_OK(nccl.ncclCommGetAsyncError(nccl.comms[0], &error));
  EXPECT_STATUS(error, ncclRemoteError);
  EXPECT_OK(cu.cuStreamSynchronize(nccl.streams[0]));
  EXPECT_STATUS(nccl.ncclCommAbort(nccl.comms[1]), ncclInvalidArgument);
  EXPECT_OK(nccl.ncclCommAbort(nccl.comms[0]));
}

DRIVER_TEST("nccl: a call can be refused, or break what it belongs to", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto buffers = nccl.buffers(16);
  const auto sum = [&] {
    EXPECT_OK(nccl.ncclGroupStart());
    for (int r = 0; r < 2; ++r) {
      cu.use(r);
      EXPECT_OK(nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 16, ncclFloat32, ncclSum, nccl.comms[r],
                                   nccl.streams[r]));
    }
    return nccl.ncclGroupEnd();
  };
  EXPECT_EQ(cu.control("failCollective=2"), 0);
  EXPECT_STATUS(sum(), ncclSystemError);
  EXPECT_EQ(std::string(nccl.ncclGetLastError(nccl.comms[0])), "setting failCollective");
  EXPECT_EQ(nccl.read(0, buffers[0], 16)[3], 3.0f);  // nothing was done, and nothing hangs
  for (int r = 0; r < 2; ++r) EXPECT_OK(nccl.ncclCommAbort(nccl.comms[r]));
  EXPECT_OK(nccl.ncclCommInitAll(nccl.comms.data(), 2, nullptr));
  EXPECT_EQ(cu.control("breakCollective=1"), 0);
  EXPECT_OK(sum());
  EXPECT_EQ(nccl.read(1, buffers[1], 16)[3], 106.0f);
  for (int r = 0; r < 2; ++r) {
    ncclResult_t error = ncclSuccess;
    EXPECT_OK(nccl.ncclCommGetAsyncError(nccl.comms[r], &error));
    EXPECT_STATUS(error, ncclRemoteError);
  }
  EXPECT_CLEAN();
}

DRIVER_TEST("nccl: unwritten buffers and streams of another device are found", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  std::vector<CUdeviceptr> buffers(2);
  for (int r = 0; r < 2; ++r) {
    cu.use(r);
    buffers[r] = cu.device(64);
  }
  EXPECT_STATUS(nccl.ncclAllReduce(pointer(buffers[1]), pointer(buffers[1]), 16, ncclFloat32, ncclSum, nccl.comms[1],
                                   nccl.streams[0]),
                ncclInvalidUsage);
  EXPECT_FOUND("is not one of device 1");
  nccl.each([&](int r) {
    return nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 16, ncclFloat32, ncclSum, nccl.comms[r],
                              nccl.streams[r]);
  });
  cu.use(0);
  EXPECT_STATUS(cu.cuStreamSynchronize(nccl.streams[0]), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("nobody has written");
}

DRIVER_TEST("nccl: a collective is ordered like any work of its streams", "CUDASIM_DEVICES=2") {
  Nccl nccl(cu, 2);
  const auto buffers = nccl.buffers(16);
  cu.use(1);
  EXPECT_OK(cu.cuCtxSynchronize());
  EXPECT_OK(cu.cuMemsetD32Async(buffers[1], 0x41200000, 16, nccl.streams[1]));  // 10.0f, before it in the stream
  nccl.each([&](int r) {
    return nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 16, ncclFloat32, ncclSum, nccl.comms[r],
                              nccl.streams[r]);
  });
  EXPECT_EQ(nccl.read(0, buffers[0], 16)[2], 12.0f);
  EXPECT_CLEAN();
  nccl.each([&](int r) {
    return nccl.ncclAllReduce(pointer(buffers[r]), pointer(buffers[r]), 16, ncclFloat32, ncclSum, nccl.comms[r],
                              nccl.streams[r]);
  });
  cu.use(1);
  EXPECT_OK(cu.cuMemsetD32Async(buffers[1], 0, 16, cu.stream()));
  EXPECT_STATUS(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_FOUND("race between streams");
}

}  // namespace cudasim::test
