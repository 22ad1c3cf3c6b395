// The table of handlers, by name. Names are PTX opcodes as nvcc writes them ("fma.rn.f32"); names that start with '@'
// are the front end's own, for opcodes whose modifiers it takes apart.
//
// Handler files are compiled once for each instruction set; the best one that the processor has is used.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "../program.h"

namespace cudasim {

struct OpEntry {
  Handler run = nullptr;
  // One letter an operand, destinations in capitals: p predicate, h 16 bits, w 32 bits, d 64 bits.
  std::string signature;
};

class Registry {
 public:
  void add(std::string name, Handler run, std::string signature = {});
  const OpEntry* find(const std::string& name) const;

  static const Registry& get();  // for this processor

 private:
  std::unordered_map<std::string, OpEntry> entries_;
};

namespace isa_base {
void registerAll(Registry&);
}
namespace isa_avx2 {
void registerAll(Registry&);
}
namespace isa_avx512 {
void registerAll(Registry&);
}

}  // namespace cudasim
