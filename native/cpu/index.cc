// Reading and writing by index: gather, scatter, indexSelect, indexAdd, embedding.
//
// Indices are checked first, all of them, so that a bad one changes nothing. Sums over equal indices are added in
// row-major order: threads split the work along a dim that the index does not choose, so no two write the same element
// and the bits do not depend on their number. 16-bit floats are summed in float32 and rounded once.
#include <atomic>

#include "../core/data_errors.h"
#include "../core/element.h"
#include "views.h"

namespace gradus::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements a thread: some microseconds

struct Box {
  int rank;
  int64_t low[kMaxRank] = {}, high[kMaxRank] = {};
};

// body(coordinates) for every row (run along the last dim) of the box, in row-major order.
template <class Body>
void forRows(const Box& box, const Body& body) {
  int64_t at[kMaxRank];
  for (int d = 0; d < box.rank; ++d) {
    if (box.low[d] >= box.high[d]) return;
    at[d] = box.low[d];
  }
  while (true) {
    body(at);
    int d = box.rank - 2;
    while (d >= 0 && ++at[d] == box.high[d]) {
      at[d] = box.low[d];
      --d;
    }
    if (d < 0) return;
  }
}

int64_t dot(const int64_t* at, const int64_t* strides, int rank) {
  int64_t sum = 0;
  for (int d = 0; d < rank; ++d) sum += at[d] * strides[d];
  return sum;
}

// Rank 0 is one element of rank 1 here.
TensorView atLeastVector(TensorView x) {
  if (x.rank == 0) {
    x.rank = 1;
    x.sizes[0] = 1;
    x.strides[0] = 1;
  }
  return x;
}

// Splits the box of `index` along its largest dim other than `dim`; body(part of the box).
template <class Body>
void forParts(const TensorView& index, int dim, const Body& body) {
  Box whole{index.rank};
  std::copy_n(index.sizes, index.rank, whole.high);
  if (index.numel == 0) return;
  int along = -1;
  for (int d = 0; d < index.rank; ++d) {
    if (d != dim && (along < 0 || index.sizes[d] > index.sizes[along])) along = d;
  }
  if (along < 0) return body(whole);
  const int64_t size = index.sizes[along], each = index.numel / size;
  parallelFor(size, std::max<int64_t>(1, kGrain / each), [&](int64_t begin, int64_t end) {
    Box part = whole;
    part.low[along] = begin;
    part.high[along] = end;
    body(part);
  });
}

// Strides of the chosen tensor without the dim that the index replaces.
struct Chosen {
  int64_t strides[kMaxRank], along;
  Chosen(const TensorView& x, int dim) : along(x.strides[dim]) {
    std::copy_n(x.strides, x.rank, strides);
    strides[dim] = 0;
  }
};

// body(place in x, place in the index) for every element of the part.
template <class Body>
void forChosen(const Box& part, const Chosen& x, const int64_t* index, const int64_t* indexStrides, const Body& body) {
  const int last = part.rank - 1;
  forRows(part, [&](const int64_t* at) {
    int64_t from = dot(at, x.strides, part.rank), i = dot(at, indexStrides, part.rank);
    for (int64_t j = part.low[last]; j < part.high[last]; ++j, ++i, from += x.strides[last]) {
      body(from + index[i] * x.along, i, j - part.low[last], at);
    }
  });
}

// Calls body with an unsigned value as wide as an element.
template <class Body>
void visitWidth(DType dtype, const Body& body) {
  switch (itemSize(dtype)) {
    case 1:
      return body(uint8_t{});
    case 2:
      return body(uint16_t{});
    case 4:
      return body(uint32_t{});
    default:
      return body(uint64_t{});
  }
}

// What elements of T are summed in.
template <class T>
using Sum = std::conditional_t<std::is_integral_v<T>, T, Compute<T>>;

// sum + factor * x; integers wrap, as PyTorch's do.
template <class S, class X>
S addTo(S sum, S factor, X x) {
  if constexpr (std::is_integral_v<S>) {
    return static_cast<S>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(factor) * static_cast<uint64_t>(x));
  } else {
    return sum + factor * x;
  }
}

