#include "meeting.h"

#include <algorithm>

namespace gradus {

std::mutex& acrossDevices() {
  static auto* const mutex = new std::mutex;  // never freed: environments may end after static objects
  return *mutex;
}

void queueMeeting(const SharedMeeting& meeting) {
  // What may fail comes first: who has come waits for those that are not queued yet.
  std::vector<std::unique_ptr<SharedMeeting>> shares;
  for (size_t i = 0; i < meeting->members.size(); ++i) shares.push_back(std::make_unique<SharedMeeting>(meeting));
  const std::lock_guard lock(acrossDevices());
  for (size_t i = 0; i < shares.size(); ++i) meeting->members[i].device->stream.meet(std::move(shares[i]), i);
}

std::shared_ptr<const Failure> Meeting::come(size_t member) {
  std::unique_lock lock(mutex_);
  if (++present_ < members.size()) {
    isOver_.wait(lock, [this] { return over_; });
    return failure_;
  }
  failure_ = runIfAll(member);
  over_ = true;
  isOver_.notify_all();
  return failure_;
}

// Of several failures the first member's: which one is told does not depend on who came when.
std::shared_ptr<const Failure> Meeting::runIfAll(size_t last) {
  for (const Member& member : members) {
    if (member.failure) return member.failure;
  }
  try {
    run(last);
    return nullptr;
  } catch (...) {
    auto failure = describeCurrentException(context);
    account->note(*members[0].device, failure);  // once; who reads an output hears of it anyway
    return failure;
  }
}

// Whatever fails here, the others have to hear of it: every way leads to come().
void Stream::executeMeet(Meeting& meeting, size_t at) {
  Meeting::Member& member = meeting.members[at];
  Account& account = *meeting.account;
  device_.settle();
  if (account.cancelled.load(std::memory_order_relaxed)) {
    member.failure = std::make_shared<Failure>(Failure{ErrorCode::kState, "the environment is shutting down", 0});
  }
  // what is read of the output besides: nothing of one that is written whole
  const bool isReplaced =
      member.out && isWhole(*member.out) && !(member.in && member.in->storage == member.out->storage);
  for (Tensor* tensor : {member.in, isReplaced ? nullptr : member.out}) {
    if (tensor && !member.failure) member.failure = failureOf(*tensor->storage, account, true);
  }
  if (!member.failure) {
    try {
      GRADUS_CHECK(device_.recorder == nullptr, ErrorCode::kState,
                   "device: a graph is being captured on %s by another thread: got an operation of several devices, "
                   "expected none; wait for the end of the capture",
                   device_.name.c_str());
      if (member.in) {
        const uint32_t late = member.in->storage->lateFailure;
        member.late = late != 0 ? device_.carried(late) : 0;
        prepare(*member.in->storage);
        fill(member.inView, *member.in);
      }
      if (member.out) {
        member.out->storage->context = meeting.context;
        if (isReplaced) leaveAbandoned(*member.out->storage);
        materialize(*member.out->storage);
        prepare(*member.out->storage);
        fill(member.outView, *member.out);
      }
    } catch (...) {
      member.failure = describeCurrentException(meeting.context);
      account.note(device_, member.failure);
    }
  }
  std::shared_ptr<const Failure> failure = meeting.come(at);
  Ran ran;
  if (!failure) {
    try {
      ran = meeting.leave(at);
    } catch (...) {
      failure = describeCurrentException(meeting.context);
      account.note(device_, failure);
    }
  }
  if (ran.number != 0 && meeting.isLookedAfter()) executePass(&account, nullptr);
  if (!member.out) return;
  // An output that lacks what one of the members should have given is not what anybody may go on with.
  Storage& storage = *member.out->storage;
  if (failure) {
    storage.failure = std::move(failure);
    storage.missing = nullptr;
  } else if (isReplaced) {
    storage.failure = nullptr;
    storage.missing = nullptr;
    storage.lateFailure = ran.number;
  } else {
    storage.lateFailure = std::max(storage.lateFailure, ran.number);
  }
}

}  // namespace gradus
