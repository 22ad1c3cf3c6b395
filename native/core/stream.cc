#include "stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <optional>
#include <thread>

#include "meeting.h"
#include "parcel.h"

namespace gradus {

namespace {

constexpr size_t kAlign = 32;   // of commands: also what is left at the end of the ring has room for a header
constexpr size_t kAhead = 512;  // bytes of the ring, four commands
constexpr auto kSpin = std::chrono::microseconds(20);  // a producer queues small operations 0.3 us apart
constexpr auto kLook = std::chrono::microseconds(2);   // between two looks at the ring while it is empty
constexpr auto kIdle = std::chrono::seconds(10);       // then unused memory goes back to the system

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Scratch of one operation, given back when it returns.
class CallWorkspace final : public Workspace {
 public:
  CallWorkspace(Allocator& memory, uint32_t context) : memory_(memory), context_(context) {}
  ~CallWorkspace() {
    for (const Allocation& each : taken_) each.owner->release(each);
  }
  void* take(size_t bytes) override {
    taken_.push_back(memory_.allocate(bytes > 0 ? bytes : 1, context_, MemoryEvent::kWorkspace));
    return taken_.back().data;
  }

 private:
  Allocator& memory_;
  uint32_t context_;
  std::vector<Allocation> taken_;
};

}  // namespace

std::shared_ptr<const Failure> describeCurrentException(uint32_t context) {
  try {
    throw;
  } catch (const Error& e) {
    return std::make_shared<Failure>(Failure{e.code(), e.what(), context});
  } catch (const std::bad_alloc&) {
    return std::make_shared<Failure>(Failure{ErrorCode::kOutOfMemory, "the system refused it|0|0|0|0|", context});
  } catch (const std::exception& e) {
    return std::make_shared<Failure>(Failure{ErrorCode::kNative, e.what(), context});
  } catch (...) {
    return std::make_shared<Failure>(Failure{ErrorCode::kNative, "an unknown exception in a kernel", context});
  }
}

void Account::note(const Device& device, std::shared_ptr<const Failure> failure) {
  std::lock_guard lock(mutex_);
  const auto ofDevice = [&](const Noted& each) { return each.device == &device; };
  if (std::none_of(unreported_.begin(), unreported_.end(), ofDevice)) {
    unreported_.push_back({&device, std::move(failure)});
  }
}

std::shared_ptr<const Failure> Account::take(const Device& device) {
  std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(unreported_.begin(), unreported_.end(), [&](const Noted& each) { return each.device == &device; });
  if (found == unreported_.end()) return nullptr;
  std::shared_ptr<const Failure> failure = std::move(found->failure);
  unreported_.erase(found);
  reports_.fetch_add(1);
  return failure;
}

std::shared_ptr<const Failure> Account::takeFor(const Device& device, std::shared_ptr<const Failure> failure) {
  std::lock_guard lock(mutex_);
  if (failure) {  // the user knows now, and one mistake often fails twice
    std::erase_if(unreported_, [&](const Noted& each) { return each.device == &device || each.failure == failure; });
  } else if (!unreported_.empty()) {
    failure = std::move(unreported_.front().failure);
    unreported_.erase(unreported_.begin());
  }
  if (failure) reports_.fetch_add(1);
  return failure;
}

Stream::Stream(Device& device) : device_(device), ring_(new (std::align_val_t{64}) char[kRing]) {
  std::thread([this] { loop(); }).detach();
}

char* Stream::reserve(size_t bytes) {
  producer_.lock();
  uint64_t tail = tail_.load(std::memory_order_relaxed);
  const size_t at = tail % kRing;
  fetchForWriting(ring_.get() + (tail + kAhead) % kRing, 128);
  const size_t pad = at + bytes > kRing ? kRing - at : 0;
  static_assert(sizeof(Header) <= kAlign && kRing % kAlign == 0);
  if (tail + pad + bytes - head_.load(std::memory_order_acquire) > kRing) {
    std::unique_lock lock(sleep_);
    full_.store(true);
    room_.wait(lock, [&] { return tail + pad + bytes - head_.load() <= kRing / 2 + pad + bytes; });
    full_.store(false);
  }
  if (pad > 0) {
    new (ring_.get() + at) Header{static_cast<uint32_t>(pad), Kind::kPad, 0, 0, 0, 0, 0, nullptr};
    tail += pad;
    tail_.store(tail, std::memory_order_release);
  }
  return ring_.get() + tail % kRing;
}

void Stream::publish(size_t bytes) {
  performed_ = false;
  tail_.store(tail_.load(std::memory_order_relaxed) + bytes, std::memory_order_seq_cst);
  producer_.unlock();
  if (sleeping_.load(std::memory_order_seq_cst)) {
    std::lock_guard lock(sleep_);
    wake_.notify_one();
  }
}

namespace {
constexpr int64_t kSmall = 1024;  // elements: a microsecond, or a few if something transcendental is computed

bool isSmall(int op, Tensor* const* out, int nOut) {
  return isPointwise(op) && std::all_of(out, out + nOut, [](const Tensor* t) { return t->view.numel <= kSmall; });
}

constexpr size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Writes an array into a command; an empty one may be null, which memcpy does not allow.
template <class T>
char* append(char* at, const T* from, size_t count) {
  if (count > 0) std::memcpy(at, from, count * sizeof(T));
  return at + count * sizeof(T);
}
}  // namespace

void Stream::run(Account* account, int op, uint32_t context, Tensor* const* in, int nIn, Tensor* const* out,
                 const Output* kinds, int nOut, const double* attr, int nAttr) {
  if (device_.kind == DeviceKind::kCpu && isIdle() && isSmall(op, out, nOut)) {
    std::lock_guard lock(producer_);
    if (isIdle()) {
      performed_ = true;
      return perform({account, op, context, in, out, kinds, attr, nIn, nOut, nAttr}, smallViews_, false);
    }
  }
  const size_t bytes = aligned(sizeof(Header) + (nIn + nOut) * sizeof(Tensor*) + nAttr * sizeof(double) + nOut);
  char* at = reserve(bytes);
  new (at) Header{static_cast<uint32_t>(bytes),
                  Kind::kRun,
                  static_cast<uint16_t>(op),
                  static_cast<uint16_t>(nIn),
                  static_cast<uint16_t>(nOut),
                  static_cast<uint16_t>(nAttr),
                  context,
                  account};
  at = append(at + sizeof(Header), in, nIn);
  at = append(at, out, nOut);
  at = append(at, attr, nAttr);
  append(at, kinds, nOut);
  publish(bytes);
}

void Stream::release(Tensor* const* tensors, size_t count) {
  if (isIdle()) {
    std::lock_guard lock(producer_);
    if (isIdle() && performed_) {
      for (size_t i = 0; i < count; ++i) destroyTensor(tensors[i]);
      return;
    }
  }
  constexpr size_t kChunk = 4096;
  for (size_t from = 0; from < count; from += kChunk) {
    const size_t n = std::min(kChunk, count - from);
    const size_t bytes = aligned(sizeof(Header) + n * sizeof(Tensor*));
    char* at = reserve(bytes);
    new (at) Header{static_cast<uint32_t>(bytes), Kind::kRelease, 0, static_cast<uint16_t>(n), 0, 0, 0, nullptr};
    std::memcpy(at + sizeof(Header), tensors + from, n * sizeof(Tensor*));
    publish(bytes);
  }
}

// A command whose body is a few pointers.
template <class... Parts>
void Stream::queue(Kind kind, Account* account, uint32_t context, Parts... parts) {
  const void* body[] = {parts...};
  const size_t bytes = aligned(sizeof(Header) + sizeof body);
  char* at = reserve(bytes);
  new (at) Header{static_cast<uint32_t>(bytes), kind, 0, 0, 0, 0, context, account};
  std::memcpy(at + sizeof(Header), body, sizeof body);
  publish(bytes);
}

void Stream::read(Account* account, Tensor* tensor, void* target, Completion* completion) {
  queue(Kind::kRead, account, 0, tensor, target, completion);
}

void Stream::peek(Account* account, Tensor* tensor, void* target, Completion* completion) {
  queue(Kind::kPeek, account, 0, tensor, target, completion);
}

void Stream::send(Account* account, Tensor* tensor, SharedParcel parcel) {
  queue(Kind::kSend, account, 0, tensor, new SharedParcel(std::move(parcel)));
}

void Stream::receive(Account* account, Tensor* tensor, SharedParcel parcel) {
  // Nothing queued knows the tensor, so there is nothing to wait for.
  if (device_.kind == DeviceKind::kCpu && parcel->isFilled()) return executeReceive(account, tensor, parcel);
  queue(Kind::kReceive, account, 0, tensor, new SharedParcel(std::move(parcel)));
}

void Stream::meet(std::unique_ptr<SharedMeeting> meeting, size_t member) noexcept {
  queue(Kind::kMeet, nullptr, static_cast<uint32_t>(member), meeting.release());
}

void Stream::note(Tensor* tensor, uint32_t what) { queue(Kind::kNote, nullptr, what, tensor); }

void Stream::fence(Account* account, Completion* completion) { queue(Kind::kFence, account, 0, completion); }

void Stream::pass(Account* account, Completion* completion) { queue(Kind::kPass, account, 0, completion); }

void Stream::call(std::function<void()> function) {
  queue(Kind::kCall, nullptr, 0, new std::function<void()>(std::move(function)));
}

void Stream::loop() {
  for (;;) {
    uint64_t head = head_.load(std::memory_order_relaxed);
    if (tail_.load(std::memory_order_acquire) == head) {
      // Every look takes the line away from the producer, who is about to write it: so looks are rare, and commands
      // come several at a time.
      auto now = std::chrono::steady_clock::now();
      const auto until = now + kSpin;
      bool ready = false;
      while (!ready && now < until) {
        for (const auto next = now + kLook; now < next; now = std::chrono::steady_clock::now()) pause();
        ready = tail_.load(std::memory_order_acquire) != head;
      }
      if (!ready) {
        std::unique_lock lock(sleep_);
        sleeping_.store(true, std::memory_order_seq_cst);
        const auto queued = [&] { return tail_.load(std::memory_order_seq_cst) != head; };
        if (!wake_.wait_for(lock, kIdle, queued)) {
          device_.trim();
          wake_.wait(lock, queued);
        }
        sleeping_.store(false, std::memory_order_relaxed);
      }
      continue;
    }
    const char* at = ring_.get() + head % kRing;
    Header header;
    std::memcpy(&header, at, sizeof header);
    execute(header, at + sizeof header);
    head_.store(head + header.bytes, std::memory_order_seq_cst);
    if (full_.load(std::memory_order_seq_cst)) {
      std::lock_guard lock(sleep_);
      room_.notify_one();
    }
  }
}

void Stream::execute(const Header& header, const char* body) {
  const auto part = [&]<class T>(int i, T*) {
    T* pointer;
    std::memcpy(&pointer, body + i * sizeof pointer, sizeof pointer);
    return pointer;
  };
  const auto tensor = [&](int i = 0) { return part(i, static_cast<Tensor*>(nullptr)); };
  const auto parcel = [&] { return std::unique_ptr<SharedParcel>(part(1, static_cast<SharedParcel*>(nullptr))); };
  switch (header.kind) {
    case Kind::kPad:
      return;
    case Kind::kRun:
      return executeRun(header, body);
    case Kind::kRelease:
      for (int i = 0; i < header.nIn; ++i) destroyTensor(tensor(i));
      return;
    case Kind::kRead: {
      auto* completion = part(2, static_cast<Completion*>(nullptr));
      return copyOut(header.account, header.context, tensor(), part(1, static_cast<char*>(nullptr)),
                     [this, completion, account = header.account](std::shared_ptr<const Failure> failure) {
                       completion->done(account->takeFor(device_, std::move(failure)));
                     });
    }
    case Kind::kPeek: {
      auto* completion = part(2, static_cast<Completion*>(nullptr));
      return copyOut(
          header.account, header.context, tensor(), part(1, static_cast<char*>(nullptr)),
          [this, completion, account = header.account,
           known = failureOf(*tensor()->storage, *header.account, true)](std::shared_ptr<const Failure> failure) {
            if (failure && failure != known) account->note(device_, failure);
            completion->done(std::move(failure));
          });
    }
    case Kind::kCall:
      return (*std::unique_ptr<std::function<void()>>(part(0, static_cast<std::function<void()>*>(nullptr))))();
    case Kind::kSend:
      return executeSend(header, tensor(), *parcel());
    case Kind::kReceive:
      return executeReceive(header.account, tensor(), *parcel());
    case Kind::kNote: {
      const Allocation memory = tensor() ? tensor()->storage->memory : Allocation{};
      return device_.memory.note(memory.data, memory.bytes, header.context);
    }
    case Kind::kFence: {
      auto* completion = part(0, static_cast<Completion*>(nullptr));
      auto first = header.account->take(device_);
      try {
        return device_.passed([this, completion, first, account = header.account](std::shared_ptr<const Failure> late) {
          auto failure = first ? first : std::move(late);
          // noted while this waited, by whatever: told early rather than one wait late
          if (!failure) failure = account->take(device_);
          completion->done(std::move(failure));
        });
      } catch (...) {
        return completion->done(first ? first : describeCurrentException(0));
      }
    }
    case Kind::kPass:
      return executePass(header.account, part(0, static_cast<Completion*>(nullptr)));
    case Kind::kMeet: {
      const std::unique_ptr<SharedMeeting> meeting(part(0, static_cast<SharedMeeting*>(nullptr)));
      return executeMeet(**meeting, header.context);
    }
  }
}

void Stream::executeRun(const Header& header, const char* body) {
  auto in = reinterpret_cast<Tensor* const*>(body);
  auto out = in + header.nIn;
  auto attr = reinterpret_cast<const double*>(out + header.nOut);
  auto kinds = reinterpret_cast<const Output*>(attr + header.nAttr);
  perform({header.account, header.op, header.context, in, out, kinds, attr, header.nIn, header.nOut, header.nAttr},
          views_, true);
}

bool Stream::isFill(const Call& call) { return call.op == static_cast<int>(OpId::fill) && isOverwritten(call, 0); }

// Nothing is left of what was there, nor of its failure. Zeros of a gradient that could not be had are a part of it
// that failed, whatever comes over them.
bool Stream::isOverwritten(const Call& call, int i) {
  const bool isCopy = call.op == static_cast<int>(OpId::copy) && call.kinds[i] == Output::kExisting &&
                      call.in[0]->storage != call.out[i]->storage;
  if (!isCopy && call.op != static_cast<int>(OpId::fill)) return false;
  return isWhole(*call.out[i]);
}

// Whether it has all elements of its storage.
bool Stream::isWhole(const Tensor& tensor) {
  return tensor.view.contiguous && tensor.view.bytes() == tensor.storage->bytes;
}

// Before an operation gets at the contents of a storage.
void Stream::prepare(Storage& storage) {
  if (storage.arrival) device_.await(storage);
  if (device_.recorder) device_.recorder->uses(storage);
}

Ran Stream::invoke(int op, const OpCall& call, bool onExecutor) {
  if (onExecutor) return device_.run(op, call);
  device_.kernels[op](call);
  return {};
}

// Why a storage has no contents, also where that came out after the operation had run.
std::shared_ptr<const Failure> Stream::failureOf(Storage& storage, Account& account, bool onExecutor) {
  const Allocator* const owner = storage.memory.owner;
  if (owner && owner != &device_.memory && owner->unwritten && !device_.recorder) {
    account.note(device_, owner->unwritten);  // nobody has heard of it: it is this use that is wrong
    return owner->unwritten;
  }
  if (storage.lateFailure != 0 && !storage.failure) {
    std::shared_ptr<const Failure> late = device_.lateFailure(storage.lateFailure);
    if (!late || device_.isMadeAnew(storage.lateFailure)) return late;
    storage.failure = std::move(late);
  }
  if (!storage.missing || storage.missing->reports == account.reports()) return storage.failure;
  if (device_.recorder) return storage.failure;  // a graph would make it again at every replay
  const uint64_t reports = account.reports();
  try {
    materialize(storage);
    TensorView out;
    out.data = storage.memory.data;
    out.dtype = storage.missing->dtype;
    out.numel = out.sizes[0] = static_cast<int64_t>(storage.bytes / itemSize(out.dtype));
    out.strides[0] = out.rank = 1;
    out.contiguous = true;
    CallWorkspace workspace(device_.arena(), storage.context);
    const int fill = static_cast<int>(OpId::fill);
    invoke(fill, {opInfo(fill).name, nullptr, &out, &storage.missing->value, 0, 1, 1, &workspace}, onExecutor);
    storage.failure = nullptr;
    storage.missing = nullptr;
  } catch (...) {
    storage.failure = describeCurrentException(storage.context);
    storage.missing->reports = reports;
  }
  return storage.failure;
}

void Stream::perform(const Call& call, Views& views, bool onExecutor) {
  if (onExecutor) device_.settle();
  uint32_t late = 0;
  std::optional<MissingConstant> missing;
  std::shared_ptr<const Failure> failure;
  if (call.account->cancelled.load(std::memory_order_relaxed)) {
    failure = std::make_shared<Failure>(Failure{ErrorCode::kState, "the environment is shutting down", 0});
  }
  for (int i = 0; i < call.nIn && !failure; ++i) {
    if (call.in[i] == nullptr) continue;
    Storage& storage = *call.in[i]->storage;
    failure = failureOf(storage, *call.account, onExecutor);
    if (storage.lateFailure != 0) late = std::max(late, device_.carried(storage.lateFailure));
  }
  for (int i = 0; i < call.nOut && !failure; ++i) {
    if (call.kinds[i] == Output::kNew || isOverwritten(call, i)) continue;
    failure = failureOf(*call.out[i]->storage, *call.account, onExecutor);
  }
  if (!failure) {
    try {
      if (device_.recorder) device_.recorder->check(call.account);
      if (views.in.size() < static_cast<size_t>(call.nIn)) views.in.resize(call.nIn);
      if (views.out.size() < static_cast<size_t>(call.nOut)) views.out.resize(call.nOut);
      for (int i = 0; i < call.nIn; ++i) {
        if (call.in[i]) {
          prepare(*call.in[i]->storage);
          fill(views.in[i], *call.in[i]);
        } else {
          views.in[i].rank = -1;
        }
      }
      for (int i = 0; i < call.nOut; ++i) {
        call.out[i]->storage->context = call.context;
        if (isOverwritten(call, i)) leaveAbandoned(*call.out[i]->storage);
        materialize(*call.out[i]->storage);
        prepare(*call.out[i]->storage);
        fill(views.out[i], *call.out[i]);
      }
      CallWorkspace workspace(device_.arena(), call.context);
      const OpCall seen{opInfo(call.op).name, views.in.data(), views.out.data(), call.attr, call.nIn, call.nOut,
                        call.nAttr,           &workspace,      call.context};
      const Ran ran = invoke(call.op, seen, onExecutor);
      late = std::max(late, ran.number);
      for (int i = 0; i < call.nOut; ++i) {
        Storage& storage = *call.out[i]->storage;
        if (isOverwritten(call, i)) {
          storage.failure = nullptr;
          storage.missing = nullptr;
          storage.lateFailure = late;
        } else if (late != 0 && (call.kinds[i] != Output::kExisting || !ran.leavesTargets)) {
          storage.lateFailure = std::max(storage.lateFailure, late);
        }
      }
      return;
    } catch (...) {
      failure = describeCurrentException(call.context);
      call.account->note(device_, failure);
      if (isFill(call) && call.nIn == 0 && failure->code == ErrorCode::kOutOfMemory) {
        missing = {call.attr[0], call.out[0]->view.dtype, call.account->reports()};
      }
    }
  }
  if (device_.recorder) device_.recorder->failed(failure);
  for (int i = 0; i < call.nOut; ++i) {
    if (call.kinds[i] == Output::kExisting && !isFill(call)) continue;  // as it was
    Storage& storage = *call.out[i]->storage;
    storage.failure = failure;
    storage.missing = missing ? std::make_unique<MissingConstant>(*missing) : nullptr;
  }
}

// Elements in row-major order to host memory; `then` hears of what failed before and here.
void Stream::copyOut(Account* account, uint32_t context, Tensor* tensor, void* target, Then then) {
  device_.settle();
  std::shared_ptr<const Failure> failure = failureOf(*tensor->storage, *account, true);
  const bool says = tensor->view.numel > 0 || tensor->storage->lateFailure != 0;  // an empty one may have failed, too
  if (!failure && !account->cancelled.load(std::memory_order_relaxed) && says) {
    try {
      CallWorkspace workspace(device_.arena(), context);
      TensorView from;
      prepare(*tensor->storage);
      fill(from, *tensor);
      if (!from.contiguous) {
        TensorView dense = from;
        dense.data = workspace.take(from.bytes());
        dense.contiguous = true;
        int64_t stride = 1;
        for (int d = dense.rank - 1; d >= 0; --d) {
          dense.strides[d] = stride;
          stride *= dense.sizes[d];
        }
        device_.run(static_cast<int>(OpId::copy), {"copy", &from, &dense, nullptr, 1, 1, 0, &workspace});
        from = dense;
      }
      return device_.read(from.data, target, from.bytes(), tensor->storage->lateFailure, then);
    } catch (...) {
      failure = describeCurrentException(context);
    }
  }
  then(std::move(failure));
}

void Stream::executeSend(const Header& header, Tensor* tensor, const SharedParcel& parcel) {
  copyOut(header.account, header.context, tensor, parcel->data(),
          [this, parcel, account = header.account,
           known = failureOf(*tensor->storage, *header.account, true)](auto failure) {
            if (failure && failure != known) account->note(device_, failure);  // the copy may never be read
            parcel->fill(std::move(failure));
          });
}

void Stream::executeReceive(Account* account, Tensor* tensor, const SharedParcel& parcel) {
  tensor->storage->failure = parcel->wait();
  if (tensor->storage->failure || parcel->bytes() == 0) return;
  try {
    device_.unpack(parcel, *tensor->storage);
  } catch (...) {
    tensor->storage->failure = describeCurrentException(0);
    account->note(device_, tensor->storage->failure);
  }
}

// What fails late by now is noted; the completion, if there is one, hears of nothing.
void Stream::executePass(Account* account, Completion* completion) {
  const auto then = [this, completion, account](std::shared_ptr<const Failure> late) {
    if (late) account->note(device_, std::move(late));
    if (completion) completion->done(nullptr);
  };
  try {
    device_.passed(then);
  } catch (...) {
    then(describeCurrentException(0));
  }
}

}  // namespace gradus
