// Host threads that stay between launches: to start some for each would take longer than most launches do.
#pragma once

#include <functional>

namespace cudasim {

// Calls work(0) here and work(1) ... work(count - 1) on other threads, as far as those come by before work(0) has
// returned; none is running any more when this returns. `work` does not throw, and whoever comes late finds none left.
void runTogether(int count, const std::function<void(int)>& work);

}  // namespace cudasim