// x copied to where sums are made: the output itself, or float32 scratch for 16-bit floats.
TensorView startSum(const OpCall& call) {
  const TensorView& x = call.in[0];
  TensorView sum = call.out[0];
  if (isHalf(x.dtype)) sum = contiguousLike(sum, DType::kFloat32, call.workspace->take(sum.numel * sizeof(float)));
  if (sum.data != x.data || !x.contiguous) copyView(call, x, sum);
  return sum;
}

void finishSum(const OpCall& call, const TensorView& sum) {
  if (sum.data != call.out[0].data) copyView(call, sum, call.out[0]);
}

// out[row i] = x[row index[i]] for rows of `inner` elements, in each of `outer` tables.
void selectRows(const void* x, const int64_t* index, void* out, const Around& at, int64_t n, DType dtype) {
  const size_t bytes = at.inner * itemSize(dtype);
  const int64_t rows = at.outer * n;
  if (at.inner == 1) {
    visitWidth(dtype, [&](auto tag) {
      using U = decltype(tag);
      parallelFor(at.outer, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
          for (int64_t i = 0; i < n; ++i) {
            static_cast<U*>(out)[o * n + i] = static_cast<const U*>(x)[o * at.size + index[i]];
          }
        }
      });
    });
    return;
  }
  parallelFor(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, at.inner)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const char* from = static_cast<const char*>(x) + (r / n * at.size + index[r % n]) * bytes;
      std::memmove(static_cast<char*>(out) + r * bytes, from, bytes);  // the output may be a view of the table
    }
  });
}

template <class T>
void addRows(Sum<T>* out, const int64_t* index, const T* source, const Around& at, int64_t n, double alpha) {
  constexpr int64_t kPiece = 512;  // of a row: what a task owns in every row
  const int64_t pieces = (at.inner + kPiece - 1) / kPiece, length = std::min(kPiece, at.inner);
  const Sum<T> factor = [&] {
    if constexpr (std::is_integral_v<T>) return static_cast<T>(toInteger(alpha));
    return static_cast<Sum<T>>(alpha);
  }();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n * length));
  parallelFor(at.outer * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t o = task / pieces, first = task % pieces * kPiece, count = std::min(kPiece, at.inner - first);
      for (int64_t i = 0; i < n; ++i) {
        Sum<T>* to = out + (o * at.size + index[i]) * at.inner + first;
        const T* from = source + (o * n + i) * at.inner + first;
        for (int64_t j = 0; j < count; ++j) to[j] = addTo<Sum<T>>(to[j], factor, widen(from[j]));
      }
    }
  });
}

// Whether a contiguous operand shares memory with an output.
bool isOverwritten(const OpCall& call, const TensorView& x) {
  const auto begin = reinterpret_cast<uintptr_t>(x.data);
  for (int i = 0; i < call.nOut; ++i) {
    const auto out = reinterpret_cast<uintptr_t>(call.out[i].data);
    if (begin < out + call.out[i].bytes() && out < begin + x.bytes()) return true;
  }
  return false;
}

}  // namespace

const int64_t* checkedIndices(const OpCall& call, const TensorView& index, int64_t limit) {
  TensorView safe = contiguousAs(call, index, DType::kInt64);
  if (isOverwritten(call, safe)) {  // x.scatter_(0, x, 1000) would change indices after they were checked
    const TensorView copy = contiguousLike(safe, DType::kInt64, call.workspace->take(safe.bytes()));
    std::memcpy(copy.data, safe.data, safe.bytes());
    safe = copy;
  }
  const int64_t* values = safe.as<int64_t>();
  std::atomic<int64_t> bad{index.numel};
  parallelFor(index.numel, 4 * kGrain, [&](int64_t begin, int64_t end) {
    uint64_t most = 0;  // branch-free: a negative index is a large unsigned one
    for (int64_t i = begin; i < end; ++i) most = std::max(most, static_cast<uint64_t>(values[i]));
    if (begin == end || most < static_cast<uint64_t>(limit)) return;
    int64_t i = begin;
    while (static_cast<uint64_t>(values[i]) < static_cast<uint64_t>(limit)) ++i;
    int64_t first = bad.load();
    while (i < first && !bad.compare_exchange_weak(first, i)) {
    }
  });
  const int64_t i = bad.load();
  if (i < index.numel) throw indexOutOfRange(call.name, values[i], i, limit);
  return values;
}

