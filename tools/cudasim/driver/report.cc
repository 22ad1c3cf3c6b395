#include "report.h"

#include <algorithm>
#include <cstdio>

namespace cudasim::driver {

void Report::write(const std::string& line) {
  if (file_.empty()) return;
  if (FILE* file = std::fopen(file_.c_str(), "a")) {  // opened a line: the process may be killed at any time
    std::fputs(line.c_str(), file);
    std::fclose(file);
  }
}

void Report::finding(std::string_view kind, std::string_view text) {
  std::string line(kind);
  line.append(": ").append(text).append("\n");
  const std::lock_guard lock(mutex_);
  ++findings_;
  if (text_.find(line) != std::string::npos) return;
  text_ += line;
  write(line);
}

void Report::failedCall(std::string_view function, std::string_view status, std::string_view why) {
  std::string line(function);
  line.append(" returned ").append(status);
  if (!why.empty()) line.append(": ").append(why);
  line.append("\n");
  const std::lock_guard lock(mutex_);
  calls_ += line;
  constexpr size_t kKept = 16 << 10;  // the newest calls matter
  if (calls_.size() > kKept) calls_.erase(0, calls_.find('\n', calls_.size() - kKept) + 1);
}

void Report::setFile(std::string path) {
  const std::lock_guard lock(mutex_);
  file_ = std::move(path);
}

std::string Report::text() const {
  const std::lock_guard lock(mutex_);
  return text_;
}

std::string Report::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

int Report::findings() const {
  const std::lock_guard lock(mutex_);
  return findings_;
}

void Report::clear() {
  const std::lock_guard lock(mutex_);
  text_.clear();
  calls_.clear();
  findings_ = 0;
}

}  // namespace cudasim::driver
