// Memory for objects that one thread makes and another ends: the general allocator takes a lock for each of those.
#pragma once

#include <atomic>
#include <cstddef>
#include <new>

namespace gradus {

// Base class that gives T its operators new and delete. Ended objects go on a stack that all threads share; a thread
// that needs one takes the whole stack at once, so no pop can meet a push in between (the ABA problem).
template <class T>
class Recycled {
 public:
#if !defined(__SANITIZE_ADDRESS__)  // which is to see every use after the end
  static void* operator new(size_t) {
    thread_local Own own;
    if (own.first == nullptr) own.first = returned_.exchange(nullptr, std::memory_order_acquire);
    if (own.first == nullptr) return ::operator new(sizeof(T));
    Link* taken = own.first;
    own.first = taken->next;
    return taken;
  }

  static void operator delete(void* memory) {
    auto* link = static_cast<Link*>(memory);
    give(link, link);
  }

 private:
  struct Link {
    Link* next;
  };

  // What a thread took and did not need goes back when it ends.
  struct Own {
    Link* first = nullptr;
    ~Own() {
      if (first == nullptr) return;
      Link* last = first;
      while (last->next) last = last->next;
      give(first, last);
    }
  };

  static void give(Link* first, Link* last) {
    last->next = returned_.load(std::memory_order_relaxed);
    while (!returned_.compare_exchange_weak(last->next, first, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }

  static inline std::atomic<Link*> returned_{nullptr};
#endif
};

}  // namespace gradus
