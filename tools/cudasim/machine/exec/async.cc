// cp.async and ldmatrix.
//
// A copy moves its bytes at once but marks the destination as in flight until the issuing thread waits: whoever touches
// it before then is wrong, whatever the hardware's timing. The wait counts as the moment of the write, so other threads
// need a barrier after it.
#include <cstring>

#include "reach.h"
#include "tiles.h"

namespace cudasim {
namespace CUDASIM_ISA {

namespace {

// r: shared address, global address, source size, predicate that ignores the source; imm: both displacements.
void copyAsync(Warp& w, const Insn& in, uint32_t exec) {
  const uint32_t bytes = in.count;
  uint64_t to[32], from[32];
  addresses(w, in, 0, in.sub & kAddress32, static_cast<int32_t>(in.imm), to);
  addresses(w, in, 1, false, in.imm >> 32, from);
  uint32_t whole = exec, partial = 0;
  if (in.sub & kSourceSize) {
    const uint32_t* size = w.row<uint32_t>(in.r[2]);
    whole = partial = 0;
    eachLane(exec, [&](int i) {
      if (size[i] > bytes)
        w.fault(Fault::kUndefinedResult, in, i,
                "a source of " + std::to_string(size[i]) + " bytes for a copy of " + std::to_string(bytes));
      if (size[i] >= bytes)
        whole |= 1u << i;
      else if (size[i])
        partial |= 1u << i;
    });
  }
  if (in.sub & kIgnoreSource) {
    const uint32_t ignored = w.predicates[in.r[3]];
    whole &= ~ignored;
    partial &= ~ignored;
  }
  alignas(64) uint8_t value[32 * 16] = {};  // what is not read is zero
  const auto fetch = [&](uint32_t lanes, uint32_t size) {
    eachGlobal(
        w, in, lanes, from, size, bytes, false, [&](const Region& region, uint32_t here, const uint64_t* offset) {
          const Pattern& p = look(w, in, region, offset, here, size);
          count(w, region, p, false);
          checkRead(w, in, region, p, offset);
          eachLane(here,
                   [&](int i) { copyPiece(value + static_cast<uint32_t>(i) * bytes, region.data + offset[i], size); });
        });
  };
  if (whole) fetch(whole, bytes);
  eachLane(partial, [&](int i) { fetch(1u << i, w.row<uint32_t>(in.r[2])[i]); });
  eachShared(w, in, exec, to, bytes, true, [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
    const Pattern& p = look(w, in, region, offset, lanes, bytes);
    count(w, region, p, true);
    checkedWrite(w, in, region, p, offset, value);
    AsyncCopy& copy = w.copies.emplace_back();
    copy.lanes = lanes;
    copy.bytes = bytes;
    copy.group = w.commits;
    eachLane(lanes, [&](int i) {
      copy.to[i] = static_cast<uint32_t>(offset[i]);
      markPiece(region.valid + offset[i], kInFlight, bytes);
    });
  });
}

void commit(Warp& w, const Insn&, uint32_t exec) {
  eachLane(exec, [&](int i) { ++w.commits[i]; });
}

// Completes the copies of `exec` lanes in groups before the last `pending` ones.
void complete(Warp& w, uint32_t exec, uint64_t pending, bool uncommitted) {
  const Region& region = w.block->shared;
  const uint64_t key = w.key();
  for (AsyncCopy& copy : w.copies)
    eachLane(copy.lanes & exec, [&](int i) {
      if (!uncommitted && copy.group[i] + pending >= w.commits[i]) return;
      copy.lanes &= ~(1u << i);
      markPiece(region.valid + copy.to[i], kWritten, copy.bytes);
      if (!region.writers) return;
      const uint64_t first = copy.to[i] >> region.shift;
      for (uint64_t k = 0; k < granules(region, copy.bytes); ++k)
        region.writers[first + k] = key + static_cast<uint64_t>(i);
    });
  std::erase_if(w.copies, [](const AsyncCopy& c) { return !c.lanes; });
}

void waitGroup(Warp& w, const Insn& in, uint32_t exec) { complete(w, exec, static_cast<uint64_t>(in.imm), false); }
void waitAll(Warp& w, const Insn&, uint32_t exec) { complete(w, exec, 0, true); }

// r: address, registers. Matrix m's rows are at the addresses of lanes 8 m to 8 m + 7; lane i gets the pair of row i /
// 4 at column 2 (i % 4), or with .trans of the transposed matrix.
void loadMatrix(Warp& w, const Insn& in, uint32_t exec) {
  exec = w.meet(in, exec, nullptr, true);
  if (!exec) return;
  if (exec != ~0u) w.fault(Fault::kBadMemberMask, in, std::countr_zero(exec), "ldmatrix needs all 32 lanes");
  uint64_t address[32];
  addresses(w, in, 0, in.sub & kAddress32, in.imm, address);
  const uint32_t rows = in.count == 4 ? ~0u : (1u << 8 * in.count) - 1;
  alignas(64) uint16_t value[4][64] = {};
  eachShared(w, in, rows & exec, address, 16, false, [&](const Region& region, uint32_t lanes, const uint64_t* offset) {
    const Pattern& p = look(w, in, region, offset, lanes, 16);
    count(w, region, p, false);
    checkRead(w, in, region, p, offset);
    eachLane(lanes, [&](int i) { std::memcpy(value[i / 8] + i % 8 * 8, region.data + offset[i], 16); });
  });
  for (int m = 0; m < in.count; ++m) {
    auto* d = w.row<uint16_t>(in.r[1 + m]);
    if (in.sub & kTranspose)
      transpose(value[m & 3], d);
    else
      std::memcpy(d, value[m & 3], sizeof value[0]);
  }
}

// r: destination, source: an 8 x 8 matrix in fragments, transposed.
void transposeMatrix(Warp& w, const Insn& in, uint32_t exec) {
  exec = w.meet(in, exec, nullptr, true);
  if (!exec) return;
  if (exec != ~0u) w.fault(Fault::kBadMemberMask, in, std::countr_zero(exec), "movmatrix needs all 32 lanes");
  transpose(w.row<uint16_t>(in.r[1]), w.row<uint16_t>(in.r[0]));
}

}  // namespace

void registerAsync(Registry& r) {
  r.add("@cp.async", &copyAsync);
  r.add("@cp.commit", &commit);
  r.add("@cp.wait_group", &waitGroup);
  r.add("@cp.wait_all", &waitAll);
  r.add("@ldmatrix", &loadMatrix);
  r.add("@movmatrix", &transposeMatrix);
}

}  // namespace CUDASIM_ISA
}  // namespace cudasim
