// Tests of the driver. Each runs in a process of its own, which loads the built library as a program would: the
// environment of the simulator is read once, and a fault is sticky.
//
//   DRIVER_TEST("streams: a wait orders the host", "CUDASIM_SEED=3") { ... cu.cuStreamSynchronize(stream) ... }
#pragma once

#include <cstring>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../driver/types.h"

namespace cudasim::test {

using namespace abi;

// The library's entry points, looked up by dlsym; null where it has none.
struct Cuda {
#define CUDASIM_API(symbol, base, version, parameters) CUresult(*symbol) parameters = nullptr;
#include "../driver/api.def"
#undef CUDASIM_API
  int (*control)(const char*) = nullptr;
  size_t (*report)(char*, size_t) = nullptr;
  size_t (*counters)(char*, size_t) = nullptr;
  void (*label)(const char*) = nullptr;

  CUcontext context = nullptr;  // of device 0, current

  std::string findings() const;
  std::string counts() const;
  // Conveniences for what nearly every test does.
  CUcontext use(int device);
  CUstream stream(unsigned flags = CU_STREAM_NON_BLOCKING);
  CUdeviceptr device(size_t bytes);
  template <class T = uint32_t>
  T* pinned(size_t count) {
    void* host = nullptr;
    cuMemAllocHost_v2(&host, count * sizeof(T));
    return static_cast<T*>(host);
  }
  CUfunction kernel(const char* name);  // of kKernels
  CUresult launch(CUfunction function, unsigned grid, unsigned block, CUstream stream, std::vector<void*> params,
                  unsigned shared = 0);
  CUresult fill(CUdeviceptr out, uint32_t value, uint32_t count, CUstream stream);       // out[i] = value
  CUresult increment(CUdeviceptr in, CUdeviceptr out, uint32_t count, CUstream stream);  // out[i] = in[i] + 1
};

extern const char* const kKernels;  // PTX: fill, increment, misaligned, sharedSum, bounded; variable `counter`

struct Test {
  const char* name;
  const char* environment;  // "NAME=value NAME=value"
  void (*body)(Cuda& cu);
  bool initialize;
};
std::vector<Test>& tests();
void failure(const char* file, int line, const std::string& text);

template <class A, class B>
void equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B>) {
    if (std::cmp_equal(a, b)) return;
  } else {
    if (a == b) return;
  }
  std::ostringstream out;
  out << text << ": got " << a << ", expected " << b;
  failure(file, line, out.str());
}

void contains(const std::string& text, const std::string& part, const char* file, int line);

struct Registration {
  Registration(const char* name, const char* environment, void (*body)(Cuda&), bool initialize) {
    tests().push_back({name, environment, body, initialize});
  }
};

#define CUDASIM_JOIN2(a, b) a##b
#define CUDASIM_JOIN(a, b) CUDASIM_JOIN2(a, b)
#define DRIVER_TEST_OF(name, environment, initialize)                                                             \
  static void CUDASIM_JOIN(body, __LINE__)(Cuda & cu);                                                            \
  static const Registration CUDASIM_JOIN(registration, __LINE__)(name, environment, CUDASIM_JOIN(body, __LINE__), \
                                                                 initialize);                                     \
  static void CUDASIM_JOIN(body, __LINE__)([[maybe_unused]] Cuda & cu)
#define DRIVER_TEST(name, environment) DRIVER_TEST_OF(name, environment, true)
// Without cuInit and a current context.
#define BARE_TEST(name, environment) DRIVER_TEST_OF(name, environment, false)

#define EXPECT(condition) ((condition) ? void() : cudasim::test::failure(__FILE__, __LINE__, #condition))
#define EXPECT_EQ(a, b) cudasim::test::equal((a), (b), #a, __FILE__, __LINE__)
#define EXPECT_OK(call) cudasim::test::equal(static_cast<int>(call), 0, #call, __FILE__, __LINE__)
#define EXPECT_STATUS(call, status) \
  cudasim::test::equal(static_cast<int>(call), static_cast<int>(status), #call, __FILE__, __LINE__)
#define EXPECT_FOUND(part) cudasim::test::contains(cu.findings(), part, __FILE__, __LINE__)
#define EXPECT_CLEAN() cudasim::test::equal(cu.findings(), std::string(), "findings", __FILE__, __LINE__)

}  // namespace cudasim::test
