#include "allocator.h"

#include <algorithm>
#include <bit>
#include <string>

#include "error.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace gradus {

struct Block {
  char* data;
  size_t bytes;
  Block* previous;  // neighbours in the segment, for coalescing
  Block* next;
  bool free;
  uint32_t context;
};

namespace {

constexpr size_t kLargest = size_t{1} << 46;  // above this a size is a mistake
constexpr size_t kSmall = 64 << 10;           // size classes up to here
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 << 20;
constexpr size_t kSplit = 64 << 10;  // a smaller remainder stays with its block
constexpr size_t kFirstSegment = 32 << 20;
constexpr size_t kLargestSegment = 256 << 20;
constexpr size_t kSlab = 1 << 20;         // small classes are cut from blocks of this size
constexpr uint32_t kOfSlab = UINT32_MAX;  // in place of a module: a slab belongs to none, and much of it may be unused

// Classes: four steps between powers of two, from 64 bytes on.
int classOf(size_t bytes) {
  const size_t units = std::max<size_t>(1, (bytes + 63) / 64);
  if (units <= 4) return static_cast<int>(units) - 1;
  const int log = std::bit_width(units - 1) - 1;
  const size_t step = size_t{1} << (log - 2);
  return 4 * (log - 1) + static_cast<int>((units - 1 - (size_t{1} << log)) / step);
}

size_t bytesOf(int sizeClass) {
  if (sizeClass < 4) return 64 * static_cast<size_t>(sizeClass + 1);
  const int log = sizeClass / 4 + 1;
  const size_t step = size_t{1} << (log - 2);
  return 64 * ((size_t{1} << log) + step * (sizeClass % 4 + 1));
}

constexpr size_t roundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// AddressSanitizer knows what malloc hands out, but not what is handed out here: it is told, and each allocation gets
// a zone behind it that nothing may touch.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kRedZone = 64;
void forbid(const void* data, size_t bytes) { __asan_poison_memory_region(data, bytes); }
void permit(const void* data, size_t bytes) { __asan_unpoison_memory_region(data, bytes); }
#else
constexpr size_t kRedZone = 0;
void forbid(const void*, size_t) {}
void permit(const void*, size_t) {}
#endif

}  // namespace

bool Allocator::BySize::operator()(const Block* a, const Block* b) const {
  return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
}

Allocator::Allocator(MemorySource& source, Allocator* sharing)
    : source_(source), budget_(sharing ? sharing->budget_ : &own_), nextSegment_(sharing ? kHugePage : kFirstSegment) {
  own_.limit = source.limit();
}

Allocation Allocator::allocate(size_t bytes, uint32_t context, MemoryEvent::Kind kind) {
  if (bytes == 0) return {};
  std::lock_guard lock(mutex_);
  if (bytes > kLargest) outOfMemory(bytes, "the size is beyond any machine");
  if (budget_->allocated + bytes > budget_->limit) {
    trimLocked();
    outOfMemory(bytes, "the memory limit is reached");
  }
  Allocation result{nullptr, nullptr, bytes, this};
  const size_t taken = bytes + kRedZone;
  if (taken <= kSmall && source_.keeps()) {
    result.data = takeSmall(classOf(taken));
  } else {
    result.block = takeLarge(source_.keeps() ? roundUp(taken, kPage) : taken);
    result.block->context = context;
    result.data = result.block->data;
  }
  if (source_.addressable()) permit(result.data, bytes);
  allocated_ += bytes;
  ++budget_->count;
  const uint64_t inUse = budget_->allocated += bytes;
  for (uint64_t peak = budget_->peak; peak < inUse && !budget_->peak.compare_exchange_weak(peak, inUse);) {
  }
  if (log_.on()) log_.add(kind, result.data, bytes, context);
  return result;
}

void Allocator::release(const Allocation& allocation) {
  if (allocation.data == nullptr) return;
  std::lock_guard lock(mutex_);
  allocated_ -= allocation.bytes;
  budget_->allocated -= allocation.bytes;
  if (log_.on()) log_.add(MemoryEvent::kRelease, allocation.data, allocation.bytes, 0);
  if (source_.addressable()) forbid(allocation.data, allocation.bytes);
  if (allocation.block == nullptr) {
    smallFree_[classOf(allocation.bytes + kRedZone)].push_back(allocation.data);
    return;
  }
  free(allocation.block);
  if (!source_.keeps()) trimLocked();
}

void Allocator::free(Block* block) {
  block->free = true;
  if (Block* next = block->next; next && next->free) {
    free_.erase(next);
    block->bytes += next->bytes;
    block->next = next->next;
    if (next->next) next->next->previous = block;
    delete next;
  }
  if (Block* previous = block->previous; previous && previous->free) {
    free_.erase(previous);
    previous->bytes += block->bytes;
    previous->next = block->next;
    if (block->next) block->next->previous = previous;
    delete block;
    block = previous;
  }
  free_.insert(block);
}

void* Allocator::takeSmall(int sizeClass) {
  auto& list = smallFree_[sizeClass];
  if (list.empty()) {
    const size_t each = bytesOf(sizeClass);
    Block* slab = takeLarge(kSlab);
    slab->context = kOfSlab;
    slabs_.emplace(slab->data, Slab{slab, sizeClass, 0});
    for (size_t at = kSlab / each; at-- > 0;) list.push_back(slab->data + at * each);
  }
  void* data = list.back();
  list.pop_back();
  return data;
}

Block* Allocator::find(size_t bytes) {
  Block key{nullptr, bytes, nullptr, nullptr, true, 0};
  auto found = free_.lower_bound(&key);
  return found != free_.end() ? *found : nullptr;
}

