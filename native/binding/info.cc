// What the addon says about itself, and its settings.
#include <algorithm>
#include <cmath>

#include "../cuda/device.h"
#include "environment.h"

namespace gradus::binding {

namespace {

napi_value text(napi_env env, const char* value) {
  napi_value result = nullptr;
  napi_create_string_utf8(env, value, NAPI_AUTO_LENGTH, &result);
  return result;
}

napi_value number(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

}  // namespace

Device& deviceArgument(napi_env env, napi_value value) {
  double code = -1;
  napi_get_value_double(env, value, &code);
  return readDevice(code);
}

// [{ name, attributes, fewestInputs, mostInputs, outputs }, ...] in the order of ids.
napi_value opTable(napi_env env, napi_callback_info) {
  napi_value table = nullptr;
  napi_create_array_with_length(env, kNumOps, &table);
  for (int id = 0; id < kNumOps; ++id) {
    const OpInfo& op = opInfo(id);
    napi_value row = nullptr;
    napi_create_object(env, &row);
    napi_set_named_property(env, row, "name", text(env, op.name));
    napi_set_named_property(env, row, "attributes", text(env, op.attributes));
    napi_set_named_property(env, row, "fewestInputs", number(env, op.fewestInputs));
    napi_set_named_property(env, row, "mostInputs", number(env, op.mostInputs));
    napi_set_named_property(env, row, "outputs", number(env, op.outputs));
    napi_set_element(env, table, id, row);
  }
  return table;
}

// memoryStats(device): writes allocated, reserved, maxAllocated, limit, allocations and this environment's live
// tensors, of all devices, to the scratch buffer.
napi_value memoryStats(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    const MemoryStats stats = deviceArgument(env, args[0]).stats();
    const double values[] = {static_cast<double>(stats.allocated),    static_cast<double>(stats.reserved),
                             static_cast<double>(stats.maxAllocated), static_cast<double>(stats.limit),
                             static_cast<double>(stats.allocations),  static_cast<double>(environment->handles.live())};
    std::copy(std::begin(values), std::end(values), environment->scratch);
    return nullptr;
  });
}

// memoryControl(device, what, value): 0 resets the peak, 1 trims, 2 sets the limit in bytes (0: the system's), 3 tells
// V8 how many more bytes (or fewer) unreleased tensors of this environment hold, 4 begins the log, with room for so
// many events, or ends (0) the one that this environment began.
napi_value memoryControl(napi_env env, napi_callback_info info) {
  napi_value args[3];
  Environment* environment = environmentOf(env, info, 3, args);
  return guarded(env, [&]() -> napi_value {
    Device& device = deviceArgument(env, args[0]);
    Allocator& memory = device.memory;
    int32_t what = -1;
    double value = 0;
    napi_get_value_int32(env, args[1], &what);
    napi_get_value_double(env, args[2], &value);
    GRADUS_CHECK(std::abs(value) < 0x1p63, ErrorCode::kNative, "memoryControl: not a number of bytes: got %g", value);
    int64_t total;
    switch (what) {
      case 0:
        memory.resetPeak();
        break;
      case 1:
        device.trim();
        break;
      case 2:
        memory.setLimit(value > 0 ? static_cast<uint64_t>(value) : 0);
        break;
      case 3:
        napi_adjust_external_memory(env, static_cast<int64_t>(value), &total);
        break;
      case 4:
        if (value > 0) {
          memory.startLog(static_cast<size_t>(value));
          environment->logging = &memory;
        } else {
          environment->endLog();
        }
        break;
      default:
        fail(ErrorCode::kNative, "memoryControl: unknown request %d", what);
    }
    return nullptr;
  });
}

// memoryNote(device, what): queues a note for the log about the tensor whose handle is in the scratch buffer, or about
// none (0). A tensor of another device is passed over.
napi_value memoryNote(napi_env env, napi_callback_info info) {
  napi_value args[2];
  Environment* environment = environmentOf(env, info, 2, args);
  return guarded(env, [&]() -> napi_value {
    Device& device = deviceArgument(env, args[0]);
    uint32_t what = 0;
    napi_get_value_uint32(env, args[1], &what);
    const double handle = environment->scratch[0];
    Tensor* tensor = handle == 0 ? nullptr : environment->find(handle, "memoryNote");
    if (tensor == nullptr || tensor->device == &device) device.stream.note(tensor, what);
    return nullptr;
  });
}

// memoryEvents(device): the log so far, as a Float64Array of kind, context, address, bytes for each event. Writes the
// number of events that found no room to the scratch buffer.
napi_value memoryEvents(napi_env env, napi_callback_info info) {
  napi_value args[1];
  Environment* environment = environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    uint64_t missed = 0;
    const std::vector<MemoryEvent> events = deviceArgument(env, args[0]).memory.events(&missed);
    environment->scratch[0] = static_cast<double>(missed);
    napi_value buffer, array = nullptr;
    void* data = nullptr;
    napi_create_arraybuffer(env, 4 * sizeof(double) * events.size(), &data, &buffer);
    GRADUS_CHECK(data || events.empty(), ErrorCode::kOutOfMemory, "the system refused it|0|0|0|0|");
    double* at = static_cast<double*>(data);
    for (const MemoryEvent& event : events) {
      *at++ = event.kind;
      *at++ = event.context;
      *at++ = static_cast<double>(event.address);  // below 2^48
      *at++ = static_cast<double>(event.bytes);
    }
    napi_create_typedarray(env, napi_float64_array, 4 * events.size(), buffer, 0, &array);
    return array;
  });
}

// threads(n): sets the number when n > 0; returns the number in force.
napi_value threads(napi_env env, napi_callback_info info) {
  napi_value args[1];
  environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    int32_t n = 0;
    napi_get_value_int32(env, args[0], &n);
    if (n > 0) cpuBackend().setNumThreads(n);
    return number(env, cpuBackend().numThreads());
  });
}

// JSON, see native/cuda/describe.cc.
napi_value describeCuda(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value { return text(env, cuda::describe().c_str()); });
}

// Loads the library, which takes a while.
napi_value describeBlas(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value { return text(env, cuda::describeBlas().c_str()); });
}

// The same of the library for collectives.
napi_value describeNccl(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value { return text(env, cuda::describeNccl().c_str()); });
}

// The images of the kernels in this build: bytes by the name of the file that the build made.
napi_value cudaImages(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value {
    const cuda::BlobTable& table = cuda::blobTable();
    napi_value images;
    napi_create_object(env, &images);
    for (int i = 0; i < table.count; ++i) {
      const cuda::Blob& blob = table.blobs[i];
      std::string name = blob.family;
      if (blob.architecture > 0) name.append("_").append(std::to_string(blob.architecture));
      name.append(blob.architecture > 0 ? ".cubin" : ".ptx");
      napi_value bytes;
      napi_create_buffer_copy(env, static_cast<size_t>(blob.end - blob.begin), blob.begin, nullptr, &bytes);
      napi_set_named_property(env, images, name.c_str(), bytes);
    }
    return images;
  });
}

// openDevice(device): fails where there is none.
napi_value openDevice(napi_env env, napi_callback_info info) {
  napi_value args[1];
  environmentOf(env, info, 1, args);
  return guarded(env, [&]() -> napi_value {
    deviceArgument(env, args[0]);
    return nullptr;
  });
}

napi_value describe(napi_env env, napi_callback_info) {
  return guarded(env, [&]() -> napi_value { return text(env, cpuBackend().describe()); });
}

}  // namespace gradus::binding
