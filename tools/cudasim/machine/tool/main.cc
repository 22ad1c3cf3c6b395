// cudasim-run: loads a PTX file and runs one of its kernels.
//
//   cudasim-run k.ptx axpy --grid 4 --block 256 f32=2 f32[1024]=iota out:f32[1024] s32=1024
//
// Arguments in the kernel's order: TYPE=VALUE is a number; TYPE[COUNT]=iota|zero|random|VALUE is an array on the
// device; out:TYPE[COUNT] is an array that is printed afterwards and starts uninitialized unless it has a value, too.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "../machine.h"
#include "../run/random.h"

namespace {

using namespace cudasim;

constexpr const char* kUsage =
    "usage: cudasim-run FILE.ptx [KERNEL [--grid X[,Y[,Z]]] [--block X[,Y[,Z]]] [--shared BYTES] [--seed N] [--threads "
    "N]\n"
    "                   [--all] ARGUMENT...]\n"
    "ARGUMENT: TYPE=VALUE, TYPE[COUNT]=iota|zero|random|VALUE, out:TYPE[COUNT][=...]; TYPE: f32 f64 f16 s32 u32 s64 "
    "u64 s8 u8\n"
    "--all reports every finding instead of stopping at the first. Without a kernel, lists those of the file.\n";

struct Argument {
  bool prints = false, array = false;
  std::string type, value;
  size_t count = 1, bytes = 4;
  uint64_t address = 0;
};

[[noreturn]] void fail(const std::string& problem) {
  std::cerr << "cudasim-run: " << problem << "\n" << kUsage;
  std::exit(2);
}

Argument parse(std::string text) {
  Argument a;
  if (text.starts_with("out:")) a.prints = true, text.erase(0, 4);
  const size_t equals = text.find('=');
  if (equals != text.npos) a.value = text.substr(equals + 1), text.resize(equals);
  if (const size_t open = text.find('['); open != text.npos) {
    a.array = true;
    a.count = std::strtoull(text.c_str() + open + 1, nullptr, 10);
    text.resize(open);
  }
  a.type = text;
  static const std::map<std::string, size_t> sizes = {{"f32", 4}, {"f64", 8}, {"f16", 2}, {"s32", 4}, {"u32", 4},
                                                      {"s64", 8}, {"u64", 8}, {"s8", 1},  {"u8", 1}};
  const auto size = sizes.find(a.type);
  if (size == sizes.end()) fail("unknown type '" + a.type + "'");
  a.bytes = size->second;
  if (!a.array && a.value.empty()) fail("a number needs a value");
  return a;
}

void encode(const Argument& a, double value, std::byte* out) {
  const auto put = [&](auto v) { std::memcpy(out, &v, sizeof v); };
  if (a.type == "f32")
    put(static_cast<float>(value));
  else if (a.type == "f64")
    put(value);
  else if (a.type == "f16")
    put(static_cast<_Float16>(value));
  else if (a.type == "u64")
    put(static_cast<uint64_t>(value));
  else if (a.bytes == 8)
    put(static_cast<int64_t>(value));
  else if (a.bytes == 4)
    put(static_cast<uint32_t>(static_cast<int64_t>(value)));
  else
    put(static_cast<uint8_t>(static_cast<int64_t>(value)));
}

template <class T>
T get(const std::byte* from) {
  T v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

std::string decode(const Argument& a, const std::byte* from) {
  std::ostringstream text;
  if (a.type == "f32")
    text << get<float>(from);
  else if (a.type == "f64")
    text << get<double>(from);
  else if (a.type == "f16")
    text << static_cast<float>(get<_Float16>(from));
  else if (a.type == "s32")
    text << get<int32_t>(from);
  else if (a.type == "u32")
    text << get<uint32_t>(from);
  else if (a.type == "s64")
    text << get<int64_t>(from);
  else if (a.type == "u64")
    text << get<uint64_t>(from);
  else if (a.type == "s8")
    text << static_cast<int>(get<int8_t>(from));
  else
    text << static_cast<unsigned>(get<uint8_t>(from));
  return text.str();
}

Dim3 dims(const char* text) {
  Dim3 d;
  if (std::sscanf(text, "%u,%u,%u", &d.x, &d.y, &d.z) < 1) fail(std::string("bad dimensions '") + text + "'");
  return d;
}

void allocate(Argument& a, Memory& memory, size_t index, Random& random) {
  a.address = memory.allocate(a.count * a.bytes, "argument " + std::to_string(index + 1));
  if (a.value.empty()) return;
  std::vector<std::byte> data(a.count * a.bytes);
  for (size_t k = 0; k < a.count; ++k) {
    const double uniform = static_cast<double>(random.next() >> 11) * 0x1p-53 * 2 - 1;
    const double v = a.value == "iota"     ? static_cast<double>(k)
                     : a.value == "zero"   ? 0
                     : a.value == "random" ? uniform
                                           : std::atof(a.value.c_str());
    encode(a, v, data.data() + k * a.bytes);
  }
  memory.copyIn(a.address, data.data(), data.size());
}

void print(const Argument& a, Memory& memory, size_t index) {
  std::vector<std::byte> data(a.count * a.bytes);
  memory.copyOut(data.data(), a.address, data.size());
  std::cout << "argument " << index + 1 << ":";
  for (size_t k = 0; k < a.count; ++k) {
    const bool written = !memory.uninitializedBytes(a.address + k * a.bytes, a.bytes);
    std::cout << " " << (written ? decode(a, data.data() + k * a.bytes) : "?");
  }
  std::cout << "\n";
}

void print(const Counters& c) {
  std::cout << c.blocks << " blocks, " << c.threads << " threads, " << c.warpInstructions << " warp instructions, "
            << c.threadInstructions << " thread instructions\n"
            << "global: " << c.globalBytesLoaded << " bytes loaded in " << c.globalLoadRequests << " requests of "
            << c.globalLoadSectors << " sectors, " << c.globalBytesStored << " stored in " << c.globalStoreRequests
            << " of " << c.globalStoreSectors << "\n"
            << "shared: " << c.sharedBytesLoaded << " bytes loaded in " << c.sharedLoadRequests << " requests of "
            << c.sharedLoadWavefronts << " wavefronts, " << c.sharedBytesStored << " stored in "
            << c.sharedStoreRequests << " of " << c.sharedStoreWavefronts << "\n";
  for (const auto& [name, count] : c.byOpcode()) std::cout << "  " << name << " " << count.warps << "\n";
}

int run(int count, char** words) {
  std::ifstream file(words[1]);
  if (!file) fail(std::string("cannot read '") + words[1] + "'");
  std::stringstream text;
  text << file.rdbuf();
  const auto module = loadModule(text.str());
  if (count == 2) {
    for (const Kernel* k : module->kernels())
      std::cout << k->name << ": " << k->params.size() << " parameters, " << k->staticShared
                << " bytes of shared memory, " << k->registers << " registers\n";
    return 0;
  }
  Launch launch{.kernel = module->find(words[2])};
  if (!launch.kernel) fail(std::string("no kernel '") + words[2] + "'");
  Options options;
  std::vector<Finding> findings;
  std::vector<Argument> arguments;
  for (int i = 3; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--all") {
      options.findings = &findings;
    } else if (word.starts_with("--")) {
      if (++i == count) fail(word + " needs a value");
      if (word == "--grid")
        launch.grid = dims(words[i]);
      else if (word == "--block")
        launch.block = dims(words[i]);
      else if (word == "--shared")
        launch.dynamicShared = static_cast<uint32_t>(std::atoi(words[i])), launch.maxDynamicShared = 163 << 10;
      else if (word == "--seed")
        options.seed = std::strtoull(words[i], nullptr, 10);
      else if (word == "--threads")
        options.hostThreads = std::atoi(words[i]);
      else
        fail("unknown option '" + word + "'");
    } else {
      arguments.push_back(parse(word));
    }
  }
  const std::vector<Kernel::Param>& params = launch.kernel->params;
  if (arguments.size() != params.size()) fail("the kernel takes " + std::to_string(params.size()) + " arguments");
  Memory memory(0);
  const ModuleInstance instance(module, memory);
  launch.instance = &instance;
  Random random{options.seed + 1};
  std::vector<std::byte> bytes(launch.kernel->paramBytes);
  for (size_t i = 0; i < arguments.size(); ++i) {
    Argument& a = arguments[i];
    if ((a.array ? 8 : a.bytes) != params[i].bytes)
      fail("argument " + std::to_string(i + 1) + " must have " + std::to_string(params[i].bytes) + " bytes");
    if (a.array) {
      allocate(a, memory, i, random);
      std::memcpy(bytes.data() + params[i].offset, &a.address, 8);
    } else {
      encode(a, std::atof(a.value.c_str()), bytes.data() + params[i].offset);
    }
  }
  launch.params = bytes;
  Device device{.memory = &memory};
  const Counters counters = cudasim::launch(device, launch, options);
  for (size_t i = 0; i < arguments.size(); ++i)
    if (arguments[i].prints && arguments[i].array) print(arguments[i], memory, i);
  print(counters);
  for (const Finding& f : findings) std::cerr << f.message << "\n";
  return findings.empty() ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) fail("no file");
  try {
    return run(count, words);
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
