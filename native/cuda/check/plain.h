// Types as our declarations have them: enumerations are ints to us, and what they are pointed to by.
#pragma once

#include <type_traits>

namespace gradus::cuda {

template <class T>
struct PlainOf {
  using Type = std::conditional_t<std::is_enum_v<T>, int, T>;
};
template <class T>
struct PlainOf<T*> {
  using Type = typename PlainOf<T>::Type*;
};
template <class R, class... Parameters>
struct PlainOf<R(Parameters...)> {
  using Type = typename PlainOf<R>::Type(typename PlainOf<Parameters>::Type...);
};

template <class Theirs>
using Plain = typename PlainOf<Theirs>::Type;

}  // namespace gradus::cuda
