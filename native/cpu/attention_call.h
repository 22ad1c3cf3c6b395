// From an operator's call to what its kernels work with.
#pragma once

#include "attention.h"

namespace gradus::cpu {

// The operands of a call: attributes are those that attention, attentionBackward and attentionStatistics begin with;
// the optional operands (mask, query offsets, key offsets or lengths, block mask) begin at `optional`.
// Throws when offsets or lengths do not describe the operands.
Attention describeAttention(const OpCall& call, const TensorView* q, const TensorView* k, const TensorView* v,
                            int optional);

}  // namespace gradus::cpu
