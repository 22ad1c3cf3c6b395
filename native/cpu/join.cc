// Putting tensors together and picking their parts: cat, triangles, positions of what is not zero.
#include "../core/element.h"
#include "views.h"

namespace gradus::cpu {
namespace {

bool isNonzero(Float16 x) { return (x.bits & 0x7fff) != 0; }
bool isNonzero(BFloat16 x) { return (x.bits & 0x7fff) != 0; }
template <class T>
bool isNonzero(T x) {
  return x != 0;
}

// Rows of a batch of matrices: [begin, end) of each stays, the rest is 0.
template <class Range>
void keepColumns(const OpCall& call, const Range& range) {
  const TensorView x = contiguousOf(call, call.in[0]);
  if (x.numel == 0) return;
  const int64_t height = x.size(-2), width = x.size(-1), item = static_cast<int64_t>(itemSize(x.dtype));
  parallelFor(x.numel / width, std::max<int64_t>(1, 16384 / width), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const auto [begin, end] = range(r % height);
      const int64_t from = std::clamp<int64_t>(begin, 0, width), to = std::clamp<int64_t>(end, from, width);
      const char* in = x.as<char>() + r * width * item;
      char* out = call.out[0].as<char>() + r * width * item;
      std::memset(out, 0, from * item);
      std::memmove(out + from * item, in + from * item, (to - from) * item);
      std::memset(out + to * item, 0, (width - to) * item);
    }
  });
}

struct Columns {
  int64_t begin, end;
};

}  // namespace

void run_cat(const OpCall& call) {
  const int dim = static_cast<int>(call.integer(0));
  int64_t at = 0;
  for (int i = 0; i < call.nIn; ++i) {
    TensorView part = call.out[0];  // the slice of the output that this operand fills
    part.sizes[dim] = call.in[i].sizes[dim];
    part.numel = call.in[i].numel;
    part.data = part.as<char>() + at * part.strides[dim] * static_cast<int64_t>(itemSize(part.dtype));
    at += part.sizes[dim];
    for (int d = 0; d < dim; ++d) part.contiguous = part.contiguous && part.sizes[d] == 1;
    if (part.numel > 0) copyView(call, call.in[i], part);
  }
}

void run_tril(const OpCall& call) {
  const int64_t diagonal = call.integer(0);
  keepColumns(call, [&](int64_t row) { return Columns{0, row + diagonal + 1}; });
}

void run_triu(const OpCall& call) {
  const int64_t diagonal = call.integer(0);
  keepColumns(call, [&](int64_t row) { return Columns{row + diagonal, INT64_MAX}; });
}

void run_countNonzero(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  visitAny(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    int64_t count = 0;
    for (int64_t i = 0; i < x.numel; ++i) count += isNonzero(x.as<T>()[i]);
    *call.out[0].as<int64_t>() = count;
  });
}

// Coordinates in row-major order. The output has as many rows as its caller counted; x may have changed since then.
void run_nonzeroInto(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  int64_t* out = call.out[0].as<int64_t>();
  const int64_t rows = call.out[0].sizes[0];
  visitAny(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    int64_t found = 0;
    for (int64_t i = 0; i < x.numel && found < rows; ++i) {
      if (!isNonzero(x.as<T>()[i])) continue;
      int64_t rest = i;
      for (int d = x.rank - 1; d >= 0; --d) {
        out[found * x.rank + d] = rest % x.sizes[d];
        rest /= x.sizes[d];
      }
      ++found;
    }
    std::fill(out + found * x.rank, out + rows * x.rank, int64_t{0});
  });
}

}  // namespace gradus::cpu
