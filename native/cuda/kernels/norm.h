// Arguments of the norm kernels, shared by host and device.
#pragma once

namespace gradus::cuda {

// A floating operand of any dtype, as long as it computes as the kernel does; data null: not there.
struct NormOperand {
  const void* data;
  int dtype;
};

struct NormForward {
  const void* x;
  void* y;
  void *means, *rstds;  // [rows], in the type that is computed in; no means for rms norm
  void* normalized;     // null: not wanted
  int normalizedDType;
  NormOperand weight, bias;
  double eps;
  long long rows, width;
  int threads;  // that share a row
  int packed;   // rows and parameters begin on 128 bits and have whole packs
};

// A block has the rows of a part and adds up their share of dweight and dbias.
struct NormBackward {
  const void* g;
  NormOperand x;
  const void *means, *rstds;
  NormOperand weight;
  void* dx;
  void *dweight, *dbias;  // [parts, width], in the type that is computed in; null: not wanted
  long long rows, width;
  long long rowsPerPart;
  int packed;
  int accumulate;  // dx += instead of dx =
  int normalized;  // x is (x - mean) rstd already, and there are no means
};

// out [width] = sum of the parts [count, width], in their order; of one parameter or of both
struct NormParts {
  const void* parts[2];
  void* out[2];
  int dtypes[2];
  int parameters;
  int packed;  // the width is whole runs of 128 bits of the parts, and results begin on 16 bytes
  long long count, width;
};

struct NormScaleShift {
  NormOperand x;
  void* y;
  int dtype;
  NormOperand weight, bias;
  long long rows, width;
  int threads;
  int packed;
};

}  // namespace gradus::cuda
