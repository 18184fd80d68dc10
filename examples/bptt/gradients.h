#pragma once
/// The gradients of a recurrent network: as one derives them, as backward() gives them, and how far
/// they reach.

#include <unroll/unroll.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bptt {

using namespace unroll;

/// The outputs of all time steps, one tensor each, that keep their gradients: dL/dh_t is then the
/// .grad of h_t, in which everything is that came after it.
template <class Network>
std::vector<Tensor> watched_states(const Network& network, const Tensor& xs) {
  std::vector<Tensor> hs;
  typename Network::State state;
  for (std::int64_t t = 0; t < xs.size(0); ++t) {
    auto [h, next] = network.step(xs[t], state);
    h.retain_grad();
    hs.push_back(h);
    state = std::move(next);
  }
  return hs;
}

/// The gradients of the loss with respect to everything in a tanh RNN, derived by hand:
///
///   h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)     o_t = W h_t + b
///   L = 1 / (2 T B) sum over t and B of |o_t - y_t|^2
///
///   dL/do_t = (o_t - y_t) / (T B)
///   dL/dh_t = W' dL/do_t + W_hh' dL/da_{t+1}              a_t: what is inside of the tanh
///   dL/da_t = (1 - h_t^2) * dL/dh_t
///
/// and from these dL/dW = sum of dL/do_t h_t', dL/dW_hh = sum of dL/da_t h_{t-1}', and so on.
inline NamedTensors gradients_by_hand(const RNN& rnn, const Linear& output, const Tensor& xs,
                                      const Tensor& ys) {
  const NoGrad no_grad;
  const NamedTensors weights = rnn.state_dict();
  const Tensor w_ih = find(weights, "weight_ih_l0"), w_hh = find(weights, "weight_hh_l0");
  const Tensor b = find(weights, "bias_ih_l0") + find(weights, "bias_hh_l0");
  const std::int64_t T = xs.size(0), B = xs.size(1);

  std::vector<Tensor> h{zeros({B, rnn.cell().hidden_size}, DType::f64)};  // h[t + 1] is h_t
  for (std::int64_t t = 0; t < T; ++t)
    h.push_back(tanh(matmul(xs[t], transpose(w_ih)) + matmul(h.back(), transpose(w_hh)) + b));

  Tensor d_w_ih = zeros_like(w_ih), d_w_hh = zeros_like(w_hh), d_b = zeros_like(b);
  Tensor d_w = zeros_like(output.weight), d_c = zeros_like(output.bias), d_a = zeros_like(h[0]);
  std::vector<Tensor> d_h(static_cast<std::size_t>(T)), d_x(static_cast<std::size_t>(T));
  for (std::int64_t t = T - 1; t >= 0; --t) {
    const auto i = static_cast<std::size_t>(t);
    const Tensor o = matmul(h[i + 1], transpose(output.weight)) + output.bias;
    const Tensor d_o = (o - ys[t]) / static_cast<double>(T * B);
    d_h[i] = matmul(d_o, output.weight) + matmul(d_a, w_hh);
    d_a = (1 - square(h[i + 1])) * d_h[i];
    d_x[i] = matmul(d_a, w_ih);
    d_w = d_w + matmul(transpose(d_o), h[i + 1]);
    d_c = d_c + sum(d_o, {0});
    d_w_ih = d_w_ih + matmul(transpose(d_a), xs[t]);
    d_w_hh = d_w_hh + matmul(transpose(d_a), h[i]);
    d_b = d_b + sum(d_a, {0});
  }
  return {{"dL/dW_ih", d_w_ih},    {"dL/dW_hh", d_w_hh},   {"dL/db_ih", d_b},
          {"dL/db_hh", d_b},       {"dL/dW", d_w},         {"dL/db", d_c},
          {"dL/dh_t", stack(d_h)}, {"dL/dx_t", stack(d_x)}};
}

/// The same from backward().
inline NamedTensors gradients_by_tape(RNN rnn, Linear output, Tensor xs, const Tensor& ys) {
  xs.requires_grad_();
  const std::vector<Tensor> hs = watched_states(rnn, xs);
  const Tensor out = output(stack(hs));
  (sum(square(out - ys)) / (2.0 * static_cast<double>(xs.size(0) * xs.size(1)))).backward();
  std::vector<Tensor> d_h;
  for (const Tensor& h : hs) d_h.push_back(h.grad());
  NamedTensors gradients;
  const std::vector<std::string> names{"dL/dW_ih", "dL/dW_hh", "dL/db_ih", "dL/db_hh"};
  for (std::size_t i = 0; i < names.size(); ++i)
    gradients.emplace_back(names[i], rnn.parameters()[i].grad());
  gradients.emplace_back("dL/dW", output.weight.grad());
  gradients.emplace_back("dL/db", output.bias.grad());
  gradients.emplace_back("dL/dh_t", stack(d_h));
  gradients.emplace_back("dL/dx_t", xs.grad());
  return gradients;
}

/// |dL_T/dh_k| at T - k = 0, 1, ..., T - 1, where L_T is a random direction's part of h_T, so that
/// |dL_T/dh_T| is 1. The recurrent matrix of each gate is `radius` times a random orthogonal one,
/// all of whose eigenvalues have absolute value `radius`. The mean over 32 sequences.
template <class Network>
std::vector<double> gradient_norms(Network network, double radius, std::int64_t steps) {
  network.to(DType::f64);
  for (const auto& [name, parameter] : network.named_parameters())
    if (name == "weight_hh_l0")
      for (const Tensor& gate : split(parameter.detach(), network.cell().hidden_size))
        init::orthogonal_(gate, radius);
  const std::vector<Tensor> hs =
      watched_states(network, normal({steps, 32, network.cell().input_size}, 0, 0.1, DType::f64));
  Tensor direction = normal(hs.back().shape(), 0, 1, DType::f64);
  direction = direction / norm(direction, 2, {1}, true);
  sum(hs.back() * direction).backward();
  std::vector<double> norms;
  for (auto h = hs.rbegin(); h != hs.rend(); ++h)
    norms.push_back(mean(norm(h->grad(), 2, {1})).item());
  return norms;
}

}  // namespace bptt
