// Arguments of the softmax kernels, shared by host and device.
#pragma once

namespace gradus::cuda {

// Element (o, i, n) of [outer, size, inner] stands at (o * size + i) * inner + n.
struct SoftmaxRows {
  const void* in;      // forward: x; backward: the incoming gradient
  const void* result;  // backward: y
  void* out;
  long long outer, size, inner;
  int threads;  // that share a row
  int packed;   // rows begin on 128 bits and have whole packs
};

}  // namespace gradus::cuda
