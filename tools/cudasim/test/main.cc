// Runs every test, or those whose name holds the first argument. One line a failure; the last line is
// "N passed, N failed". --interpreters lists what CUDASIM_ISA may be here.
#include <cmath>
#include <fstream>
#include <iostream>

#include "../machine/interpreters.h"
#include "test.h"

namespace cudasim::test {

namespace {

struct Test {
  const char* name;
  std::function<void()> run;
};

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

}  // namespace

bool add(const char* name, std::function<void()> run) {
  tests().push_back({name, std::move(run)});
  return true;
}

double worstError(const std::vector<float>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) throw Failure("sizes differ");
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(got[i] - expected[i]) / (1 + std::fabs(expected[i]));
    worst = error > worst || error != error ? error : worst;
    if (error != error) return error;
  }
  return worst;
}

std::string compiled(const std::string& name) {
  std::ifstream file(std::string(CUDASIM_TEST_PTX) + "/" + name + ".ptx");
  if (!file) throw Skip("no nvcc when this was built");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace cudasim::test

int main(int count, char** arguments) {
  using namespace cudasim::test;
  if (count > 1 && std::string(arguments[1]) == "--interpreters") {
    for (const std::string& name : cudasim::interpreters()) std::cout << name << "\n";
    return 0;
  }
  int passed = 0, failed = 0, skipped = 0;
  for (const Test& test : tests()) {
    if (count > 1 && std::string(test.name).find(arguments[1]) == std::string::npos) continue;
    try {
      test.run();
      ++passed;
    } catch (const Skip&) {
      ++skipped;
    } catch (const std::exception& e) {
      std::cout << "FAILED " << test.name << ": " << e.what() << "\n";
      ++failed;
    }
  }
  if (skipped) std::cout << skipped << " skipped for want of nvcc\n";
  std::cout << passed << " passed, " << failed << " failed\n";
  return failed ? 1 : 0;
}
