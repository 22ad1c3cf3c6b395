#include "crew.h"

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

namespace cudasim {

namespace {

struct Job {
  const std::function<void(int)>& work;
  int next, count;
  int running = 0;
};

class Crew {
 public:
  void run(int count, const std::function<void(int)>& work) {
    std::unique_lock lock(mutex_);
    const auto job = jobs_.insert(jobs_.end(), {.work = work, .next = 1, .count = count});
    while (threads_ < count - 1) {
      std::thread([this] { serve(); }).detach();
      ++threads_;
    }
    lock.unlock();
    wake_.notify_all();
    work(0);
    lock.lock();
    job->next = job->count;
    left_.wait(lock, [&] { return job->running == 0; });
    jobs_.erase(job);
  }

 private:
  [[noreturn]] void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      const auto job = std::find_if(jobs_.begin(), jobs_.end(), [](const Job& j) { return j.next < j.count; });
      if (job == jobs_.end()) {
        wake_.wait(lock);
        continue;
      }
      const int number = job->next++;
      ++job->running;
      lock.unlock();
      job->work(number);
      lock.lock();
      if (--job->running == 0) left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  std::list<Job> jobs_;
  int threads_ = 0;
};

}  // namespace

void runTogether(int count, const std::function<void(int)>& work) {
  if (count <= 1) return work(0);
  static Crew& crew = *new Crew;  // never destroyed: its threads wait in it until the process ends
  crew.run(count, work);
}

}  // namespace cudasim
