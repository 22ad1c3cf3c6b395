// What the host tells a captured graph before each replay: numbers that it would otherwise pass with the launches.
#pragma once

namespace gradus::cuda {

// The stream of random numbers: operations of a graph use this key, and their own offsets moved on by so much.
struct PhiloxCell {
  unsigned long long key, moved;
};

constexpr int kMostRates = 254;

struct GraphCells {
  PhiloxCell philox;
  double rates[kMostRates];  // learning rates, one a launcher of an optimizer's step
};

}  // namespace gradus::cuda
