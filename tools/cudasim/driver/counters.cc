#include "counters.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace cudasim::driver {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

class JsonObject {
 public:
  JsonObject& add(const std::string& name, const std::string& value) {
    text_ += (text_.empty() ? "" : ", ") + quoted(name) + ": " + value;
    return *this;
  }
  JsonObject& add(const std::string& name, uint64_t value) { return add(name, std::to_string(value)); }
  std::string text() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

std::string toJson(const KernelCount& count) {
  const Counters& c = count.counters;
  JsonObject json, opcodes;
  json.add("launches", count.launches)
      .add("threadsPerBlock", count.threadsPerBlock)
      .add("dynamicSharedBytes", count.dynamicSharedBytes)
      .add("blocks", c.blocks)
      .add("threads", c.threads)
      .add("warpInstructions", c.warpInstructions)
      .add("threadInstructions", c.threadInstructions)
      .add("globalBytesLoaded", c.globalBytesLoaded)
      .add("globalBytesStored", c.globalBytesStored)
      .add("globalDistinctLoaded", c.globalDistinctLoaded)
      .add("globalDistinctStored", c.globalDistinctStored)
      .add("globalLoadRequests", c.globalLoadRequests)
      .add("globalStoreRequests", c.globalStoreRequests)
      .add("globalLoadSectors", c.globalLoadSectors)
      .add("globalStoreSectors", c.globalStoreSectors)
      .add("sharedBytesLoaded", c.sharedBytesLoaded)
      .add("sharedBytesStored", c.sharedBytesStored)
      .add("sharedLoadRequests", c.sharedLoadRequests)
      .add("sharedStoreRequests", c.sharedStoreRequests)
      .add("sharedLoadWavefronts", c.sharedLoadWavefronts)
      .add("sharedStoreWavefronts", c.sharedStoreWavefronts)
      .add("sharedIdealWavefronts", c.sharedIdealWavefronts)
      .add("barriers", c.barriers)
      .add("atomics", c.atomics)
      .add("divergentBranches", c.divergentBranches);
  for (const auto& [name, opcode] : c.byOpcode())
    opcodes.add(name, JsonObject().add("warps", opcode.warps).add("threads", opcode.threads).text());
  return json.add("opcodes", opcodes.text()).text();
}

}  // namespace

std::string countersJson(Driver& driver) {
  JsonObject kernels;
  for (const auto& [name, count] : driver.kernels) kernels.add(name, toJson(count));
  std::string devices;
  for (const auto& gpu : driver.gpus) {
    if (!devices.empty()) devices += ", ";
    devices += JsonObject()
                   .add("bytesInUse", gpu->memory.used())
                   .add("blocks", gpu->blocks.size())
                   .add("nanoseconds", gpu->nanoseconds)
                   .text();
  }
  const SubmittedCount& s = driver.submitted;
  const JsonObject submitted = JsonObject()
                                   .add("kernels", s.kernels)
                                   .add("tasks", s.tasks)
                                   .add("copies", s.copies)
                                   .add("hostBytes", s.hostBytes)
                                   .add("peerCopies", s.peerCopies)
                                   .add("sets", s.sets)
                                   .add("graphs", s.graphs);
  return JsonObject()
      .add("kernels", kernels.text())
      .add("devices", "[" + devices + "]")
      .add("submitted", submitted.text())
      .text();
}

namespace {

std::string nameOfFile(std::string name) {
  if (const size_t at = name.find("%p"); at != std::string::npos) name.replace(at, 2, std::to_string(getpid()));
  return name;
}

void last() {
  using namespace std::chrono_literals;
  Driver& driver = Driver::get();
  // A thread that still runs a kernel may hold the lock; the process does not wait for it for long.
  for (int tries = 0; tries < 100; ++tries) {
    if (driver.mutex.try_lock()) {
      const std::lock_guard lock(driver.mutex, std::adopt_lock);
      return writeCounters(driver, true);
    }
    std::this_thread::sleep_for(10ms);
  }
}

}  // namespace

void writeCounters(Driver& driver, bool now) {
  using Clock = std::chrono::steady_clock;
  static Clock::time_point next;
  if (driver.settings.counters.empty() || driver.kernels.empty()) return;
  if (!now && Clock::now() < next) return;
  const std::string name = nameOfFile(driver.settings.counters), part = name + ".part";
  if (FILE* file = std::fopen(part.c_str(), "w")) {
    const std::string text = countersJson(driver) + "\n";
    const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    if (std::fclose(file) == 0 && whole) std::rename(part.c_str(), name.c_str());
  }
  next = Clock::now() + std::chrono::seconds(1);
}

void writeCountersAtExit() { std::atexit(last); }

}  // namespace cudasim::driver
