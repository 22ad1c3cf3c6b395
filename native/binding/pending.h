// Waiting for the executor: a promise of JavaScript's, or its thread.
#pragma once

#include <atomic>

#include "environment.h"

namespace gradus::binding {

// A promise that an environment waits for. Made on the JavaScript thread, completed on the executor, settled on the
// JavaScript thread again.
struct PendingRead final : public Completion {
  Environment* environment;
  napi_deferred deferred = nullptr;
  napi_ref target = nullptr;  // keeps the array's memory while the executor writes into it
  std::shared_ptr<const Failure> failure;

  void done(std::shared_ptr<const Failure> why) noexcept override {
    failure = std::move(why);
    napi_call_threadsafe_function(environment->settle, this, napi_tsfn_nonblocking);
  }
};

// Null when the environment is being terminated: then no JavaScript value can be made.
PendingRead* makePending(napi_env env, Environment* environment, napi_value* promise);

class Blocking final : public Completion {
 public:
  void done(std::shared_ptr<const Failure> why) noexcept override {
    failure_ = std::move(why);
    done_.store(true, std::memory_order_release);
    done_.notify_one();
    released_.store(true, std::memory_order_release);
  }
  std::shared_ptr<const Failure> wait() {
    done_.wait(false, std::memory_order_acquire);
    while (!released_.load(std::memory_order_acquire)) {  // notify_one may still touch this object
    }
    return std::move(failure_);
  }

 private:
  std::atomic<bool> done_{false}, released_{false};
  std::shared_ptr<const Failure> failure_;
};

inline napi_value failureValue(napi_env env, const Failure& failure) {
  return makeFailure(env, failure.code, failure.message.c_str(), failure.context);
}

}  // namespace gradus::binding
