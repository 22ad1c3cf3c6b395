#include "registry.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "../interpreters.h"

namespace cudasim {

void Registry::add(std::string name, Handler run, std::string signature) {
  entries_.insert_or_assign(std::move(name), OpEntry{run, std::move(signature)});
}

const OpEntry* Registry::find(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

namespace {

struct Build {
  const char* isa;
  bool runs;  // on this processor
  void (*registerAll)(Registry&);
};

// The best first.
std::vector<Build> allBuilds() {
  std::vector<Build> builds;
#if defined(CUDASIM_HAVE_AVX2) || defined(CUDASIM_HAVE_AVX512)
  __builtin_cpu_init();
  [[maybe_unused]] const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                     __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
#endif
#ifdef CUDASIM_HAVE_AVX512
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  builds.push_back({"avx512", avx512, &isa_avx512::registerAll});
#endif
#ifdef CUDASIM_HAVE_AVX2
  builds.push_back({"avx2", avx2, &isa_avx2::registerAll});
#endif
#ifdef CUDASIM_HAVE_BASE
  builds.push_back({"base", true, &isa_base::registerAll});
#endif
  return builds;
}

}  // namespace

std::vector<std::string> interpreters() {
  std::vector<std::string> names;
  for (const Build& b : allBuilds())
    if (b.runs) names.push_back(b.isa);
  return names;
}

const Registry& Registry::get() {
  static const Registry registry = [] {
    const std::vector<Build> builds = allBuilds();
    const char* asked = std::getenv("CUDASIM_ISA");  // base, avx2: to test what other processors run
    const Build* best = nullptr;
    for (const Build& b : builds)
      if (b.runs && (asked ? std::strcmp(b.isa, asked) == 0 : !best)) best = &b;
    if (!best)
      throw std::runtime_error(std::string("cudasim was not built for ") + (asked ? asked : "this processor") +
                               "; see CUDASIM_ISAS in its CMakeLists.txt");
    Registry r;
    best->registerAll(r);
    return r;
  }();
  return registry;
}

}  // namespace cudasim
