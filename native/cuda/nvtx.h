// Ranges for profilers (Nsight Systems and others), by NVTX's own protocol: a tool that watches the process names its
// library in NVTX_INJECTION64_PATH. Without one these do nothing.
#pragma once

namespace gradus::cuda::nvtx {

// Whether a tool listens.
bool isWatched();
// Of the calling thread: ranges nest.
void rangePush(const char* message);
void rangePop();
void mark(const char* message);

}  // namespace gradus::cuda::nvtx
