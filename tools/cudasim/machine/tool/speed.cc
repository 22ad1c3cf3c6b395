// cudasim-speed DIRECTORY [KERNEL]: thread instructions a second of the interpreter, all checks on, one host thread, on
// the kernels of the smoke tests whose PTX lies in DIRECTORY.
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>

#include "../machine.h"

namespace {

using namespace cudasim;

std::string read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read '" + path + "'");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Of this thread, which runs the blocks itself: what others do on the machine does not count.
double processorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Case {
  const char *file, *kernel;
  Dim3 grid, block;
  std::vector<size_t> arrays;  // bytes of the pointer parameters
  std::vector<int> numbers;    // the rest
};

void measure(const std::string& directory, const Case& c) {
  const auto module = loadModule(read(directory + "/" + c.file + ".ptx"));
  Memory memory(0);
  const ModuleInstance instance(module, memory);
  Device device{.memory = &memory};
  const Kernel* kernel = module->find(c.kernel);
  std::vector<std::byte> params(kernel->paramBytes);
  size_t at = 0;
  for (const size_t bytes : c.arrays) {
    const uint64_t address = memory.allocate(bytes, "array");
    memory.set(address, 0, 4, bytes / 4);
    std::memcpy(params.data() + kernel->params[at++].offset, &address, 8);
  }
  for (const int n : c.numbers) std::memcpy(params.data() + kernel->params[at++].offset, &n, 4);
  const Launch launch{.kernel = kernel, .instance = &instance, .grid = c.grid, .block = c.block, .params = params};
  double best = 1e9;
  Counters counters;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double begin = processorSeconds();
    counters = cudasim::launch(device, launch, {.hostThreads = 1});
    best = std::min(best, processorSeconds() - begin);
  }
  std::printf("%-14s %9.2f ms %8.0f M thread instructions/s %7.0f ns a warp instruction\n", c.kernel, best * 1e3,
              static_cast<double>(counters.threadInstructions) / best * 1e-6,
              best * 1e9 / static_cast<double>(counters.warpInstructions));
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) return std::fputs("usage: cudasim-speed DIRECTORY [KERNEL]\n", stderr), 2;
  const size_t big = size_t{1} << 22;
  const std::vector<Case> cases = {
      {"basics", "vectorAdd", {2048}, {256}, {big, big, big}, {1 << 19}},
      {"basics", "blockSum", {64}, {256}, {big, 256}, {1 << 20}},
      {"basics", "onlineSoftmax", {128}, {128}, {big, big}, {512, 1024}},
      {"basics", "histogram", {64}, {256}, {big, 256}, {1 << 20}},
      {"basics", "philox", {512}, {256}, {big}, {0, 0, 131072}},
      {"gemm", "gemmTiled", {8, 8}, {16, 16}, {big, big, big}, {256, 256, 256}},
      {"gemm", "gemmMma", {4, 4}, {128}, {big, big, big}, {256, 256, 512}},
  };
  try {
    for (const Case& c : cases)
      if (count == 2 || std::strcmp(c.kernel, words[2]) == 0) measure(words[1], c);
  } catch (const std::exception& e) {
    return std::fprintf(stderr, "%s\n", e.what()), 1;
  }
}
