// Runs every driver test in a child process. One line a failure; the last line is "N passed, N failed".
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "driver_test.h"

namespace cudasim::test {

const char* const kKernels = R"(
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter = 7;

.visible .entry fill(.param .u64 fill_out, .param .u32 fill_value, .param .u32 fill_count)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [fill_out];
  ld.param.u32 %r1, [fill_value];
  ld.param.u32 %r2, [fill_count];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r2;
  @%p1 bra $fill_end;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r6, 4;
  add.s64 %rd4, %rd2, %rd3;
  st.global.u32 [%rd4], %r1;
$fill_end:
  ret;
}

.visible .entry increment(.param .u64 increment_in, .param .u64 increment_out, .param .u32 increment_count)
{
  .reg .pred %p<2>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [increment_in];
  ld.param.u64 %rd2, [increment_out];
  ld.param.u32 %r1, [increment_count];
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %ntid.x;
  mov.u32 %r5, %tid.x;
  mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.u32 %p1, %r6, %r1;
  @%p1 bra $increment_end;
  cvta.to.global.u64 %rd3, %rd1;
  cvta.to.global.u64 %rd4, %rd2;
  mul.wide.u32 %rd5, %r6, 4;
  add.s64 %rd6, %rd3, %rd5;
  add.s64 %rd7, %rd4, %rd5;
  ld.global.u32 %r7, [%rd6];
  add.s32 %r7, %r7, 1;
  st.global.u32 [%rd7], %r7;
$increment_end:
  ret;
}

.visible .entry misaligned(.param .u64 misaligned_out)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [misaligned_out];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, 1;
  st.global.u32 [%rd2+2], %r1;
  ret;
}

.visible .entry bounded() .maxntid 64, 1, 1
{
  ret;
}

.extern .shared .align 16 .b8 dynamic[];

.visible .entry sharedOut(.param .u64 sharedOut_out, .param .u32 sharedOut_bytes)
{
  .reg .b32 %r<4>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [sharedOut_out];
  ld.param.u32 %r1, [sharedOut_bytes];
  mov.u32 %r2, dynamic;
  add.s32 %r2, %r2, %r1;
  st.shared.u32 [%r2+-4], %r1;
  ld.shared.u32 %r3, [%r2+-4];
  cvta.to.global.u64 %rd2, %rd1;
  st.global.u32 [%rd2], %r3;
  ret;
}
)";

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

namespace {

int failures = 0;
const char* running = "";

template <class Function>
void look(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

bool load(Cuda& cu, const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    failure("dlopen", 0, dlerror());
    return false;
  }
#define CUDASIM_API(symbol, base, version, parameters) look(library, #symbol, cu.symbol);
#include "../driver/api.def"
#undef CUDASIM_API
  look(library, "cudasimControl", cu.control);
  look(library, "cudasimReport", cu.report);
  look(library, "cudasimCounters", cu.counters);
  look(library, "cudasimLabel", cu.label);
  return true;
}

void setEnvironment(const char* words) {
  std::istringstream in(words);
  for (std::string word; in >> word;) {
    const size_t equals = word.find('=');
    setenv(word.substr(0, equals).c_str(), word.substr(equals + 1).c_str(), 1);
  }
}

int runChild(const Test& test, const std::string& library) {
  running = test.name;
  setEnvironment(test.environment);
  Cuda cu;
  if (!load(cu, library)) return 1;
  if (test.initialize) {
    if (cu.cuInit(0) != CUDA_SUCCESS) failure("cuInit", 0, "failed");
    cu.context = cu.use(0);
  }
  test.body(cu);
  return failures != 0;
}

}  // namespace

void failure(const char* file, int line, const std::string& text) {
  ++failures;
  const char* base = std::strrchr(file, '/');
  std::cout << "FAIL " << running << " (" << (base ? base + 1 : file) << ":" << line << ") " << text << std::endl;
}

void contains(const std::string& text, const std::string& part, const char* file, int line) {
  if (text.find(part) == std::string::npos) failure(file, line, "expected '" + part + "' in: " + text);
}

std::string Cuda::findings() const {
  std::string text(report(nullptr, 0), '\0');
  report(text.data(), text.size() + 1);
  return text;
}

std::string Cuda::counts() const {
  std::string text(counters(nullptr, 0), '\0');
  counters(text.data(), text.size() + 1);
  return text;
}

CUcontext Cuda::use(int device) {
  CUcontext made = nullptr;
  EXPECT_OK(cuDevicePrimaryCtxRetain(&made, device));
  EXPECT_OK(cuCtxSetCurrent(made));
  return made;
}

CUstream Cuda::stream(unsigned flags) {
  CUstream made = nullptr;
  EXPECT_OK(cuStreamCreate(&made, flags));
  return made;
}

CUdeviceptr Cuda::device(size_t bytes) {
  CUdeviceptr address = 0;
  EXPECT_OK(cuMemAlloc_v2(&address, bytes));
  return address;
}

CUfunction Cuda::kernel(const char* name) {
  CUmodule module = nullptr;
  CUfunction function = nullptr;
  EXPECT_OK(cuModuleLoadData(&module, kKernels));
  EXPECT_OK(cuModuleGetFunction(&function, module, name));
  return function;
}

CUresult Cuda::launch(CUfunction function, unsigned grid, unsigned block, CUstream stream, std::vector<void*> params,
                      unsigned shared) {
  return cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, params.data(), nullptr);
}

CUresult Cuda::fill(CUdeviceptr out, uint32_t value, uint32_t count, CUstream stream) {
  return launch(kernel("fill"), (count + 63) / 64, 64, stream, {&out, &value, &count});
}

CUresult Cuda::increment(CUdeviceptr in, CUdeviceptr out, uint32_t count, CUstream stream) {
  return launch(kernel("increment"), (count + 63) / 64, 64, stream, {&in, &out, &count});
}

}  // namespace cudasim::test

// cudasim-driver-test [LIBRARY [words that a test's name must contain]]
int main(int argc, char** argv) {
  using namespace cudasim::test;
  const std::string library = argc > 1 ? argv[1] : CUDASIM_TEST_LIBRARY;
  int passed = 0, failed = 0;
  for (const Test& test : tests()) {
    if (argc > 2 && !std::strstr(test.name, argv[2])) continue;
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      const int status = runChild(test, library);
      std::cout.flush();
      _exit(status);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) std::cout << "FAIL " << test.name << " ended by signal " << WTERMSIG(status) << std::endl;
    ++(status == 0 ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed != 0;
}