Block* Allocator::takeLarge(size_t bytes) {
  Block* block = find(bytes);
  if (block == nullptr) block = growFor(bytes);
  free_.erase(block);
  block->free = false;
  if (block->bytes - bytes >= kSplit) {
    Block* rest = new Block{block->data + bytes, block->bytes - bytes, block, block->next, true, 0};
    if (block->next) block->next->previous = rest;
    block->next = rest;
    block->bytes = bytes;
    free_.insert(rest);
  }
  return block;
}

// Address space is cheap and only touched pages are resident, so segments grow with use.
Block* Allocator::growFor(size_t bytes) {
  const size_t least = source_.keeps() ? roundUp(bytes, kHugePage) : bytes;
  size_t size = source_.keeps() ? std::max(nextSegment_, least) : bytes;
  void* base = source_.take(size);
  if (base == nullptr && size > least) base = source_.take(size = least);
  if (base == nullptr) {
    trimLocked();
    if (Block* block = find(bytes)) return block;  // of slabs that were dissolved
    base = source_.take(size);
    if (base == nullptr) outOfMemory(bytes, "the system refused it");
  }
  char* start = static_cast<char*>(base);
  if (source_.addressable()) forbid(start, size);
  Block* block = new Block{start, size, nullptr, nullptr, true, 0};
  segments_.push_back({start, size, block});
  free_.insert(block);
  budget_->reserved += size;
  nextSegment_ = std::min(kLargestSegment, nextSegment_ * 2);
  return block;
}

void Allocator::trim() {
  std::lock_guard lock(mutex_);
  trimLocked();
}

// Slabs of which nothing is in use become blocks again, so that the little of long ago does not hold whole segments.
void Allocator::dissolveSlabs() {
  if (slabs_.empty()) return;
  const auto slabOf = [this](void* data) -> Slab& {
    return std::prev(slabs_.upper_bound(static_cast<char*>(data)))->second;
  };
  const auto isUnused = [](const Slab& slab) { return slab.unused == kSlab / bytesOf(slab.sizeClass); };
  for (auto& [data, slab] : slabs_) slab.unused = 0;
  for (const auto& list : smallFree_) {
    for (void* piece : list) ++slabOf(piece).unused;
  }
  for (auto& list : smallFree_) {
    std::erase_if(list, [&](void* piece) { return isUnused(slabOf(piece)); });
  }
  std::erase_if(slabs_, [&](const auto& entry) {
    if (!isUnused(entry.second)) return false;
    free(entry.second.block);
    return true;
  });
}

void Allocator::trimLocked() {
  if (source_.keeps() && source_.holds()) return;
  dissolveSlabs();
  std::erase_if(segments_, [this](const Segment& segment) {
    if (!segment.first->free || segment.first->next != nullptr) return false;
    free_.erase(segment.first);
    delete segment.first;
    if (source_.addressable()) permit(segment.base, segment.bytes);
    source_.give(segment.base, segment.bytes);
    budget_->reserved -= segment.bytes;
    return true;
  });
  for (Block* block : free_) source_.discard(block->data, block->bytes);
}

MemoryStats Allocator::stats() {
  return {budget_->allocated, budget_->reserved, budget_->peak, budget_->limit, budget_->count};
}

uint64_t Allocator::inUse() {
  std::lock_guard lock(mutex_);
  return allocated_;
}

void Allocator::resetPeak() { budget_->peak = budget_->allocated.load(); }

void Allocator::setLimit(uint64_t bytes) { budget_->limit = bytes > 0 ? bytes : source_.limit(); }

void Allocator::startLog(size_t most) {
  std::lock_guard lock(mutex_);
  GRADUS_CHECK(!log_.on(), ErrorCode::kState,
               "memory.profile: a profile is under way in this process; await it before the next one");
  log_.start(most);
}

void Allocator::stopLog() {
  std::lock_guard lock(mutex_);
  log_.stop();
}

void Allocator::note(const void* address, size_t bytes, uint32_t what) {
  std::lock_guard lock(mutex_);
  if (log_.on()) log_.add(MemoryEvent::kNote, address, bytes, what);
}

std::vector<MemoryEvent> Allocator::events(uint64_t* missed) {
  std::lock_guard lock(mutex_);
  *missed = log_.missed();
  return log_.events();
}

// The message carries "context:bytes" pairs of the largest live tensors for lib/errors.ts, which knows module paths.
void Allocator::outOfMemory(size_t bytes, const char* why) {
  std::map<uint32_t, uint64_t> live;
  for (const Segment& segment : segments_) {
    for (Block* block = segment.first; block; block = block->next) {
      if (!block->free && block->context != kOfSlab) live[block->context] += block->bytes;
    }
  }
  std::vector<std::pair<uint64_t, uint32_t>> largest;
  for (auto [context, total] : live) largest.emplace_back(total, context);
  std::sort(largest.rbegin(), largest.rend());
  std::string list;
  for (size_t i = 0; i < std::min<size_t>(5, largest.size()); ++i) {
    if (i > 0) list += ',';
    list.append(std::to_string(largest[i].second)).append(":").append(std::to_string(largest[i].first));
  }
  fail(ErrorCode::kOutOfMemory, "%s|%zu|%llu|%llu|%llu|%s|%s", why, bytes,
       static_cast<unsigned long long>(budget_->allocated), static_cast<unsigned long long>(budget_->reserved),
       static_cast<unsigned long long>(budget_->limit), list.c_str(), budget_->place.c_str());
}

}  // namespace gradus
