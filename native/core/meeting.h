// An operation of several devices at once. Each device's executor comes to it in its own order and waits until the
// others are there; the last one runs it for all, or for none where anything that one of them brought has failed: no
// device waits for what another will never do.
//
// Whoever queues a meeting holds acrossDevices() from its first device to its last, and so does whoever queues the two
// ends of a parcel. Then all executors find the things that they wait for each other in the same order, and cannot wait
// in a circle.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "device.h"

namespace gradus {

std::mutex& acrossDevices();

class Meeting {
 public:
  // What a device brings, and what it takes away.
  struct Member {
    Device* device = nullptr;
    Tensor *in = nullptr, *out = nullptr;  // null: nothing; only the member's executor looks at them
    TensorView inView, outView;            // with data, once it has come
    uint32_t late = 0;                     // of what it brings, see Storage::lateFailure
    // Once it has come: why it cannot take part.
    std::shared_ptr<const Failure> failure;
  };

  // `context` is that of the operation, for its errors.
  Meeting(Account* account, uint32_t context, std::vector<Member> members)
      : account(account), context(context), members(std::move(members)) {}
  virtual ~Meeting() = default;
  Meeting(const Meeting&) = delete;

  Account* const account;
  const uint32_t context;
  std::vector<Member> members;

  // On a member's executor, when its member is filled in: waits for the others, and tells what the meeting failed with.
  std::shared_ptr<const Failure> come(size_t member);
  // On a member's executor, when the meeting was run.
  virtual Ran leave(size_t member) { return {}; }
  // Whether the next wait is to hear of what kernels find in this operation, for whichever device that wait is.
  virtual bool isLookedAfter() const { return false; }

 protected:
  // On the executor that came last, while the others wait: queues the work of all. If it throws, no device has
  // work of it.
  virtual void run(size_t last) = 0;

 private:
  std::shared_ptr<const Failure> runIfAll(size_t last);

  std::mutex mutex_;
  std::condition_variable isOver_;
  size_t present_ = 0;
  bool over_ = false;
  std::shared_ptr<const Failure> failure_;
};

using SharedMeeting = std::shared_ptr<Meeting>;

// Queues each member on its device.
void queueMeeting(const SharedMeeting& meeting);

}  // namespace gradus
