// Modifiers in Insn::sub of barriers and exchanges, shared by decoders and handlers.
#pragma once

#include <cstdint>

namespace cudasim {

constexpr uint16_t kBarAligned = 1, kBarCount = 2, kBarArrive = 4, kBarReduce = 8, kBarNegated = 16;
constexpr uint16_t kBarPopc = 0, kBarAnd = 32, kBarOr = 64;

constexpr uint16_t kShflUp = 0, kShflDown = 1, kShflBfly = 2, kShflIdx = 3, kShflPredicate = 4;
constexpr uint16_t kVoteAll = 0, kVoteAny = 1, kVoteUni = 2, kVoteBallot = 3, kVoteNegated = 4;
constexpr uint16_t kMatchAll = 1, kMatchPredicate = 2;
constexpr uint16_t kReduxAdd = 0, kReduxMin = 1, kReduxMax = 2, kReduxAnd = 3, kReduxOr = 4, kReduxXor = 5,
                   kReduxSigned = 8;

}  // namespace cudasim
