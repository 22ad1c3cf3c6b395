// The arithmetic and the moves of collectives. Sums are taken in order of rank, 16-bit floats in single precision with
// one rounding at the end: one of the results that the real library may give, and always the same one.
#include <algorithm>
#include <cstring>

#include "../driver/number.h"
#include "communicator.h"

namespace cudasim::nccl {

using driver::Task;

namespace {

template <class T>
T combine(T a, T b, ncclRedOp_t op) {
  switch (op) {
    case ncclProd:
      return a * b;
    case ncclMax:
      return std::max(a, b);
    case ncclMin:
      return std::min(a, b);
    default:
      return a + b;
  }
}

template <class T>
void reduce(std::byte* sum, const std::byte* next, size_t count, ncclRedOp_t op) {
  for (size_t i = 0; i < count; ++i) {
    T a, b;
    std::memcpy(&a, sum + i * sizeof(T), sizeof(T));
    std::memcpy(&b, next + i * sizeof(T), sizeof(T));
    a = combine(a, b, op);
    std::memcpy(sum + i * sizeof(T), &a, sizeof(T));
  }
}

template <class T>
void divide(std::byte* values, size_t count, int by) {
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, values + i * sizeof(T), sizeof(T));
    value = static_cast<T>(value / static_cast<T>(by));
    std::memcpy(values + i * sizeof(T), &value, sizeof(T));
  }
}

template <class Function>
void visit(ncclDataType_t type, Function function) {
  switch (type) {
    case ncclInt8:
      return function(int8_t{});
    case ncclUint8:
      return function(uint8_t{});
    case ncclInt32:
      return function(int32_t{});
    case ncclUint32:
      return function(uint32_t{});
    case ncclInt64:
      return function(int64_t{});
    case ncclUint64:
      return function(uint64_t{});
    case ncclFloat64:
      return function(double{});
    default:
      return function(float{});  // 16-bit floats have been widened
  }
}

bool isHalf(ncclDataType_t type) { return type == ncclFloat16 || type == ncclBfloat16; }

using Bytes = std::vector<std::byte>;

Bytes read(Task& task, uint64_t address, size_t bytes) {
  Bytes data(bytes);
  task.read(address, data.data(), bytes);
  return data;
}

Bytes widen(const Bytes& data, ncclDataType_t type) {
  Bytes wide(data.size() * 2);
  for (size_t i = 0; i < data.size() / 2; ++i) {
    uint16_t bits;
    std::memcpy(&bits, &data[i * 2], 2);
    const float value = type == ncclFloat16 ? driver::fromFloat16(bits) : driver::fromBfloat16(bits);
    std::memcpy(&wide[i * 4], &value, 4);
  }
  return wide;
}

Bytes narrow(const Bytes& data, ncclDataType_t type) {
  Bytes small(data.size() / 2);
  for (size_t i = 0; i < data.size() / 4; ++i) {
    float value;
    std::memcpy(&value, &data[i * 4], 4);
    const uint16_t bits = type == ncclFloat16 ? driver::toFloat16(value) : driver::toBfloat16(value);
    std::memcpy(&small[i * 2], &bits, 2);
  }
  return small;
}

// The whole of every rank's buffer is read before anything is written: the operations work in place.
Bytes reduced(const Collective& c, std::vector<Task>& tasks, size_t count) {
  const Call& call = c.calls[0];
  const size_t bytes = count * bytesOf(call.type);
  Bytes sum;
  for (size_t rank = 0; rank < c.calls.size(); ++rank) {
    Bytes next = read(tasks[rank], c.calls[rank].send, bytes);
    if (isHalf(call.type)) next = widen(next, call.type);
    if (rank == 0)
      sum = std::move(next);
    else
      visit(call.type, [&](auto t) { reduce<decltype(t)>(sum.data(), next.data(), count, call.op); });
  }
  if (call.op == ncclAvg)
    visit(call.type, [&](auto t) { divide<decltype(t)>(sum.data(), count, static_cast<int>(c.calls.size())); });
  return isHalf(call.type) ? narrow(sum, call.type) : sum;
}

}  // namespace

void carryOut(const Collective& c, std::vector<Task>& tasks) {
  const Call& first = c.calls[0];
  const size_t ranks = c.calls.size(), bytes = first.count * bytesOf(first.type);
  const auto each = [&](auto body) {
    for (size_t rank = 0; rank < ranks; ++rank) body(rank, c.calls[rank], tasks[rank]);
  };
  const auto inputs = [&](size_t size) {
    std::vector<Bytes> all;
    each([&](size_t, const Call& call, Task& task) { all.push_back(read(task, call.send, size)); });
    return all;
  };
  const size_t root = first.root < 0 ? 0 : first.root;
  switch (first.kind) {
    case Kind::kAllReduce: {
      const Bytes sum = reduced(c, tasks, first.count);
      each([&](size_t, const Call& call, Task& task) { task.write(call.receive, sum.data(), bytes); });
      return;
    }
    case Kind::kReduce: {
      const Bytes sum = reduced(c, tasks, first.count);
      tasks[root].write(c.calls[root].receive, sum.data(), bytes);
      return;
    }
    case Kind::kReduceScatter: {
      const Bytes sum = reduced(c, tasks, first.count * ranks);
      each([&](size_t rank, const Call& call, Task& task) {
        task.write(call.receive, sum.data() + rank * bytes, bytes);
      });
      return;
    }
    case Kind::kBroadcast: {
      const Bytes data = read(tasks[root], c.calls[root].send, bytes);
      each([&](size_t, const Call& call, Task& task) { task.write(call.receive, data.data(), bytes); });
      return;
    }
    case Kind::kAllGather: {
      const std::vector<Bytes> all = inputs(bytes);
      each([&](size_t, const Call& call, Task& task) {
        for (size_t from = 0; from < ranks; ++from) task.write(call.receive + from * bytes, all[from].data(), bytes);
      });
      return;
    }
    case Kind::kGather: {
      const std::vector<Bytes> all = inputs(bytes);
      for (size_t from = 0; from < ranks; ++from)
        tasks[root].write(c.calls[root].receive + from * bytes, all[from].data(), bytes);
      return;
    }
    case Kind::kScatter: {
      const Bytes data = read(tasks[root], c.calls[root].send, bytes * ranks);
      each([&](size_t rank, const Call& call, Task& task) {
        task.write(call.receive, data.data() + rank * bytes, bytes);
      });
      return;
    }
    case Kind::kAllToAll: {
      const std::vector<Bytes> all = inputs(bytes * ranks);
      each([&](size_t rank, const Call& call, Task& task) {
        for (size_t from = 0; from < ranks; ++from)
          task.write(call.receive + from * bytes, all[from].data() + rank * bytes, bytes);
      });
      return;
    }
    case Kind::kSendReceive: {  // the sender is member 0
      const Bytes data = read(tasks[0], first.send, bytes);
      tasks[1].write(c.calls[1].receive, data.data(), bytes);
      return;
    }
  }
}

size_t bytesOf(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
    default:
      return 4;
  }
}

const char* nameOf(ncclDataType_t type) {
  constexpr const char* kNames[] = {"int8",   "uint8",   "int32",   "uint32",  "int64",
                                    "uint64", "float16", "float32", "float64", "bfloat16"};
  return kNames[type];
}

}  // namespace cudasim::nccl
