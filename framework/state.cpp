#include "framework/state.h"

#include <set>

#include "framework/autograd.h"
#include "framework/check.h"

namespace unroll {

void copy_values(const NamedTensors& from, const NamedTensors& to, const std::string& what) {
  std::string problems;
  const auto problem = [&](const std::string& name, const std::string& text) {
    problems += "\n  " + name + ": " + text;
  };

  std::set<std::string> wanted;
  for (const auto& [name, target] : to) {
    wanted.insert(name);
    const Tensor source = find(from, name);
    if (source.defined() && source.shape() != target.shape())
      problem(name,
              "expected " + to_string(target.shape()) + ", but is " + to_string(source.shape()));
  }
  std::set<std::string> given;
  for (const auto& [name, source] : from) {
    if (!given.insert(name).second)
      problem(name, "given twice");
    else if (!wanted.count(name))
      problem(name, "unexpected");
    else if (!source.defined())
      problem(name, "undefined");
  }
  for (const std::string& name : wanted)
    if (!given.count(name)) problem(name, "missing");
  if (!problems.empty()) throw ValueError(what + ": the state does not fit:" + problems);

  NoGrad no_grad;
  for (auto [name, target] : to) target.copy_(find(from, name));
}

}  // namespace unroll
