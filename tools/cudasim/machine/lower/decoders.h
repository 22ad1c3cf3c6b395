// Tables of decoders, one a file, and what they share.
#pragma once

#include "draft.h"

namespace cudasim::lower {

const std::map<std::string, Decoder>& scalarDecoders();
const std::map<std::string, Decoder>& memoryDecoders();
const std::map<std::string, Decoder>& controlDecoders();

int typeBits(const std::string& type);  // 1 for pred, 0 for what is no type
char typeLetter(int bits);

}  // namespace cudasim::lower
