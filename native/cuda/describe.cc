// What `gradus doctor` and cuda.deviceCount say of the driver, its devices and this build's kernels.
#include <set>
#include <vector>

#include "device.h"

namespace gradus::cuda {
namespace {

std::string quoted(const std::string& text) {
  std::string result(1, '"');
  for (const char c : text) {
    if (c == '"' || c == '\\') result.push_back('\\');
    result.push_back(static_cast<unsigned char>(c) < 32 ? ' ' : c);
  }
  result.push_back('"');
  return result;
}

std::string listOf(const std::vector<std::string>& items) {
  std::string list(1, '[');
  for (const std::string& item : items) list.append(list.size() > 1 ? "," : "").append(item);
  list.push_back(']');
  return list;
}

std::string kernels() {
  const BlobTable& table = blobTable();
  std::set<std::string> names;
  for (const Blob* each = table.blobs; each < table.blobs + table.count; ++each) {
    names.insert(quoted(each->architecture == 0 ? "ptx" : "sm_" + std::to_string(each->architecture)));
  }
  return listOf({names.begin(), names.end()});
}

// As cuda.getDeviceProperties has them.
constexpr std::pair<const char*, int> kProperties[] = {
    {"major", kCapabilityMajor},
    {"minor", kCapabilityMinor},
    {"multiProcessorCount", kMultiprocessors},
    {"warpSize", kWarpSize},
    {"maxThreadsPerMultiProcessor", kMostThreadsPerMultiprocessor},
    {"regsPerMultiprocessor", kRegistersPerMultiprocessor},
    {"sharedMemoryPerMultiprocessor", kSharedBytesPerMultiprocessor},
    {"sharedMemoryPerBlockOptin", kMostSharedBytesPerBlock},
    {"l2CacheSize", kL2CacheBytes},
};

std::string devices() {
  int count = 0;
  check(driver().deviceGetCount(&count), "cuDeviceGetCount");
  std::vector<std::string> list;
  for (int index = 0; index < count; ++index) {
    DeviceNumber number = 0;
    char name[256] = "";
    size_t bytes = 0;
    check(driver().deviceGet(&number, index), "cuDeviceGet");
    check(driver().deviceGetName(name, sizeof name, number), "cuDeviceGetName");
    check(driver().deviceTotalMem(&bytes, number), "cuDeviceTotalMem");
    std::string properties = "{\"name\":" + quoted(name) + ",\"totalMemory\":" + std::to_string(bytes);
    for (const auto& [property, which] : kProperties) {
      int value = 0;
      check(driver().deviceGetAttribute(&value, which, number), "cuDeviceGetAttribute");
      properties += std::string(",\"") + property + "\":" + std::to_string(value);
    }
    list.push_back(properties + "}");
  }
  return listOf(list);
}

}  // namespace

std::string describe() {
  try {
    return "{\"driver\":" + quoted(versionText(driver().version)) + ",\"devices\":" + devices() +
           ",\"kernels\":" + kernels() + "}";
  } catch (const Error& error) {
    return "{\"devices\":[],\"kernels\":" + kernels() + ",\"problem\":" + quoted(error.what()) + "}";
  }
}

}  // namespace gradus::cuda
