#include "modules/module.h"

#include <cxxabi.h>
#include <algorithm>
#include <cstdlib>
#include <map>

#include "framework/autograd.h"
#include "framework/internal.h"

namespace unroll {

using detail::fail;

namespace detail {

std::string type_name(const std::type_info& type) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  const std::string full = status == 0 ? demangled : type.name();
  std::free(demangled);

  // "ns::List<ns::Item, f(int)::Local>" -> "List<Item, Local>": what stands before "::" goes.
  std::string name;
  std::size_t start = 0;  // of the qualified name that is being read
  int parentheses = 0;
  for (std::size_t i = 0; i < full.size(); ++i) {
    if (parentheses == 0 && full.compare(i, 2, "::") == 0) {
      name.resize(start);
      ++i;
      continue;
    }
    name += full[i];
    if (full[i] == '(') ++parentheses;
    if (full[i] == ')') --parentheses;
    if (parentheses == 0 && (full[i] == '<' || full[i] == ',' || full[i] == ' '))
      start = name.size();
  }
  return name;
}

void append_unique(std::vector<Tensor>& list, const std::vector<Tensor>& more) {
  for (const Tensor& tensor : more) {
    const auto same = [&](const Tensor& other) { return other.is(tensor); };
    if (std::none_of(list.begin(), list.end(), same)) list.push_back(tensor);
  }
}

// --- Cloning ------------------------------------------------------------------------------------

struct ModuleCloneScope::Impl {
  explicit Impl(const Module& module) : tensors(module.parameters()), outer(active) {
    copy(module.state_);
    active = this;
  }
  ~Impl() { active = outer; }

  Ref<Module::State> copy(const Ref<Module::State>& state) {
    auto& clone = states[state.get()];
    if (!clone) {
      clone = Ref<Module::State>::adopt(
          new Module::State(*state));  // its tensors become their copies here
      for (Module::Part& part : clone->parts) part.state = copy(part.state);
    }
    return clone;
  }

  CloneScope tensors;
  std::map<const Module::State*, Ref<Module::State>> states;
  Impl* outer;
  inline static thread_local Impl* active = nullptr;
};

ModuleCloneScope::ModuleCloneScope(const Module& module) : impl_(new Impl(module)) {}
ModuleCloneScope::~ModuleCloneScope() { delete impl_; }

}  // namespace detail

detail::Ref<Module::State> Module::same_or_clone(const detail::Ref<State>& state) {
  if (const auto* scope = detail::ModuleCloneScope::Impl::active) {
    const auto found = scope->states.find(state.get());
    if (found != scope->states.end()) return found->second;
  }
  return state;
}

// --- Registration -------------------------------------------------------------------------------

namespace {

/// Names that a module uses for parameters and children, those of absorbed modules included.
template <class State>
void collect_names(const State& state, const std::string& suffix, std::vector<std::string>& names) {
  for (const auto& [name, tensor] : state.params) names.push_back(name + suffix);
  for (const auto& part : state.parts) {
    if (part.name.empty())
      collect_names(*part.state, part.suffix + suffix, names);
    else
      names.push_back(part.name + suffix);
  }
}

template <class State>
void check_names(const char* where, const State& state, const std::vector<std::string>& names) {
  std::vector<std::string> taken;
  collect_names(state, "", taken);
  for (const std::string& name : names) {
    if (name.empty()) fail<ValueError>("{}: a name must not be empty", where);
    if (name.find('.') != std::string::npos)
      fail<ValueError>("{}: a name must not have a '.': {}", where, name);
    if (std::find(taken.begin(), taken.end(), name) != taken.end())
      fail<ValueError>("{}: the name is taken: {}", where, name);
  }
}

}  // namespace

Tensor Module::param(const std::string& name, Tensor value) {
  check_names("param", *state_, {name});
  if (!value.is_leaf())
    fail<GraphError>("param: {} is not a leaf: an operation on the tape made it", name);
  if (!is_floating(value.dtype()))
    fail<DTypeError>("param: {} must be f32 or f64, but is {}", name, value.dtype());
  if (!value.is_contiguous()) value = value.detach().contiguous();
  value.requires_grad_();
  state_->params.emplace_back(name, value);
  return value;
}

void Module::add_child(const std::string& name, const detail::Ref<State>& state) {
  check_names("child", *state_, {name});
  state_->parts.push_back({name, "", state});
}

void Module::add_absorbed(const std::string& suffix, const detail::Ref<State>& state) {
  std::vector<std::string> names;
  collect_names(*state, suffix, names);
  check_names("absorb", *state_, names);
  state_->parts.push_back({"", suffix, state});
}

// --- Parameters ---------------------------------------------------------------------------------

