#include "control.h"

#include <cstring>
#include <stdexcept>

#include "counters.h"
#include "memory.h"

namespace cudasim::driver {
namespace {

size_t give(const std::string& text, char* to, size_t bytes) {
  if (to && bytes) {
    const size_t fits = std::min(text.size(), bytes - 1);
    std::memcpy(to, text.data(), fits);
    to[fits] = '\0';
  }
  return text.size();
}

}  // namespace
}  // namespace cudasim::driver

using cudasim::driver::Driver;

int cudasimControl(const char* words) {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  if (words && std::strcmp(words, "reset") == 0) {
    auto& settings = driver.settings;
    settings.failAllocation = settings.failHostAllocation = settings.failLaunch = 0;
    settings.failCollective = settings.breakCollective = 0;
    settings.failAllocations = 1;
    settings.lostDevice = -1;
    settings.paused = false;
    driver.scheduler.setPaused(false);
    driver.report.clear();
    driver.kernels.clear();
    driver.submitted = {};
    return 0;
  }
  try {
    cudasim::driver::Settings next = driver.settings;
    next.apply(words ? words : "");
    driver.settings = std::move(next);
    driver.applySettings();
    return 0;
  } catch (const std::exception& error) {
    driver.report.finding("bad setting", error.what());
    return -1;
  }
}

size_t cudasimReport(char* text, size_t bytes) {
  return cudasim::driver::give(Driver::get().report.text(), text, bytes);
}

int cudasimFindings() { return Driver::get().report.findings(); }

size_t cudasimFailedCalls(char* text, size_t bytes) {
  return cudasim::driver::give(Driver::get().report.calls(), text, bytes);
}

size_t cudasimCounters(char* text, size_t bytes) {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  return cudasim::driver::give(cudasim::driver::countersJson(driver), text, bytes);
}

void cudasimLabel(const char* label) { cudasim::driver::allocationLabel() = label ? label : ""; }
