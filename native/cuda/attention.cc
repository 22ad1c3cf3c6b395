// Scaled dot-product attention: what a call asks for, as arguments of the kernels. Lengths and offsets stay on the
// device: grids are as large as any of them needs, and a kernel checks them.
#include "kernels/attention.h"

#include <cmath>

#include "../core/element.h"
#include "launch.h"
#include "philox.h"

namespace gradus::cuda {

void run_copy(const OpCall&);
void run_fill(const OpCall&);

namespace {

constexpr long long kUnbounded = 1ll << 60;

// A kernel, and how it cuts a head: rows of a tile, chunks of features.
struct Pass {
  Kernel kernel;
  unsigned threads;
  int rows, featuresOfChunk;
};

struct Passes {
  Pass forward, queryGradient, keyGradient;
};

Passes plainPasses(DType dtype) {
  const auto pass = [&](const char* name) {
    const int features = dtype == DType::kFloat64 ? kAttentionFeaturesDouble : kAttentionFeatures;
    return Pass{{"attention", std::string("gradus_attention_") + name + "_" + dtypeName(dtype)},
                kBlock,
                kAttentionTile,
                features};
  };
  return {pass("forward"), pass("query_gradient"), pass("key_gradient")};
}

// Of heads padded to kDim features.
template <int kDim>
Passes mmaPasses(DType dtype) {
  using Forward = AttentionForwardTiles<kDim>;
  using Backward = AttentionBackwardTiles<kDim>;
  const auto name = [&](const char* what) {
    return std::string("gradus_attention_mma_") + what + "_" + std::to_string(kDim) + "_" + dtypeName(dtype);
  };
  const unsigned ofForward = attentionForwardBytes(kDim, Forward::kQueries, Forward::kKeys);
  const unsigned ofQueries = attentionQueryGradientBytes(kDim, Backward::kKeys);
  const unsigned ofKeys = attentionKeyGradientBytes(kDim, Backward::kQueries);
  return {
      {{"attention_mma_forward", name("forward"), ofForward}, kAttentionMmaThreads, Forward::kQueries, kDim},
      {{"attention_mma_backward", name("query_gradient"), ofQueries},
       kAttentionMmaThreads,
       kAttentionBackwardRows,
       kDim},
      // of 256 features one block makes dV, and another one dK
      {{"attention_mma_backward", name("key_gradient"), ofKeys}, kAttentionMmaThreads, kAttentionBackwardRows, 128},
  };
}

template <DType kDType>
Passes& mmaPassesFor(int features) {
  static Passes to32 = mmaPasses<32>(kDType), to64 = mmaPasses<64>(kDType), to128 = mmaPasses<128>(kDType),
                to256 = mmaPasses<256>(kDType);
  return features <= 32 ? to32 : features <= 64 ? to64 : features <= 128 ? to128 : to256;
}

Passes& passesFor(DType dtype, int features) {
  static Passes plain[] = {plainPasses(DType::kFloat32), plainPasses(DType::kFloat64), plainPasses(DType::kFloat16),
                           plainPasses(DType::kBFloat16)};
  if (features <= kAttentionMmaFeatures) {
    if (dtype == DType::kFloat16) return mmaPassesFor<DType::kFloat16>(features);
    if (dtype == DType::kBFloat16) return mmaPassesFor<DType::kBFloat16>(features);
  }
  return plain[static_cast<int>(dtype)];
}

Kernel& rowTermsKernel(DType dtype) {
  static Kernel all[] = {{"attention", "gradus_attention_row_terms_float32"},
                         {"attention", "gradus_attention_row_terms_float64"},
                         {"attention", "gradus_attention_row_terms_float16"},
                         {"attention", "gradus_attention_row_terms_bfloat16"}};
  return all[static_cast<int>(dtype)];
}

const TensorView* operand(const OpCall& call, int i) {
  return call.nIn > i && call.in[i].present() ? &call.in[i] : nullptr;
}

// Strides of a mask that broadcasts to four dims.
void broadcastStrides(const TensorView& mask, long long strides[4]) {
  for (int d = 0; d < 4; ++d) {
    const int from = d - (4 - mask.rank);
    strides[d] = from < 0 || mask.sizes[from] == 1 ? 0 : mask.strides[from];
  }
}

AttentionOperand operandOf(void* data, DType dtype, int64_t batch, int64_t head, int64_t position, int64_t feature) {
  const int64_t lanes = 16 / static_cast<int64_t>(itemSize(dtype));
  const bool vectors = feature == 1 && reinterpret_cast<uintptr_t>(data) % 16 == 0 && batch % lanes == 0 &&
                       head % lanes == 0 && position % lanes == 0;
  return {data, batch, head, position, feature, vectors};
}

// x is [B, H, T, D].
AttentionOperand byHeads(const TensorView& x) {
  return operandOf(x.data, x.dtype, x.strides[0], x.strides[1], x.strides[2], x.strides[3]);
}

// x is [B, T, H, D].
AttentionOperand byPositions(const TensorView& x) {
  return operandOf(x.data, x.dtype, x.strides[0], x.strides[2], x.strides[1], x.strides[3]);
}

// One of the three of x, [B, T, 3, H, D].
AttentionOperand third(const TensorView& x, int i) {
  char* data = x.as<char>() + i * x.strides[2] * static_cast<int64_t>(itemSize(x.dtype));
  return operandOf(data, x.dtype, x.strides[0], x.strides[3], x.strides[1], x.strides[4]);
}

// The kernels on tensor cores read masks of bool and float32.
TensorView readable(const TensorView& mask, DType operands, const OpCall& call) {
  if (!isHalf(operands) || mask.dtype == DType::kBool || mask.dtype == DType::kFloat32 || mask.numel == 0) return mask;
  TensorView copy = mask;
  copy.dtype = DType::kFloat32;
  copy.contiguous = true;
  int64_t step = 1;
  for (int d = mask.rank - 1; d >= 0; --d) {
    copy.strides[d] = step;
    step *= mask.sizes[d];
  }
  copy.data = call.workspace->take(copy.bytes());
  run_copy({call.name, &mask, &copy, nullptr, 1, 1, 0, call.workspace});
  return copy;
}

// Words of philox below it drop an element; as native/cpu/philox.h has it.
unsigned dropThreshold(double p) {
  const double scaled = p * 0x1p32 + 0.5;
  return scaled >= 0x1p32 ? 0xffffffffu : static_cast<unsigned>(scaled);
}

AttentionArguments describe(const OpCall& call, const TensorView& q, const TensorView& k, const TensorView& v,
                            int optional) {
  AttentionArguments a{};
  a.q = byHeads(q);
  a.k = byHeads(k);
  a.v = byHeads(v);
  for (const int64_t size : {q.size(0), q.size(1), q.size(2), k.size(2), v.size(3)}) {
    GRADUS_CHECK(size < int64_t{1} << 30, ErrorCode::kShape, "%s: a dim is too large for cuda: got %lld", call.name,
                 static_cast<long long>(size));
  }
  a.batch = static_cast<int>(q.size(0));
  a.heads = static_cast<int>(q.size(1));
  a.queries = static_cast<int>(q.size(2));
  a.dim = static_cast<int>(q.size(3));
  a.kvHeads = static_cast<int>(k.size(1));
  a.keys = static_cast<int>(k.size(2));
  a.valueDim = static_cast<int>(v.size(3));
  a.scale = call.attr[0];
  const auto bound = [&](int i) -> long long {
    return call.attr[i] < 0 ? kUnbounded : std::min<long long>(call.integer(i), kUnbounded);
  };
  a.left = bound(5);
  a.right = call.flag(1) ? 0 : bound(6);
  a.seed = static_cast<uint64_t>(call.attr[2]);
  a.offset = static_cast<uint64_t>(call.attr[3]);
  a.philox = philoxCell();
  a.dropout = call.attr[4] > 0;
  a.threshold = dropThreshold(call.attr[4]);
  a.keep = call.attr[4] < 1 ? 1 / (1 - call.attr[4]) : 0;
  if (const TensorView* given = operand(call, optional)) {
    const TensorView mask = readable(*given, q.dtype, call);
    a.mask = mask.data;
    a.maskDType = static_cast<int>(mask.dtype);
    broadcastStrides(mask, a.maskStrides);
  }
  if (const TensorView* blocks = operand(call, optional + 3)) {
    a.blockMask = blocks->as<unsigned char>();
    broadcastStrides(*blocks, a.blockStrides);
    const auto size = [&](int i) { return static_cast<int>(std::clamp<int64_t>(call.integer(i), 1, 1 << 30)); };
    a.blockQueries = size(7);
    a.blockKeys = size(8);
  }
  const TensorView *ofQueries = operand(call, optional + 1), *ofKeys = operand(call, optional + 2);
  if (ofQueries) {
    a.ofQueries = ofQueries->data;
    a.queriesStride = ofQueries->strides[0];
    a.queriesWide = ofQueries->dtype == DType::kInt64;
    a.sequences = static_cast<int>(ofQueries->numel - 1);
  }
  if (ofKeys) {
    static Kernel check("attention", "gradus_attention_check");
    a.ofKeys = ofKeys->data;
    a.keysStride = ofKeys->strides[0];
    a.keysWide = ofKeys->dtype == DType::kInt64;
    a.failure = currentDevice().failureSlot(call.name, a.queries, a.keys, a.sequences);
    currentDevice().launch(check, 1, kBlock, 0, &a);
  }
  return a;
}

// A block a chunk, head, tile of so many positions and batch entry. Sequences end within tiles: each may add one.
void launchTiles(const OpCall& call, Kernel& kernel, unsigned threads, int tile, AttentionArguments a, int positions,
                 int heads, int chunks) {
  a.tiles = (positions + tile - 1) / tile + a.sequences;
  a.chunks = chunks;
  const double blocks = static_cast<double>(chunks) * heads * a.tiles * a.batch;
  if (blocks == 0) return;
  GRADUS_CHECK(blocks < 0x1p31, ErrorCode::kShape, "%s: too large for cuda: got %g tiles, expected fewer than 2^31",
               call.name, blocks);
  currentDevice().launch(kernel, static_cast<unsigned>(blocks), threads, kernel.sharedBytes, &a);
}

void launchPass(const OpCall& call, Pass& pass, const AttentionArguments& a, int positions, int heads, int features) {
  const int chunks = std::max(1, (features + pass.featuresOfChunk - 1) / pass.featuresOfChunk);
  launchTiles(call, pass.kernel, pass.threads, pass.rows, a, positions, heads, chunks);
}

// Where forward leaves what normalizes the rows, [B, H, L] or two of them.
void setRowTerms(AttentionArguments& a, const TensorView& logsumexp) {
  a.logsumexp = logsumexp.data;
  if (logsumexp.rank == 4) {
    a.rowSums = logsumexp.as<char>() + logsumexp.strides[0] * static_cast<int64_t>(itemSize(logsumexp.dtype));
  }
}

void fillZero(const OpCall& call, const TensorView& x) {
  const double zero = 0;
  TensorView out = x;
  run_fill({"fill", nullptr, &out, &zero, 0, 1, 1, call.workspace});
}

}  // namespace

void run_attention(const OpCall& call) {
  AttentionArguments a = describe(call, call.in[0], call.in[1], call.in[2], 3);
  a.out = byPositions(call.out[0]);
  setRowTerms(a, call.out[1]);
  Passes& passes = passesFor(call.in[0].dtype, std::max(a.dim, a.valueDim));
  launchPass(call, passes.forward, a, a.queries, a.heads, a.valueDim);
}

void run_attentionBackward(const OpCall& call) {
  AttentionArguments a = describe(call, call.in[1], call.in[2], call.in[3], 6);
  a.g = byHeads(call.in[0]);
  a.out = byHeads(call.in[4]);
  setRowTerms(a, call.in[5]);
  const int64_t layout = call.integer(9);  // 0: [B, T, H, D] each, 1: [B, T, 3, H, D], 2: [B, H, T, D] each
  AttentionOperand* gradients[] = {&a.dq, &a.dk, &a.dv};
  for (int i = 0; i < 3; ++i) {
    *gradients[i] = layout == 1 ? third(call.out[0], i) : layout == 2 ? byHeads(call.out[i]) : byPositions(call.out[i]);
  }
  const int64_t rows = int64_t{a.batch} * a.heads * a.queries;
  const DType dtype = call.in[1].dtype, compute = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  if (rows == 0 || a.kvHeads == 0) {
    for (int i = 0; i < 3; ++i) {
      if (call.out[i].numel > 0) fillZero(call, call.out[i]);
    }
    return;
  }
  for (void** each : {&a.delta, &a.shift, &a.share}) {
    *each = call.workspace->take(static_cast<size_t>(rows) * itemSize(compute));
  }
  const int64_t ofBlock = kBlock / 32;  // a warp a row
  GRADUS_CHECK(rows / ofBlock < (int64_t{1} << 31) - 1, ErrorCode::kShape, "%s: too many rows for cuda: got %lld",
               call.name, static_cast<long long>(rows));
  currentDevice().launch(rowTermsKernel(dtype), static_cast<unsigned>((rows + ofBlock - 1) / ofBlock), kBlock, 0, &a);
  const int features = std::max(a.dim, a.valueDim);
  Passes& passes = passesFor(dtype, features);
  launchPass(call, passes.queryGradient, a, a.queries, a.heads, a.dim);
  launchPass(call, passes.keyGradient, a, a.keys, a.kvHeads, features);
}

void run_attentionWeights(const OpCall& call) {
  static Kernel kernels[] = {{"attention_statistics", "gradus_attention_weights_float32"},
                             {"attention_statistics", "gradus_attention_weights_float64"},
                             {"attention_statistics", "gradus_attention_weights_float16"},
                             {"attention_statistics", "gradus_attention_weights_bfloat16"}};
  AttentionArguments a = describe(call, call.in[0], call.in[1], call.in[1], 3);
  setRowTerms(a, call.in[2]);
  a.out = byHeads(call.out[0]);
  launchTiles(call, kernels[static_cast<int>(call.in[0].dtype)], kBlock, kAttentionTile, a, a.queries, a.heads,
              (a.keys + kAttentionTile - 1) / kAttentionTile);
}

void run_attentionStatistics(const OpCall& call) {
  static Kernel entropy[] = {{"attention_statistics", "gradus_attention_entropy_float32"},
                             {"attention_statistics", "gradus_attention_entropy_float64"},
                             {"attention_statistics", "gradus_attention_entropy_float16"},
                             {"attention_statistics", "gradus_attention_entropy_bfloat16"}};
  static Kernel received[] = {{"attention_statistics", "gradus_attention_received_float32"},
                              {"attention_statistics", "gradus_attention_received_float64"},
                              {"attention_statistics", "gradus_attention_received_float16"},
                              {"attention_statistics", "gradus_attention_received_bfloat16"}};
  AttentionArguments a = describe(call, call.in[0], call.in[1], call.in[1], 3);
  setRowTerms(a, call.in[2]);
  a.entropy = call.out[0].data;
  a.received = call.out[1].data;
  const int dtype = static_cast<int>(call.in[0].dtype);
  launchTiles(call, entropy[dtype], kBlock, kAttentionTile, a, a.queries, a.heads, 1);
  launchTiles(call, received[dtype], kBlock, kAttentionTile, a, a.keys, a.heads, 1);
}

}  // namespace gradus::cuda
