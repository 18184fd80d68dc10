// The same measurements of oneDNN's recurrent primitives: onednn train|fwd|stream [options]
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <string>
#include <unordered_map>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/options.h"

namespace {

using namespace dnnl;
using Desc = memory::desc;
using Arguments = std::unordered_map<int, memory>;

constexpr const char* kPeer = "oneDNN";
constexpr auto kDirection = rnn_direction::unidirectional_left2right;

engine& cpu() {
  static engine instance(engine::kind::cpu, 0);
  return instance;
}
dnnl::stream& queue() {
  static dnnl::stream instance(cpu());
  return instance;
}

/// What the primitives ask for. `free` weights are in whatever layout the primitive likes best.
struct Descs {
  Desc x, y, state, bias, w, u, free_w, free_u;
  Descs(bench::Size s, int gates, int biases) {
    using Tag = memory::format_tag;
    const auto f32 = memory::data_type::f32;
    const memory::dim T = s.T, B = s.B, I = s.I, H = s.H;
    x = Desc({T, B, I}, f32, Tag::tnc);
    y = Desc({T, B, H}, f32, Tag::tnc);
    state = Desc({1, 1, B, H}, f32, Tag::ldnc);
    bias = Desc({1, 1, biases, H}, f32, Tag::ldgo);
    w = Desc({1, 1, I, gates, H}, f32, Tag::ldigo);
    u = Desc({1, 1, H, gates, H}, f32, Tag::ldigo);
    free_w = Desc({1, 1, I, gates, H}, f32, Tag::any);
    free_u = Desc({1, 1, H, gates, H}, f32, Tag::any);
  }
};

// The three layers, each by what is its own: its primitives, its sizes and their descriptions.

struct LSTM {
  using Forward = lstm_forward;
  using Backward = lstm_backward;
  static constexpr const char* kName = "LSTM";
  static constexpr int kGates = 4, kBiases = 4;
  static constexpr bool kHasCell = true;
  static Forward::desc forward(prop_kind kind, const Descs& d) {
    return {kind,     kDirection, d.x, d.state, d.state, d.free_w,
            d.free_u, d.bias,     d.y, d.state, d.state};
  }
  static Backward::desc backward(const Descs& d) {
    return {prop_kind::backward,
            kDirection,
            d.x,
            d.state,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state,
            d.state,
            d.x,
            d.state,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state,
            d.state};
  }
};

/// PyTorch's kind of GRU: the reset gate comes after the recurrent product, which has a bias of its
/// own.
struct GRU {
  using Forward = lbr_gru_forward;
  using Backward = lbr_gru_backward;
  static constexpr const char* kName = "GRU";
  static constexpr int kGates = 3, kBiases = 4;
  static constexpr bool kHasCell = false;
  static Forward::desc forward(prop_kind kind, const Descs& d) {
    return {kind, kDirection, d.x, d.state, d.free_w, d.free_u, d.bias, d.y, d.state};
  }
  static Backward::desc backward(const Descs& d) {
    return {prop_kind::backward,
            kDirection,
            d.x,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state,
            d.x,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state};
  }
};

struct RNN {
  using Forward = vanilla_rnn_forward;
  using Backward = vanilla_rnn_backward;
  static constexpr const char* kName = "RNN";
  static constexpr int kGates = 1, kBiases = 1;
  static constexpr bool kHasCell = false;
  static constexpr auto kActivation = algorithm::eltwise_tanh;
  static Forward::desc forward(prop_kind kind, const Descs& d) {
    return {kind, kActivation, kDirection, d.x, d.state, d.free_w, d.free_u, d.bias, d.y, d.state};
  }
  static Backward::desc backward(const Descs& d) {
    return {prop_kind::backward,
            kActivation,
            kDirection,
            d.x,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state,
            d.x,
            d.state,
            d.free_w,
            d.free_u,
            d.bias,
            d.y,
            d.state};
  }
};

float* floats(const memory& m) { return static_cast<float*>(m.get_data_handle()); }
std::size_t count(const memory& m) { return m.get_desc().get_size() / sizeof(float); }

memory zeros(const Desc& desc) {
  memory m(desc, cpu());
  std::memset(m.get_data_handle(), 0, desc.get_size());
  return m;
}
memory uniform(const Desc& desc, float limit) {
  static std::mt19937 random(1);
  memory m = zeros(desc);
  std::uniform_real_distribution<float> values(-limit, limit);
  std::generate_n(floats(m), count(m), [&] { return values(random); });
  return m;
}
void clear(memory& m) { std::memset(m.get_data_handle(), 0, m.get_desc().get_size()); }

/// Arguments of a forward primitive, but for the weights.
template <class Cell>
Arguments common_arguments(const Descs& d) {
  Arguments a = {{DNNL_ARG_SRC_LAYER, uniform(d.x, 1.0f)},
                 {DNNL_ARG_SRC_ITER, zeros(d.state)},
                 {DNNL_ARG_BIAS, zeros(d.bias)},
                 {DNNL_ARG_DST_LAYER, zeros(d.y)},
                 {DNNL_ARG_DST_ITER, zeros(d.state)}};
  if (Cell::kHasCell) {
    a[DNNL_ARG_SRC_ITER_C] = zeros(d.state);
    a[DNNL_ARG_DST_ITER_C] = zeros(d.state);
  }
  return a;
}

template <class Cell>
void train(const bench::Options& options, bench::Size s) {
  if (!options.wants(Cell::kName) || !options.wants_mode("train")) return;
  const Descs d(s, Cell::kGates, Cell::kBiases);
  const typename Cell::Forward::primitive_desc forward_desc(
      Cell::forward(prop_kind::forward_training, d), cpu());
  const typename Cell::Backward::primitive_desc backward_desc(Cell::backward(d), cpu(),
                                                              forward_desc);
  const typename Cell::Forward forward(forward_desc);
  const typename Cell::Backward backward(backward_desc);

  const float limit = 1.0f / std::sqrt(static_cast<float>(s.H));
  memory w = uniform(d.w, limit), u = uniform(d.u, limit);
  memory forward_w = zeros(forward_desc.weights_layer_desc());
  memory forward_u = zeros(forward_desc.weights_iter_desc());
  memory backward_w = zeros(backward_desc.weights_layer_desc());
  memory backward_u = zeros(backward_desc.weights_iter_desc());
  reorder pack_forward_w(w, forward_w), pack_forward_u(u, forward_u);
  reorder pack_backward_w(w, backward_w), pack_backward_u(u, backward_u);

  Arguments there = common_arguments<Cell>(d);
  there[DNNL_ARG_WORKSPACE] = zeros(forward_desc.workspace_desc());
  Arguments back = there;
  there[DNNL_ARG_WEIGHTS_LAYER] = forward_w;
  there[DNNL_ARG_WEIGHTS_ITER] = forward_u;
  back[DNNL_ARG_WEIGHTS_LAYER] = backward_w;
  back[DNNL_ARG_WEIGHTS_ITER] = backward_u;
  memory dw = zeros(backward_desc.diff_weights_layer_desc());
  memory du = zeros(backward_desc.diff_weights_iter_desc());
  memory db = zeros(d.bias), dy = zeros(d.y);
  back[DNNL_ARG_DIFF_SRC_LAYER] = zeros(d.x);
  back[DNNL_ARG_DIFF_SRC_ITER] = zeros(d.state);
  back[DNNL_ARG_DIFF_WEIGHTS_LAYER] = dw;
  back[DNNL_ARG_DIFF_WEIGHTS_ITER] = du;
  back[DNNL_ARG_DIFF_BIAS] = db;
  back[DNNL_ARG_DIFF_DST_LAYER] = dy;
  back[DNNL_ARG_DIFF_DST_ITER] = zeros(d.state);
  if (Cell::kHasCell) {
    back[DNNL_ARG_DIFF_SRC_ITER_C] = zeros(d.state);
    back[DNNL_ARG_DIFF_DST_ITER_C] = zeros(d.state);
  }

  const std::size_t n = count(dy);
  const float* y = floats(there[DNNL_ARG_DST_LAYER]);
  volatile float loss = 0;
  const auto times = bench::measure(options.budget, [&] {
    // An optimizer has changed the weights.
    pack_forward_w.execute(queue(), w, forward_w);
    pack_forward_u.execute(queue(), u, forward_u);
    forward.execute(queue(), there);
    queue().wait();
    const float scale = 2.0f / static_cast<float>(n);
    float* to = floats(dy);
    float sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      sum += y[i] * y[i];
      to[i] = scale * y[i];
    }
    loss = sum / static_cast<float>(n);
    clear(dw);  // the primitive adds to what is there
    clear(du);
    clear(db);
    pack_backward_w.execute(queue(), w, backward_w);
    pack_backward_u.execute(queue(), u, backward_u);
    backward.execute(queue(), back);
    queue().wait();
  });
  bench::print(kPeer, Cell::kName, "train", s, options.threads, times);
}

