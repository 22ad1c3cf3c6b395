#include "settings.h"

#include <cctype>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>

namespace cudasim::driver {
namespace {

[[noreturn]] void reject(std::string_view word) {
  throw std::invalid_argument("cudasim: cannot understand setting '" + std::string(word) + "'");
}

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit = text.substr(end - text.data());
  if (error != std::errc() || unit.size() > 1) reject(text);
  if (unit.empty()) return value;
  switch (unit[0]) {
    case 'K':
      return value << 10;
    case 'M':
      return value << 20;
    case 'G':
      return value << 30;
  }
  reject(text);
}

int integer(std::string_view text) {
  if (text == "-1") return -1;
  return static_cast<int>(number(text));
}

template <class Each>
void split(std::string_view text, std::string_view separators, Each each) {
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(separators), text.size());
    if (end) each(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void setChecks(Settings& s, std::string_view list) {
  const std::map<std::string_view, bool Settings::*> names = {
      {"memory", &Settings::checkMemory},     {"initialized", &Settings::checkInitialized},
      {"races", &Settings::checkRaces},       {"lanes", &Settings::checkLanes},
      {"warps", &Settings::checkWarpSync},    {"streams", &Settings::checkStreams},
      {"contexts", &Settings::checkContexts}, {"leaks", &Settings::leaks},
  };
  split(list, ",", [&](std::string_view word) {
    if (word == "all" || word == "none") {
      for (const auto& [name, member] : names) s.*member = word == "all";
      return;
    }
    const bool on = word[0] != '-';
    const auto found = names.find(on ? word : word.substr(1));
    if (found == names.end()) reject(word);
    s.*(found->second) = on;
  });
}

using Setter = std::function<void(Settings&, std::string_view)>;

const std::map<std::string_view, Setter>& setters() {
  static const std::map<std::string_view, Setter> table = {
      {"devices", [](Settings& s, std::string_view v) { s.devices = integer(v); }},
      {"memory", [](Settings& s, std::string_view v) { s.memory = number(v); }},
      {"driverVersion", [](Settings& s, std::string_view v) { s.driverVersion = integer(v); }},
      {"peers", [](Settings& s, std::string_view v) { s.peers = number(v) != 0; }},
      {"missing",
       [](Settings& s, std::string_view v) { split(v, ",", [&](std::string_view name) { s.missing.emplace(name); }); }},
      {"failAllocation", [](Settings& s, std::string_view v) { s.failAllocation = number(v); }},
      {"failAllocations", [](Settings& s, std::string_view v) { s.failAllocations = number(v); }},
      {"failHostAllocation", [](Settings& s, std::string_view v) { s.failHostAllocation = number(v); }},
      {"failLaunch", [](Settings& s, std::string_view v) { s.failLaunch = number(v); }},
      {"failCollective", [](Settings& s, std::string_view v) { s.failCollective = number(v); }},
      {"breakCollective", [](Settings& s, std::string_view v) { s.breakCollective = number(v); }},
      {"lostDevice", [](Settings& s, std::string_view v) { s.lostDevice = integer(v); }},
      {"stuckCollective", [](Settings& s, std::string_view v) { s.stuckCollective = integer(v); }},
      {"seed", [](Settings& s, std::string_view v) { s.seed = number(v); }},
      {"progress", [](Settings& s, std::string_view v) { s.progress = integer(v); }},
      {"paused", [](Settings& s, std::string_view v) { s.paused = number(v) != 0; }},
      {"recordOnly", [](Settings& s, std::string_view v) { s.recordOnly = number(v) != 0; }},
      {"threads", [](Settings& s, std::string_view v) { s.threads = integer(v); }},
      {"ulp", [](Settings& s, std::string_view v) { s.ulp = integer(v); }},
      {"watchdog", [](Settings& s, std::string_view v) { s.watchdog = number(v); }},
      {"checks", setChecks},
      {"report", [](Settings& s, std::string_view v) { s.report = v; }},
      {"counters", [](Settings& s, std::string_view v) { s.counters = v; }},
  };
  return table;
}

// failAllocation -> CUDASIM_FAIL_ALLOCATION
std::string variableOf(std::string_view name) {
  std::string variable = "CUDASIM_";
  for (const char c : name) {
    if (std::isupper(static_cast<unsigned char>(c))) variable += '_';
    variable += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

// How many of `devices` a list such as "1,0" names. As in the driver, the first word that names none ends the list.
int visibleOf(std::string_view list, int devices) {
  std::set<int> named;
  while (!list.empty()) {
    const std::string_view word = list.substr(0, list.find(','));
    int index = -1;
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), index);
    if (problem != std::errc{} || end != word.data() + word.size() || index < 0 || index >= devices) break;
    if (!named.insert(index).second) return 0;  // twice the same: the driver takes none
    list.remove_prefix(std::min(list.size(), word.size() + 1));
  }
  return static_cast<int>(named.size());
}

}  // namespace

void Settings::apply(std::string_view words) {
  split(words, " ;\n", [&](std::string_view word) {
    const size_t equals = word.find('=');
    const auto setter = setters().find(word.substr(0, equals));
    if (equals == std::string_view::npos || setter == setters().end()) reject(word);
    setter->second(*this, word.substr(equals + 1));
  });
}

void Settings::applyEnvironment() {
  for (const auto& [name, set] : setters())
    if (const char* value = std::getenv(variableOf(name).c_str())) set(*this, value);
  if (const char* list = std::getenv("CUDA_VISIBLE_DEVICES")) devices = visibleOf(list, devices);
}

Options Settings::options() const {
  Options options;
  options.checkMemory = checkMemory;
  options.checkInitialized = checkInitialized;
  options.checkRaces = checkRaces;
  options.checkLanes = checkLanes;
  options.checkWarpSync = checkWarpSync;
  options.seed = seed;
  options.ulpPerturbation = ulp;
  options.hostThreads = threads;
  if (watchdog) options.watchdog = watchdog;
  return options;
}

}  // namespace cudasim::driver
