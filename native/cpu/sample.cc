// Random choices that need more than one element's word: permutations and draws from weights. Deterministic by seed
// and offset, whatever the threads.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "../core/data_errors.h"
#include "../core/element.h"
#include "philox.h"
#include "views.h"

namespace gradus::cpu {
namespace {

Philox streamOf(const OpCall& call) {
  return {static_cast<uint64_t>(call.integer(0)), static_cast<uint64_t>(call.integer(1))};
}

double unit(const Philox& stream, int64_t i) { return static_cast<double>(stream.wideWord(i) >> 11) * 0x1p-53; }

// A row of weights as float64; throws unless one can draw from it. Returns their sum.
double readRow(const OpCall& call, const TensorView& weights, int64_t row, double* out) {
  const int64_t n = weights.size(-1);
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    const double w = visitFloating(
        weights.dtype, [&](auto tag) { return static_cast<double>(widen(weights.as<decltype(tag)>()[row * n + j])); });
    if (!(w >= 0 && std::isfinite(w))) throw unusableWeight(w, row, j);
    out[j] = w;
    sum += w;
  }
  if (!(sum > 0 && std::isfinite(sum))) throw unusableWeights(sum, row);
  return sum;
}

// The first position whose cumulative weight exceeds u times the sum.
void drawWithReplacement(const Philox& stream, double* weights, int64_t n, int64_t first, int64_t* out, int64_t k) {
  std::partial_sum(weights, weights + n, weights);
  for (int64_t s = 0; s < k; ++s) {
    const double* at = std::upper_bound(weights, weights + n, unit(stream, first + s) * weights[n - 1]);
    // u < 1, but the product may round up to the sum: then the last position of weight above 0
    out[s] = at < weights + n ? at - weights : std::lower_bound(weights, weights + n, weights[n - 1]) - weights;
  }
}

// The k smallest of -log(u) / weight: each is the next one drawn with its share of the weight that is left
// (Efraimidis & Spirakis 2006, algorithm A).
void drawWithoutReplacement(const Philox& stream, const double* weights, int64_t n, int64_t first, int64_t* out,
                            int64_t k, std::vector<std::pair<double, int64_t>>& keys) {
  keys.clear();
  for (int64_t j = 0; j < n; ++j) {
    if (weights[j] > 0) keys.emplace_back(-std::log(1 - unit(stream, first + j)) / weights[j], j);
  }
  const auto usable = static_cast<int64_t>(keys.size());
  if (k > usable) throw tooFewWeights(usable, k);
  std::partial_sort(keys.begin(), keys.begin() + k, keys.end());
  for (int64_t s = 0; s < k; ++s) out[s] = keys[s].second;
}

}  // namespace

// Fisher & Yates, from the end: position i changes places with one of 0 to i, chosen by the wide word i.
void run_randperm(const OpCall& call) {
  const Philox stream = streamOf(call);
  int64_t* out = call.out[0].as<int64_t>();
  const int64_t n = call.out[0].numel;
  std::iota(out, out + n, int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {
    const auto product = static_cast<unsigned __int128>(stream.wideWord(i)) * static_cast<uint64_t>(i + 1);
    std::swap(out[i], out[static_cast<int64_t>(product >> 64)]);
  }
}

// With replacement, sample s of row r uses the wide word r k + s; without, choice j of row r uses r n + j.
void run_multinomial(const OpCall& call) {
  const Philox stream = streamOf(call);
  const TensorView weights = contiguousOf(call, call.in[0]);
  const TensorView& out = call.out[0];
  if (out.numel == 0) return;
  const int64_t n = weights.size(-1), k = out.size(-1), rows = out.numel / k;
  double* row = call.scratch<double>(n);
  std::vector<std::pair<double, int64_t>> keys;
  std::vector<int64_t> drawn(out.numel);  // nothing is written before every row has been checked
  for (int64_t r = 0; r < rows; ++r) {
    readRow(call, weights, r, row);
    if (call.flag(2)) {
      drawWithReplacement(stream, row, n, r * k, drawn.data() + r * k, k);
    } else {
      drawWithoutReplacement(stream, row, n, r * n, drawn.data() + r * k, k, keys);
    }
  }
  std::copy(drawn.begin(), drawn.end(), out.as<int64_t>());
}

}  // namespace gradus::cpu
