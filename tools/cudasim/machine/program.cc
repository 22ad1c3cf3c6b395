#include "program.h"

#include <algorithm>

#include "lower/draft.h"

namespace cudasim {

size_t Program::wideConstants() const {
  return static_cast<size_t>(
      std::count_if(constants.begin(), constants.end(), [](const Constant& c) { return c.wide; }));
}

uint32_t Program::constantOffset(size_t index) const {
  const size_t wide = wideConstants();
  return static_cast<uint32_t>(std::min(index, wide) * 256 + (index > wide ? index - wide : 0) * 128);
}

std::string_view Program::lineText(int line) const {
  std::string_view rest = *text;
  for (int i = 1; i < line; ++i) {
    const size_t end = rest.find('\n');
    if (end == rest.npos) return {};
    rest.remove_prefix(end + 1);
  }
  rest = rest.substr(0, rest.find('\n'));
  const size_t begin = rest.find_first_not_of(" \t");
  return begin == rest.npos ? std::string_view() : rest.substr(begin);
}

const char* faultName(Fault fault) {
  switch (fault) {
    case Fault::kBadPtx:
      return "bad PTX";
    case Fault::kUnknownOpcode:
      return "unknown opcode";
    case Fault::kOutOfBounds:
      return "out of bounds";
    case Fault::kMisaligned:
      return "misaligned";
    case Fault::kUseAfterFree:
      return "use after free";
    case Fault::kReadOnly:
      return "read-only memory";
    case Fault::kUninitializedGlobal:
      return "uninitialized global memory";
    case Fault::kUninitializedShared:
      return "uninitialized shared memory";
    case Fault::kUninitializedLocal:
      return "uninitialized local memory";
    case Fault::kUninitializedRegister:
      return "uninitialized register";
    case Fault::kHostDereference:
      return "host memory";
    case Fault::kPeerAccess:
      return "memory of another device";
    case Fault::kRaceShared:
      return "race in shared memory";
    case Fault::kRaceGlobal:
      return "race in global memory";
    case Fault::kRaceBlocks:
      return "race between blocks";
    case Fault::kRaceLanes:
      return "race between lanes";
    case Fault::kDivergentBarrier:
      return "divergent barrier";
    case Fault::kExitedBarrier:
      return "barrier after exit";
    case Fault::kBarrierMismatch:
      return "barrier mismatch";
    case Fault::kBadMemberMask:
      return "bad member mask";
    case Fault::kInactiveShuffle:
      return "shuffle from an inactive lane";
    case Fault::kCpAsyncBeforeWait:
      return "cp.async without wait";
    case Fault::kUndefinedResult:
      return "undefined result";
    case Fault::kTrap:
      return "trap";
    case Fault::kWatchdog:
      return "watchdog";
    case Fault::kLaunchBounds:
      return "launch bounds";
    case Fault::kSharedLimit:
      return "shared memory limit";
    case Fault::kGridLimit:
      return "grid limit";
    case Fault::kBadLaunch:
      return "bad launch";
  }
  return "unknown fault";
}

namespace {

class LoadedModule : public Module {
 public:
  explicit LoadedModule(std::string_view ptx) {
    const auto text = std::make_shared<const std::string>(ptx);
    text_ = ptx::parse(*text);
    for (const ptx::Variable& v : text_.variables)
      if (!v.external && (v.space == ptx::Space::kGlobal || v.space == ptx::Space::kConst))
        symbols_[v.name] = {v.name, v.bytes, v.space == ptx::Space::kConst};
    for (const std::string& name : text_.order) {
      auto entry = text_.functions.extract(name);
      if (entry.empty()) ptx::refuse(Fault::kBadPtx, 0, "entry '" + name + "' is defined twice");
      kernels_[name] = lower::Lowering(text_, std::move(entry.mapped()), text).run();
      order_.push_back(&kernels_[name]);
    }
  }

  const Kernel* find(std::string_view kernel) const override {
    const auto found = kernels_.find(kernel);
    return found == kernels_.end() ? nullptr : &found->second;
  }
  const Symbol* symbol(std::string_view name) const override {
    const auto found = symbols_.find(name);
    return found == symbols_.end() ? nullptr : &found->second;
  }
  std::vector<const Kernel*> kernels() const override { return order_; }
  int ptxVersion() const override { return text_.version; }
  int target() const override { return text_.target; }

  const ptx::ModuleText& text() const { return text_; }

 private:
  ptx::ModuleText text_;
  std::map<std::string, Kernel, std::less<>> kernels_;
  std::map<std::string, Symbol, std::less<>> symbols_;
  std::vector<const Kernel*> order_;
};

}  // namespace

std::shared_ptr<const Module> loadModule(std::string_view ptx) { return std::make_shared<LoadedModule>(ptx); }

ModuleInstance::ModuleInstance(std::shared_ptr<const Module> module, Memory& memory)
    : module_(std::move(module)), memory_(memory) {
  const ptx::ModuleText& text = static_cast<const LoadedModule&>(*module_).text();
  for (const ptx::Variable& v : text.variables) {
    if (v.external || (v.space != ptx::Space::kGlobal && v.space != ptx::Space::kConst)) continue;
    const uint64_t address = memory_.allocate(v.bytes, v.name);
    if (!address)
      throw SimError({.fault = Fault::kBadLaunch, .message = "no memory for variable '" + v.name + "'", .kernel = {}});
    addresses_[v.name] = address;
    memory_.set(address, 0, 1, v.bytes);  // variables without a value are zero
  }
  for (const ptx::Variable& v : text.variables) {
    const auto at = addresses_.find(v.name);
    if (at == addresses_.end()) continue;
    for (const ptx::Initializer& i : v.initial) {
      const uint64_t bits = i.bits + (i.symbol.empty() ? 0 : address(i.symbol));
      memory_.copyIn(at->second + i.offset, &bits, i.bytes);
    }
    if (v.space == ptx::Space::kConst) memory_.setReadOnly(at->second);
  }
}

ModuleInstance::~ModuleInstance() {
  for (const auto& [name, address] : addresses_) memory_.release(address);
}

uint64_t ModuleInstance::address(std::string_view symbol) const {
  const auto found = addresses_.find(symbol);
  return found == addresses_.end() ? 0 : found->second;
}

}  // namespace cudasim