template <class Visit>
void Module::visit(const State& state, const std::string& prefix, const std::string& suffix,
                   const Visit& found) {
  for (const auto& [name, tensor] : state.params)
    found(detail::format("{}{}{}", prefix, name, suffix), tensor);
  for (const Part& part : state.parts) {
    if (part.name.empty())
      visit(*part.state, prefix, part.suffix + suffix, found);
    else
      visit(*part.state, detail::format("{}{}{}.", prefix, part.name, suffix), "", found);
  }
}

NamedTensors Module::named_parameters() const {
  NamedTensors list;
  visit(*state_, "", "",
        [&](const std::string& name, const Tensor& tensor) { list.emplace_back(name, tensor); });
  return list;
}

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> list;
  for (const auto& [name, tensor] : named_parameters()) detail::append_unique(list, {tensor});
  return list;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

NamedTensors Module::state_dict() const {
  NamedTensors state = named_parameters();
  for (auto& [name, tensor] : state) tensor = tensor.detach();
  return state;
}

void Module::load_state_dict(const NamedTensors& state) {
  copy_values(state, state_dict(), "load_state_dict: " + detail::type_name(typeid(*this)));
}

// --- Modes --------------------------------------------------------------------------------------

void Module::train(bool on) {
  const auto set = [on](const auto& self, State& state) -> void {
    state.training = on;
    for (const Part& part : state.parts) self(self, *part.state);
  };
  set(set, *state_);
}

void Module::freeze(bool on) {
  for (Tensor& parameter : parameters()) parameter.requires_grad_(!on);
}

void Module::zero_grad() {
  for (Tensor& parameter : parameters()) parameter.set_grad(Tensor());
}

void Module::to(DType dtype) {
  if (!is_floating(dtype))
    throw DTypeError("Module::to: parameters are f32 or f64, not " + to_string(dtype));
  for (Tensor& parameter : parameters()) {
    if (parameter.dtype() == dtype) continue;
    const bool required = parameter.requires_grad();
    const Tensor converted = parameter.detach().to(dtype);
    parameter.requires_grad_(false);
    // The object behind all handles changes, so that every copy of this module sees it.
    detail::TensorImpl& impl = parameter.impl();
    impl.dtype = dtype;
    impl.strides = converted.impl().strides;
    impl.offset = converted.impl().offset;
    impl.replace(converted.impl().storage);
    parameter.requires_grad_(required);
  }
}

Scope Module::named_scope() const {
  // A parameter "weight" that is known as "encoder.out.weight" is one of "encoder.out".
  for (const auto& [own, tensor] : named_parameters()) {
    const std::string name = detail::name_of(tensor.impl().node.get());
    if (name == own) return Scope::at_path("");
    if (name.ends_with("." + own))
      return Scope::at_path(name.substr(0, name.size() - own.size() - 1));
  }
  return Scope(detail::type_name(typeid(*this)));
}

// --- Printing -----------------------------------------------------------------------------------

namespace {

/// 1234567 -> "1,234,567"
std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto i = static_cast<std::int64_t>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

}  // namespace

std::string Module::describe() const {
  std::string text;
  NamedTensors seen;

  const auto header = [&](const std::string& type, const State& state) {
    std::vector<Tensor> list;
    visit(state, "", "",
          [&](const std::string&, const Tensor& tensor) { detail::append_unique(list, {tensor}); });
    std::int64_t count = 0;
    for (const Tensor& tensor : list) count += tensor.numel();
    text += detail::format("{}, {} parameter{}\n", type, grouped(count), count == 1 ? "" : "s");
  };

  const auto body = [&](const auto& self, const State& state, const std::string& path,
                        const std::string& suffix, const std::string& indent) -> void {
    for (const auto& [name, tensor] : state.params) {
      text += detail::format("{}{}{}: {}", indent, name, suffix, tensor.shape());
      const auto same = [&t = tensor](const auto& entry) { return entry.second.is(t); };
      const auto first = std::find_if(seen.begin(), seen.end(), same);
      if (first != seen.end()) text += ", tied to " + first->first;
      if (tensor.dtype() != DType::f32) text += ", " + to_string(tensor.dtype());
      if (!tensor.requires_grad()) text += ", frozen";
      text += "\n";
      seen.emplace_back(path + name + suffix, tensor);
    }
    for (const Part& part : state.parts) {
      if (part.name.empty()) {
        self(self, *part.state, path, part.suffix + suffix, indent);
      } else {
        const std::string name = part.name + suffix;
        text += indent + name + ": ";
        header(detail::type_name(*part.state->type), *part.state);
        self(self, *part.state, path + name + ".", "", indent + "  ");
      }
    }
  };

  header(detail::type_name(typeid(*this)), *state_);
  body(body, *state_, "", "", "  ");
  return text;
}

}  // namespace unroll
