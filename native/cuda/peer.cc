#include "peer.h"

#include "kernels/index.h"
#include "launch.h"

namespace gradus::cuda {
namespace {

Address address(const void* pointer) { return reinterpret_cast<Address>(pointer); }

// Once for a pair, with launchesTogether() held. A copy needs no access: where there is none, the driver takes another
// way, so nothing here is an error.
void openWay(const CudaDevice& source, const CudaDevice& target) {
  static bool isOpen[kMostDevices][kMostDevices] = {};
  if (std::exchange(isOpen[source.index][target.index], true)) return;
  DeviceNumber from = 0, to = 0;
  int can = 0;
  if (driver().deviceGet(&from, source.index) != kSuccess || driver().deviceGet(&to, target.index) != kSuccess) return;
  if (driver().deviceCanAccessPeer(&can, from, to) != kSuccess || can == 0) return;
  driver().ctxEnablePeerAccess(target.opened.context, 0);
}

class PeerCopy final : public Meeting {
 public:
  PeerCopy(Account* account, Tensor* from, Tensor* to)
      : Meeting(account, 0, std::vector<Member>(2)),
        source_(static_cast<CudaDevice&>(*from->device)),
        target_(static_cast<CudaDevice&>(*to->device)),
        bytes_(to->view.bytes()) {
    members[kSource].device = &source_;
    members[kSource].in = from;
    members[kTarget].device = &target_;
    members[kTarget].out = to;
  }

  Ran leave(size_t member) override {
    if (isNothing()) return {};
    if (member == kTarget) return receive();
    tell();
    return {};
  }

 protected:
  void run(size_t) override {
    if (isNothing()) return;
    if (members[kSource].late != 0) serial_ = target_.opened.peerSerial;
    const std::lock_guard together(launchesTogether());
    target_.bind();
    target_.orderAfter(source_.opened.queue, target_.opened.queue);
    source_.bind();
    openWay(source_, target_);
    try {
      if (serial_) copy(&serial_->serial, &source_.opened.word->serial, sizeof serial_->serial);
      if (bytes_ > 0) copy(members[kTarget].outView.data, members[kSource].inView.data, bytes_);
      source_.orderAfter(target_.opened.queue, source_.opened.queue);
    } catch (...) {
      driver().streamSynchronize(source_.opened.queue);  // the target does not wait for what was queued
      throw;
    }
  }

 private:
  static constexpr size_t kSource = 0, kTarget = 1;

  bool isNothing() const { return bytes_ == 0 && members[kSource].late == 0; }

  void copy(void* to, const void* from, size_t bytes) const {
    check(driver().memcpyPeerAsync(address(to), target_.opened.context, address(from), source_.opened.context, bytes,
                                   source_.opened.queue),
          "cuMemcpyPeerAsync");
  }

  // On the source's executor; whatever happens, the target's waiter has to hear of it.
  void tell() {
    Then then = [outcome = outcome_, account = account, &device = source_](std::shared_ptr<const Failure> failure) {
      // the copy may never be read
      if (failure && !device.isFromElsewhere(failure)) account->note(device, failure);
      outcome->tell(std::move(failure));
    };
    try {
      // the number that travels is of whatever failed by now
      if (serial_) return source_.readWord(source_.latest(members[kSource].late), std::move(then));
      source_.reach(std::move(then));
    } catch (...) {
      outcome_->tell(describeCurrentException(context));
      throw;
    }
  }

  // On the target's executor.
  Ran receive() {
    target_.bind();
    const FailureSlot slot = target_.failureSlot("to", kOfDevices, source_.index);
    if (serial_) reportSerials(target_, &serial_->serial, 1, &serial_->seen, slot);
    target_.dependOn(slot.serial, outcome_, [account = account, &device = target_](std::shared_ptr<const Failure> own) {
      if (own) account->note(device, own);
    });
    return {slot.serial};
  }

  CudaDevice &source_, &target_;
  const size_t bytes_;
  PeerSerial* serial_ = nullptr;  // null: what is copied depends on nothing that kernels may find wrong
  const SharedOutcome outcome_ = std::make_shared<Outcome>();
};

}  // namespace

bool arePeers(const Device& source, const Device& target) {
  return source.kind == DeviceKind::kCuda && target.kind == DeviceKind::kCuda && &source != &target;
}

SharedMeeting makePeerCopy(Account* account, Tensor* from, Tensor* to) {
  return std::make_shared<PeerCopy>(account, from, to);
}

// A number that is not 0 is out of range for the kernel that checks indices, and so reported, with its place.
void reportSerials(CudaDevice& device, const unsigned* serials, int count, long long* seen, const FailureSlot& slot) {
  static Kernel kernel("index", "gradus_index_check");
  const IndexCheck arguments{reinterpret_cast<const char*>(serials),
                             static_cast<int>(DType::kInt32),
                             static_cast<unsigned long long>(count),
                             1,
                             seen,
                             slot};
  launch(device, kernel, static_cast<uint64_t>(count), arguments);
}

}  // namespace gradus::cuda
