// What the simulator has to say: findings, and the calls that returned an error. Kept in memory for cudasimReport() and
// appended to the file that the setting `report` names; never on stdout or stderr, which belong to the program under
// test.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

namespace cudasim::driver {

class Report {
 public:
  // One line: "race between streams: ...". Lines that are already there are counted, not repeated.
  void finding(std::string_view kind, std::string_view text);
  void failedCall(std::string_view function, std::string_view status, std::string_view why);
  void setFile(std::string path);
  std::string text() const;   // findings only
  std::string calls() const;  // calls that failed, newest last
  int findings() const;
  void clear();

 private:
  void write(const std::string& line);

  mutable std::mutex mutex_;
  std::string text_, calls_, file_;
  int findings_ = 0;
};

}  // namespace cudasim::driver
