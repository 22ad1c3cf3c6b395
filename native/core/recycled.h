// Memory for objects that one thread makes and another ends: the general allocator takes a lock for each of those.
#pragma once

#include <atomic>
#include <cstddef>
#include <new>

namespace gradus {

// Brings memory that another core wrote last into this one's cache, to be written here. Meant for what is written next
// but one: a store that misses holds up every later lock and every store that publishes.
inline void fetchForWriting(const void* memory, size_t bytes) {
  constexpr size_t kLine = 64;
  for (size_t at = 0; at < bytes; at += kLine) {
#if defined(__x86_64__)
    // Without -mprfchw the builtin only asks to read. A processor that lacks the instruction ignores it.
    asm volatile("prefetchw %0" : : "m"(static_cast<const char*>(memory)[at]));
#else
    __builtin_prefetch(static_cast<const char*>(memory) + at, 1);
#endif
  }
}

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
    if (own.first) fetchForWriting(own.first, sizeof(T));
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
