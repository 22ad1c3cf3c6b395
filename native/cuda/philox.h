// The stream of random numbers that a call draws from.
#pragma once

#include "graph.h"
#include "kernels/random.h"

namespace gradus::cuda {

// Null: no graph is captured, and what a call says holds.
inline const PhiloxCell* philoxCell() {
  const Graph* graph = currentDevice().capturing();
  return graph ? graph->philox() : nullptr;
}

// Seed and offset are the first attributes.
inline PhiloxStream philoxOf(const OpCall& call) {
  return {static_cast<unsigned long long>(call.integer(0)), static_cast<unsigned long long>(call.integer(1)),
          philoxCell()};
}

}  // namespace gradus::cuda
