// What every entry point does before and after its work: lock, checks of the process and the context, exceptions to
// status.
#pragma once

#include <new>

#include "api.h"
#include "driver.h"

namespace cudasim::driver {

enum class Needs : uint8_t {
  kNothing,  // not even cuInit
  kInit,
  kContext,  // a current context that has not failed
};

// The stack of current contexts of this thread.
std::vector<std::shared_ptr<Context>>& contextStack();
std::shared_ptr<Context> current();  // null: none
void checkEntry(Driver& driver, Needs needs);
void markHostFunction(bool inside);  // calls are forbidden inside

// The stream of a handle, the default streams among them.
std::shared_ptr<Stream> streamOf(Driver& driver, abi::CUstream handle);

template <class Body>
abi::CUresult entry(const char* function, Needs needs, Body&& body) noexcept {
  Driver& driver = Driver::get();
  const std::lock_guard lock(driver.mutex);
  abi::CUresult code = abi::CUDA_ERROR_UNKNOWN;
  std::string why;
  try {
    driver.scheduler.called();
    checkEntry(driver, needs);
    if constexpr (std::is_same_v<decltype(body(driver)), abi::CUresult>) {
      return body(driver);
    } else {
      body(driver);
      return abi::CUDA_SUCCESS;
    }
  } catch (const Status& status) {
    code = status.code;
    why = status.why;
  } catch (const SimError& error) {
    code = statusOf(error.fault());
    why = error.what();
    driver.report.finding(faultName(error.fault()), error.what());
  } catch (const std::bad_alloc&) {
    code = abi::CUDA_ERROR_OUT_OF_MEMORY;
    why = "the simulator itself has no memory left";
  } catch (const std::exception& error) {
    why = error.what();
  }
  driver.report.failedCall(function, nameOf(code), why);
  return code;
}

}  // namespace cudasim::driver
