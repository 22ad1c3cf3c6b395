#pragma once

#include <string>
#include <vector>

namespace cudasim {

// The instruction sets that the interpreter was built for and this processor has, the best first: CUDASIM_ISA chooses.
std::vector<std::string> interpreters();

}  // namespace cudasim
