// cuInit, versions and devices.
#include <cstdio>
#include <cstring>

#include "entry.h"

namespace cudasim::abi {

using namespace driver;

extern "C" CUresult cuInit(unsigned flags) {
  return entry("cuInit", Needs::kNothing, [&](Driver& driver) {
    require(flags == 0, CUDA_ERROR_INVALID_VALUE);
    driver.initialize();
  });
}

extern "C" CUresult cuDriverGetVersion(int* version) {
  return entry("cuDriverGetVersion", Needs::kNothing, [&](Driver& driver) {
    require(version != nullptr, CUDA_ERROR_INVALID_VALUE);
    *version = driver.settings.driverVersion;
  });
}

extern "C" CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return entry("cuDeviceGet", Needs::kInit, [&](Driver& driver) {
    require(device != nullptr, CUDA_ERROR_INVALID_VALUE);
    *device = driver.gpu(ordinal).ordinal;
  });
}

extern "C" CUresult cuDeviceGetCount(int* count) {
  return entry("cuDeviceGetCount", Needs::kInit, [&](Driver& driver) {
    require(count != nullptr, CUDA_ERROR_INVALID_VALUE);
    *count = static_cast<int>(driver.gpus.size());
  });
}

extern "C" CUresult cuDeviceGetName(char* name, int bytes, CUdevice device) {
  return entry("cuDeviceGetName", Needs::kInit, [&](Driver& driver) {
    require(name && bytes > 0, CUDA_ERROR_INVALID_VALUE);
    driver.gpu(device);
    std::snprintf(name, bytes, "cudasim A100-SXM4-80GB");
  });
}

extern "C" CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return entry("cuDeviceGetUuid", Needs::kInit, [&](Driver& driver) {
    require(uuid != nullptr, CUDA_ERROR_INVALID_VALUE);
    std::memcpy(uuid->bytes, "cudasim-device-\0", sizeof uuid->bytes);
    uuid->bytes[15] = static_cast<char>(driver.gpu(device).ordinal);
  });
}

extern "C" CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return entry("cuDeviceTotalMem", Needs::kInit, [&](Driver& driver) {
    require(bytes != nullptr, CUDA_ERROR_INVALID_VALUE);
    *bytes = driver.gpu(device).memory.capacity();
  });
}

extern "C" CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return entry("cuDeviceGetAttribute", Needs::kInit, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    const Gpu& gpu = driver.gpu(device);
    constexpr unsigned kPciBusId = 33;  // the one that differs between the cards
    if (attribute == kPciBusId) {
      *value = gpu.ordinal + 1;
      return;
    }
    switch (attribute) {
#define CUDASIM_ATTRIBUTE(name, number, is) \
  case name:                                \
    *value = is;                            \
    return;
#include "attributes.def"
#undef CUDASIM_ATTRIBUTE
    }
    fail(CUDA_ERROR_INVALID_VALUE, "attribute " + std::to_string(attribute) + " is not simulated");
  });
}

extern "C" CUresult cuDeviceGetPCIBusId(char* id, int bytes, CUdevice device) {
  return entry("cuDeviceGetPCIBusId", Needs::kInit, [&](Driver& driver) {
    require(id && bytes > 0, CUDA_ERROR_INVALID_VALUE);
    std::snprintf(id, bytes, "0000:%02X:00.0", driver.gpu(device).ordinal + 1);
  });
}

extern "C" CUresult cuDeviceGetByPCIBusId(CUdevice* device, const char* id) {
  return entry("cuDeviceGetByPCIBusId", Needs::kInit, [&](Driver& driver) {
    unsigned domain = 0, bus = 0;
    require(device && id, CUDA_ERROR_INVALID_VALUE);
    const bool isFull = std::sscanf(id, "%x:%x:", &domain, &bus) == 2;
    require(isFull || std::sscanf(id, "%x:", &bus) == 1, CUDA_ERROR_INVALID_VALUE);
    *device = driver.gpu(static_cast<int>(bus) - 1).ordinal;
  });
}

extern "C" CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return entry("cuDeviceCanAccessPeer", Needs::kInit, [&](Driver& driver) {
    require(can != nullptr, CUDA_ERROR_INVALID_VALUE);
    *can = driver.gpu(device).ordinal != driver.gpu(peer).ordinal && driver.settings.peers;
  });
}

extern "C" CUresult cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice source,
                                            CUdevice target) {
  return entry("cuDeviceGetP2PAttribute", Needs::kInit, [&](Driver& driver) {
    require(value != nullptr, CUDA_ERROR_INVALID_VALUE);
    require(driver.gpu(source).ordinal != driver.gpu(target).ordinal, CUDA_ERROR_INVALID_DEVICE);
    switch (attribute) {
      case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK:
        *value = 0;
        return;
      case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
      case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
        *value = driver.settings.peers;
        return;
      case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED:
        *value = 0;  // there are no arrays here
        return;
    }
    fail(CUDA_ERROR_INVALID_VALUE);
  });
}

}  // namespace cudasim::abi
