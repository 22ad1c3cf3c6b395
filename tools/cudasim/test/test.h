// A small test harness: CUDASIM_TEST("what holds") { ... CHECK(condition) ... }, and a bench to run kernels on.
#pragma once

#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "../machine/machine.h"

namespace cudasim::test {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Skip : std::runtime_error {  // the test needs something that is not here
  using std::runtime_error::runtime_error;
};

bool add(const char* name, std::function<void()> run);

#define CUDASIM_JOIN2(a, b) a##b
#define CUDASIM_JOIN(a, b) CUDASIM_JOIN2(a, b)
#define CUDASIM_TEST(name)                                                                                     \
  static void CUDASIM_JOIN(test, __LINE__)();                                                                  \
  static const bool CUDASIM_JOIN(added, __LINE__) = ::cudasim::test::add(name, &CUDASIM_JOIN(test, __LINE__)); \
  static void CUDASIM_JOIN(test, __LINE__)()

template <class A, class B>
void expectEqual(const A& got, const B& expected, const char* what, int line) {
  if (got == expected) return;
  std::ostringstream text;
  text << "line " << line << ": " << what << ": got " << got << ", expected " << expected;
  throw Failure(text.str());
}
#define CHECK(condition) \
  if (!(condition)) throw ::cudasim::test::Failure("line " + std::to_string(__LINE__) + ": " #condition)
#define EXPECT_EQ(got, expected) ::cudasim::test::expectEqual(got, expected, #got, __LINE__)

// The largest |got - expected| / (1 + |expected|).
double worstError(const std::vector<float>& got, const std::vector<double>& expected);

// The PTX that nvcc made at build time of test/kernels/<name>.cu; skips the test when there was no nvcc.
std::string compiled(const std::string& name);

// A device with a module on it.
class Bench {
 public:
  explicit Bench(std::string_view ptx) : module(loadModule(ptx)), instance(module, memory) { device.memory = &memory; }

  template <class T>
  uint64_t put(const std::vector<T>& values, const std::string& label = "input") {
    const uint64_t address = memory.allocate(values.size() * sizeof(T), label);
    memory.copyIn(address, values.data(), values.size() * sizeof(T));
    return address;
  }
  uint64_t space(size_t bytes, const std::string& label = "output") { return memory.allocate(bytes, label); }
  template <class T>
  std::vector<T> get(uint64_t address, size_t count) {
    std::vector<T> values(count);
    EXPECT_EQ(memory.uninitializedBytes(address, count * sizeof(T)), 0u);
    memory.copyOut(values.data(), address, count * sizeof(T));
    return values;
  }

  template <class... Args>
  Counters run(const char* name, Dim3 grid, Dim3 block, const Args&... args) {
    const Kernel* kernel = module->find(name);
    if (!kernel) throw Failure(std::string("no kernel '") + name + "'");
    std::vector<std::byte> params(kernel->paramBytes);
    size_t i = 0;
    const auto put = [&](const auto& value) {
      const Kernel::Param& p = kernel->params.at(i++);
      if (p.bytes != sizeof value)
        throw Failure("argument " + std::to_string(i) + " has " + std::to_string(sizeof value) + " bytes, expected " +
                      std::to_string(p.bytes));
      std::memcpy(params.data() + p.offset, &value, sizeof value);
    };
    (put(args), ...);
    EXPECT_EQ(i, kernel->params.size());
    return launch(device,
                  {.kernel = kernel,
                   .instance = &instance,
                   .grid = grid,
                   .block = block,
                   .dynamicShared = dynamicShared,
                   .maxDynamicShared = 163 << 10,
                   .params = params,
                   .cooperative = cooperative},
                  options);
  }
  // Runs and returns the fault, which must come.
  template <class... Args>
  Finding fails(const char* name, Dim3 grid, Dim3 block, const Args&... args) {
    try {
      run(name, grid, block, args...);
    } catch (const SimError& e) {
      return e.finding;
    }
    throw Failure("no fault was found");
  }

  std::shared_ptr<const Module> module;
  Memory memory{0};
  ModuleInstance instance;
  Device device;
  Options options;
  uint32_t dynamicShared = 0;
  bool cooperative = false;
};

}  // namespace cudasim::test