void run_gather(const OpCall& call) {
  const int dim = static_cast<int>(call.integer(0));
  const TensorView x = atLeastVector(call.in[0]), out = atLeastVector(call.out[0]);
  const int64_t* index = checkedIndices(call, call.in[1], x.sizes[dim]);
  const Chosen from(x, dim);
  visitWidth(x.dtype, [&](auto tag) {
    using U = decltype(tag);
    forParts(out, dim, [&](const Box& part) {
      forChosen(part, from, index, out.strides,
                [&](int64_t place, int64_t i, int64_t, const int64_t*) { out.as<U>()[i] = x.as<U>()[place]; });
    });
  });
}

void run_scatterAdd(const OpCall& call) {
  const int dim = static_cast<int>(call.integer(0));
  const TensorView box = contiguousLike(atLeastVector(call.in[1]), DType::kInt64, nullptr);
  const TensorView source = atLeastVector(contiguousOf(call, call.in[2]));
  const int64_t* index = checkedIndices(call, call.in[1], atLeastVector(call.out[0]).sizes[dim]);
  const TensorView sum = atLeastVector(startSum(call));
  const Chosen to(sum, dim);
  visitAny(source.dtype, [&](auto tag) {
    using T = decltype(tag);
    forParts(box, dim, [&](const Box& part) {
      forChosen(part, to, index, box.strides, [&](int64_t place, int64_t, int64_t j, const int64_t* at) {
        Sum<T>& to = sum.as<Sum<T>>()[place];
        to = addTo<Sum<T>>(to, 1, widen(source.as<T>()[dot(at, source.strides, box.rank) + j]));
      });
    });
  });
  finishSum(call, sum);
}

void run_scatter(const OpCall& call) {
  const int dim = static_cast<int>(call.integer(0));
  const TensorView& x = call.in[0];
  const TensorView box = contiguousLike(atLeastVector(call.in[1]), DType::kInt64, nullptr);
  const TensorView out = atLeastVector(call.out[0]);
  TensorView source;
  if (call.nIn == 3) {
    source = atLeastVector(contiguousOf(call, call.in[2]));
  } else {  // one element that stands for all
    source = contiguousLike(box, x.dtype, call.workspace->take(8));
    TensorView one = source;
    one.rank = 0;
    one.numel = 1;
    fillView(call, one, call.attr[1]);
    std::fill_n(source.strides, kMaxRank, 0);
  }
  const int64_t step = call.nIn == 3 ? 1 : 0;
  const int64_t* index = checkedIndices(call, call.in[1], out.sizes[dim]);
  if (out.data != x.data || !x.contiguous) copyView(call, x, call.out[0]);
  const Chosen to(out, dim);
  visitWidth(x.dtype, [&](auto tag) {
    using U = decltype(tag);
    forParts(box, dim, [&](const Box& part) {
      forChosen(part, to, index, box.strides, [&](int64_t place, int64_t, int64_t j, const int64_t* at) {
        out.as<U>()[place] = source.as<U>()[dot(at, source.strides, box.rank) + j * step];
      });
    });
  });
}

void run_indexSelect(const OpCall& call) {
  const TensorView x = contiguousOf(call, call.in[0]);
  const Around at(x, static_cast<int>(call.integer(0)));
  const int64_t* index = checkedIndices(call, call.in[1], at.size);
  if (call.out[0].numel > 0) selectRows(x.data, index, call.out[0].data, at, call.in[1].numel, x.dtype);
}

void run_indexAdd(const OpCall& call) {
  const TensorView source = contiguousOf(call, call.in[2]);
  const Around at(call.in[0], static_cast<int>(call.integer(0)));
  const int64_t* index = checkedIndices(call, call.in[1], at.size);
  const TensorView sum = startSum(call);
  visitAny(source.dtype, [&](auto tag) {
    using T = decltype(tag);
    addRows(sum.as<Sum<T>>(), index, source.as<T>(), at, call.in[1].numel, call.attr[1]);
  });
  finishSum(call, sum);
}

void run_embedding(const OpCall& call) {
  const TensorView& index = call.in[0];
  const TensorView weight = contiguousOf(call, call.in[1]);
  const int64_t* rows = checkedIndices(call, index, weight.sizes[0]);
  if (call.out[0].numel > 0)
    selectRows(weight.data, rows, call.out[0].data, Around(weight, 0), index.numel, weight.dtype);
}

}  // namespace gradus::cpu