/// Inference, with the weights laid out once.
template <class Cell>
void forward(const bench::Options& options, bench::Size s, const char* mode) {
  if (!options.wants(Cell::kName) || !options.wants_mode(mode)) return;
  const Descs d(s, Cell::kGates, Cell::kBiases);
  const typename Cell::Forward::primitive_desc desc(Cell::forward(prop_kind::forward_inference, d),
                                                    cpu());
  const typename Cell::Forward primitive(desc);
  const float limit = 1.0f / std::sqrt(static_cast<float>(s.H));
  memory w = uniform(d.w, limit), u = uniform(d.u, limit);
  memory packed_w = zeros(desc.weights_layer_desc()), packed_u = zeros(desc.weights_iter_desc());
  reorder(w, packed_w).execute(queue(), w, packed_w);
  reorder(u, packed_u).execute(queue(), u, packed_u);
  Arguments arguments = common_arguments<Cell>(d);
  arguments[DNNL_ARG_WEIGHTS_LAYER] = packed_w;
  arguments[DNNL_ARG_WEIGHTS_ITER] = packed_u;
  if (s.T == 1) {  // a stream: the state that comes out is what the next step begins with
    arguments[DNNL_ARG_DST_ITER] = arguments[DNNL_ARG_SRC_ITER];
    if (Cell::kHasCell) arguments[DNNL_ARG_DST_ITER_C] = arguments[DNNL_ARG_SRC_ITER_C];
  }
  const auto times = bench::measure(options.budget, [&] {
    primitive.execute(queue(), arguments);
    queue().wait();
  });
  bench::print(kPeer, Cell::kName, mode, s, options.threads, times);
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string benchmark = argc > 1 ? argv[1] : "";
  const auto options = bench::parse(argc - (argc > 1), argv + (argc > 1),
                                    "oneDNN's side: onednn train|fwd|stream [options]");
  omp_set_num_threads(options.threads);
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);  // denormals are flushed to zero, as on the other sides
#endif
  const auto over_grid = [&](auto measure) {
    bench::print_header();
    for (int row = 0; row < bench::kGridRows; ++row) {
      if (options.wants_row(row)) measure(bench::kGrid[row]);
    }
  };
  if (benchmark == "train") {
    over_grid([&](bench::Size s) {
      train<LSTM>(options, s);
      train<GRU>(options, s);
      train<RNN>(options, s);
    });
  } else if (benchmark == "fwd") {
    over_grid([&](bench::Size s) {
      forward<LSTM>(options, s, "fwd");
      forward<GRU>(options, s, "fwd");
      forward<RNN>(options, s, "fwd");
    });
  } else if (benchmark == "stream") {
    bench::print_header();
    for (const int n : bench::kStreamSizes) forward<LSTM>(options, {1, 1, n, n}, "stream");
  } else {
    std::cerr << "onednn: there is no benchmark '" << benchmark
              << "'; choose train, fwd or stream\n";
    return 1;
  }
} catch (const error& e) {
  std::cerr << "onednn: " << e.what() << '\n';
  return 1;
}
