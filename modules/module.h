#pragma once
/// Module: what has parameters.
///
///   struct Net : Module {
///     Tensor scale = param("scale", ones({3}));
///     Linear out = child("out", Linear(3, 2));
///     Tensor operator()(const Tensor& x) const { return out(x * scale); }
///   };
///
/// A module registers parameters and children where it makes them. Like a Tensor it is a handle:
/// a copy is the same module (the same parameters, the same mode); `clone(module)` makes another.

#include <cstdint>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "framework/anomaly.h"
#include "framework/memory.h"
#include "framework/scope.h"
#include "framework/state.h"
#include "framework/tensor.h"

namespace unroll {

namespace detail {
class ModuleCloneScope;
/// The name of a type without its namespaces: "Linear", "Recurrent<MyCell>".
std::string type_name(const std::type_info& type);
}  // namespace detail

/// The base of all that has parameters; see the top of this file.
class Module {
 public:
  Module() : state_(detail::Ref<State>::adopt(new State)) {}
  /// Shares parameters, children and mode with `other`.
  Module(const Module& other) : state_(same_or_clone(other.state_)) {}
  /// Takes them over.
  Module(Module&&) noexcept = default;
  /// Shares them.
  Module& operator=(const Module&) = default;
  /// Takes them over.
  Module& operator=(Module&&) noexcept = default;
  virtual ~Module() = default;

  /// Parameters of this module, then those of its children, in the order of registration, with
  /// names such as "encoder.weight_ih_l0". A tensor that is registered twice (tied) is listed
  /// under both names.
  NamedTensors named_parameters() const;
  /// The same tensors, each once: what an optimizer wants.
  std::vector<Tensor> parameters() const;
  /// Number of elements of parameters().
  std::int64_t parameter_count() const;

  /// The values by name: tensors that share memory with the parameters, off the tape.
  NamedTensors state_dict() const;
  /// Copies values in by name; dtypes are converted. Nothing is changed unless all fits: a
  /// ValueError lists every missing, unexpected and misshapen name.
  void load_state_dict(const NamedTensors& state);

  /// Training mode (the default) or evaluation mode, children included.
  void train(bool on = true);
  /// Evaluation mode: train(false).
  void eval() { train(false); }
  /// Whether it is in training mode.
  bool is_training() const { return state_->training; }
  /// Parameters stop (or start again) asking for gradients; what they have in .grad is dropped.
  void freeze(bool on = true);
  /// .grad of all parameters becomes undefined.
  void zero_grad();
  /// Converts all parameters to f32 or f64, in place; gradients are dropped. An optimizer is made
  /// after it. Throws DTypeError for i64.
  void to(DType dtype);

  /// For those who look at what the tape does: what is computed while the result lives belongs to
  /// this module. `const Scope here = scope();` is the first line of a forward pass. The scope is
  /// named by the names that the looking object was given, otherwise by the type.
  Scope scope() const { return detail::watched() ? named_scope() : Scope(); }

  /// The tree: a line per module (name, type, number of parameters) and per parameter (shape).
  std::string describe() const;

 protected:
  /// Registers a parameter: a leaf that requires a gradient from now on. Returns the tensor, or a
  /// contiguous copy if it was not contiguous. Throws ValueError for a name that is empty, taken or
  /// has a '.', DTypeError for i64, GraphError for a tensor that an operation on the tape made.
  Tensor param(const std::string& name, Tensor value);
  /// Registers a submodule under a name, and returns it. Throws ValueError as param().
  template <class M>
  M child(const std::string& name, M module) {
    static_assert(std::is_base_of_v<Module, M>, "a child is a Module");
    module.state_->type = &typeid(M);
    add_child(name, module.state_);
    return module;
  }
  /// Takes over the parameters and children of another module, each name followed by `suffix`:
  /// what a stack does with its cells ("weight_ih" becomes "weight_ih_l0"). Returns the module.
  template <class M>
  M absorb(M module, const std::string& suffix) {
    static_assert(std::is_base_of_v<Module, M>, "only a Module has parameters");
    add_absorbed(suffix, module.state_);
    return module;
  }

 private:
  friend class detail::ModuleCloneScope;

  struct State;
  /// A child, or, without a name, an absorbed module.
  struct Part {
    std::string name;
    std::string suffix;
    detail::Ref<State> state;
  };
  struct State : detail::Counted<State> {
    std::vector<std::pair<std::string, Tensor>> params;
    std::vector<Part> parts;
    const std::type_info* type = nullptr;  ///< set by child()
    bool training = true;
  };

  Scope named_scope() const;
  static detail::Ref<State> same_or_clone(const detail::Ref<State>& state);
  void add_child(const std::string& name, const detail::Ref<State>& state);
  void add_absorbed(const std::string& suffix, const detail::Ref<State>& state);
  template <class Visit>
  static void visit(const State& state, const std::string& prefix, const std::string& suffix,
                    const Visit& found);

  detail::Ref<State> state_;
};

/// The parameters of several modules, each tensor once.
template <class... Modules>
std::vector<Tensor> parameters(const Modules&... modules);

/// Throws AnomalyError (framework/anomaly.h) if a parameter of the module, or its gradient, holds a
/// NaN or an infinity.
inline void check_finite(const Module& module) { check_finite(module.named_parameters()); }

/// Another module with the same values, modes and structure, and parameters of its own: they are
/// leaves without a gradient; what is tied in the original is tied in the clone. Works for any
/// class derived from Module that can be copied: its Tensor and Module members, also those in
/// containers, are exchanged for their clones while it is copied. Tensors that are not registered
/// stay shared.
template <class M>
M clone(const M& module);

namespace detail {

/// As long as it lives, what this thread copies of a module is its clone.
class ModuleCloneScope {
 public:
  explicit ModuleCloneScope(const Module& module);
  ~ModuleCloneScope();
  ModuleCloneScope(const ModuleCloneScope&) = delete;
  ModuleCloneScope& operator=(const ModuleCloneScope&) = delete;

 private:
  friend class unroll::Module;
  struct Impl;
  Impl* impl_;
};

void append_unique(std::vector<Tensor>& list, const std::vector<Tensor>& more);

}  // namespace detail

template <class... Modules>
std::vector<Tensor> parameters(const Modules&... modules) {
  static_assert((std::is_base_of_v<Module, Modules> && ...), "parameters() takes modules");
  std::vector<Tensor> list;
  (detail::append_unique(list, modules.parameters()), ...);
  return list;
}

template <class M>
M clone(const M& module) {
  static_assert(std::is_base_of_v<Module, M>, "clone() takes a module");
  detail::ModuleCloneScope scope(module);
  return M(module);
}

}  // namespace unroll
