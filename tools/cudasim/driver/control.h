// The simulator's own entry points. A program under test finds them with dlsym; a real driver has none of them.
#pragma once

#include <cstddef>

extern "C" {

#define CUDASIM_OWN __attribute__((visibility("default")))

// Applies settings, `name=value` words separated by spaces or semicolons (settings.h). 0, or -1 for words that it does
// not know (nothing is applied then, and the report says why). `reset` alone: faults off, report and counters empty.
// Contexts and memory stay.
CUDASIM_OWN int cudasimControl(const char* words);

// All findings so far, a line each; the return value is the length without the final zero, whatever fits is written.
CUDASIM_OWN size_t cudasimReport(char* text, size_t bytes);
CUDASIM_OWN int cudasimFindings();
// The calls that returned an error, with the reason.
CUDASIM_OWN size_t cudasimFailedCalls(char* text, size_t bytes);
// JSON: {"kernels": {"name": {"launches": 1, "threadInstructions": ..., ...}}, "devices": [...],
// "submitted": {"kernels": ..., "tasks": ..., "copies": ..., "hostBytes": ..., "peerCopies": ..., "sets": ...,
// "graphs": ...}}. Kernels count when they run, what is submitted at the call; kernels of a graph that is launched are
// among the first alone. Tasks are those of other libraries. Of the copies, hostBytes are those from or to the host,
// and peerCopies are between devices.
CUDASIM_OWN size_t cudasimCounters(char* text, size_t bytes);
// What this thread's allocations are called from now on; null or empty: by their call.
CUDASIM_OWN void cudasimLabel(const char* label);
}
