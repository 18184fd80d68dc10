#include "modules/recurrent.h"

#include <algorithm>
#include <numeric>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "framework/step_products.h"
#include "modules/lengths.h"

namespace unroll {
namespace detail {

namespace {

/// Lets go of a piece; returns the rows that the next one has. The first one has half as many.
std::int64_t end_piece(StepProducts& steps) {
  const std::int64_t rows = piece_rows(steps.widest());
  steps.clear();
  return rows;
}

void check_probability(const char* where, const char* name, double p) {
  if (!(p >= 0.0 && p < 1.0))
    fail<ValueError>("{}: {} must be in [0, 1), but is {}", where, name, p);
}

void check_truncation(const char* where, std::int64_t truncate, double random_truncate) {
  if (truncate < 0)
    fail<ValueError>("{}: truncate must not be negative, but is {}", where, truncate);
  check_probability(where, "random_truncate", random_truncate);
}

/// x with a factor on its gradient.
Tensor scale_gradient(const Tensor& x, double factor) {
  const Tensor value = x.detach();
  return value + (x - value) * factor;
}

/// The links between time steps, where a gradient may be cut off.
class Links {
 public:
  explicit Links(const ScanOptions& options)
      : truncate_(options.truncate),
        p_(options.random_truncate),
        cuts_(grad_enabled() && (truncate_ > 0 || p_ > 0.0)) {}

  /// Whether each link is cut or not by chance.
  bool random() const { return cuts_ && p_ > 0.0; }
  /// Every so many time steps one is cut for certain; 0: none is.
  std::int64_t truncate() const { return cuts_ ? truncate_ : 0; }
  /// The link that leads to time step number `step` of the walk.
  void pass(Walker& walker, std::int64_t step) const {
    if (!cuts_ || step == 0) return;
    const bool fixed = truncate_ > 0 && step % truncate_ == 0;
    if (fixed || (p_ > 0.0 && default_generator().uniform() < p_))
      walker.map([](const Tensor& t) { return t.detach(); });
    else if (p_ > 0.0)
      walker.map([this](const Tensor& t) { return scale_gradient(t, 1.0 / (1.0 - p_)); });
  }

 private:
  std::int64_t truncate_;
  double p_;
  bool cuts_;
};

/// A mask for all time steps of the first tensor of the state; undefined for p = 0.
Tensor recurrent_mask(Walker& walker, double p) {
  Tensor mask;
  if (p > 0.0)
    walker.map([&](const Tensor& t) {
      if (!mask.defined()) mask = dropout(ones_like(t), p);
      return t;
    });
  return mask;
}

DType state_dtype(const Tensor& projected) {
  return is_floating(projected.dtype()) ? projected.dtype() : DType::f32;
}

/// Whether all time steps may be one operation, if the equations allow it.
bool goes_at_once(Walker& walker, const Tensor& xs, const Links& links, double recurrent_dropout) {
  return recurrent_dropout == 0.0 && !links.random() && is_floating(xs.dtype()) &&
         walker.has_equations();
}

// --- Sequences of one length --------------------------------------------------------------------

Tensor walk_whole(Walker& walker, const Tensor& xs, const ScanOptions& options,
                  double recurrent_dropout) {
  const Links links(options);
  const std::int64_t T = xs.size(0), batch = xs.dim() > 1 ? xs.size(1) : 1;
  const std::int64_t rows = xs.dim() > 2 || !is_floating(xs.dtype()) ? batch : 1;  // else [T, I]
  const auto steps_of = [&](std::int64_t piece_rows) { return (piece_rows + rows - 1) / rows; };
  std::int64_t piece = kPieceRows / 2;
  if (xs.dim() == 3 && goes_at_once(walker, xs, links, recurrent_dropout)) {
    walker.start(batch, xs.dtype());
    const SequenceOptions how{.reverse = options.reverse, .truncate = links.truncate()};
    if (Tensor made = walker.over_time(xs, how); made.defined()) return made;
  }
  std::vector<Tensor> outputs(static_cast<std::size_t>(T));
  Tensor mask;
  StepProducts steps;
  for (std::int64_t done = 0, n = 0; done < T; done += n) {
    n = T;
    if (T * rows > kWholeRows) {
      const std::int64_t whole = steps_of(piece), odd = (T - done) % whole;
      n = done == 0 ? std::min(whole, T) : odd > 0 ? odd : whole;
    }
    const std::int64_t first = options.reverse ? T - done - n : done;
    steps.begin(walker.project(n == T ? xs : narrow(xs, 0, first, n)));
    if (done == 0) {
      walker.start(batch, state_dtype(steps.piece()));
      mask = recurrent_mask(walker, recurrent_dropout);
    }
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t t = options.reverse ? n - 1 - k : k;
      const Step step(first + t);
      links.pass(walker, done + k);
      outputs[static_cast<std::size_t>(first + t)] =
          walker.step(steps.next({t, 0}), mask.defined() ? &mask : nullptr);
    }
    piece = end_piece(steps);
  }
  return stack(outputs);
}

// --- Sequences of different length --------------------------------------------------------------

/// Where the time steps of a padded batch go when padding is left out: the first one of each
/// sequence, longest first, then the second one of each that has two, and so on. A reverse walk
/// begins with each sequence's own last time step.
struct Packing {
  std::vector<std::int64_t> running;  ///< how many sequences take part in each step of the walk
  Tensor rows;                        ///< [N]: where in [T * B] each packed row comes from
  Tensor places;  ///< [T * B]: which packed row belongs there; N where there is padding
  Tensor order;   ///< [B]: the sequences, longest first
  Tensor ranks;   ///< [B]: each sequence's place in `order`
};

Packing pack(const std::vector<std::int64_t>& lengths, std::int64_t T, bool reverse) {
  const auto B = static_cast<std::int64_t>(lengths.size());
  const auto length = [&](std::int64_t b) { return lengths[static_cast<std::size_t>(b)]; };
  std::vector<std::int64_t> order(lengths.size()), ranks(lengths.size()), rows;
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  for (std::size_t i = 0; i < order.size(); ++i)
    ranks[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);

  const std::int64_t N = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  std::vector<std::int64_t> places(static_cast<std::size_t>(T * B), N);
  Packing packing;
  for (std::int64_t k = 0; k < length(order[0]); ++k) {
    std::int64_t running = 0;
    for (; running < B; ++running) {
      const std::int64_t b = order[static_cast<std::size_t>(running)];
      if (k >= length(b)) break;
      const std::int64_t place = (reverse ? length(b) - 1 - k : k) * B + b;
      places[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(rows.size());
      rows.push_back(place);
    }
    packing.running.push_back(running);
  }
  packing.rows = from_vector(rows);
  packing.places = from_vector(places);
  packing.order = from_vector(order);
  packing.ranks = from_vector(ranks);
  return packing;
}

/// Nothing where no sequence is shorter than T.
std::optional<Packing> pack(const Tensor& xs, const Tensor& lengths, bool reverse) {
  if (!lengths.defined()) return std::nullopt;
  const std::int64_t T = xs.size(0), B = xs.size(1);
  const auto list = checked_lengths("scan", lengths, T, B);
  const bool padded =
      std::any_of(list.begin(), list.end(), [T](std::int64_t length) { return length < T; });
  if (!padded) return std::nullopt;
  return pack(list, T, reverse);
}

/// The states of sequences that have ended, while the others go on.
class Ended {
 public:
  /// Only the first n sequences go on.
  void keep(Walker& walker, std::int64_t n) {
    std::size_t i = 0;
    walker.map([&](const Tensor& t) {
      if (i == parts_.size()) parts_.emplace_back();
      parts_[i++].push_back(narrow(t, 0, n, t.size(0) - n));
      return narrow(t, 0, 0, n);
    });
  }
  /// All of them in the order of the batch.
  void restore(Walker& walker, const Packing& packing) {
    keep(walker, 0);
    std::size_t i = 0;
    walker.map([&](const Tensor&) {
      std::reverse(parts_[i].begin(), parts_[i].end());
      return index_select(concatenate(parts_[i++]), 0, packing.ranks);
    });
  }

 private:
  std::vector<std::vector<Tensor>> parts_;  ///< by tensor of the state
};

/// Packed rows [T, B, ...] at their places.
Tensor padded_again(std::vector<Tensor> rows, const Packing& packing, std::int64_t T,
                    std::int64_t B) {
  // One more row, of zeros, goes where there is padding.
  Shape shape = rows[0].shape();
  shape[0] = 1;
  rows.push_back(zeros(shape, rows[0].dtype()));
  shape[0] = B;
  shape.insert(0, T);
  return reshape(index_select(concatenate(rows), 0, packing.places), shape);
}

Tensor walk_packed(Walker& walker, const Tensor& padded, const Packing& packing,
                   const ScanOptions& options, double recurrent_dropout) {
  const Links links(options);
  const std::int64_t T = padded.size(0), B = padded.size(1);
  const Tensor xs = index_select(flatten(padded, 0, 1), 0, packing.rows);
  const std::int64_t N = xs.size(0);
  const auto begin = [&](DType dtype) {
    walker.start(B, dtype);
    walker.map([&](const Tensor& t) {
      if (t.dim() < 1 || t.size(0) != B)
        fail<ShapeError>(
            "scan: with lengths each tensor of the state must be [B = {}, ...], but one is {}", B,
            t.shape());
      return index_select(t, 0, packing.order);
    });
  };
  bool begun = false;
  if (xs.dim() == 2 && goes_at_once(walker, xs, links, recurrent_dropout)) {
    begin(xs.dtype());
    begun = true;
    const SequenceOptions how{.truncate = links.truncate(), .running = &packing.running};
    if (Tensor made = walker.over_time(xs, how); made.defined()) {
      walker.map([&](const Tensor& t) { return index_select(t, 0, packing.ranks); });
      return padded_again({made}, packing, T, B);
    }
  }

  std::vector<Tensor> outputs;
  outputs.reserve(packing.running.size() + 1);
  Ended ended;
  Tensor mask;
  std::int64_t row = 0, first = 0, end = 0;  // the piece are the rows from first to end
  std::int64_t piece = kPieceRows / 2;
  StepProducts steps;
  for (std::size_t k = 0; k < packing.running.size(); ++k) {
    const std::int64_t n = packing.running[k];
    if (row == end) {
      if (k > 0) piece = end_piece(steps);
      first = row;
      for (std::size_t i = k; i < packing.running.size(); ++i) {
        end += packing.running[i];
        if (N > kWholeRows && end - first >= piece) break;
      }
      steps.begin(walker.project(narrow(xs, 0, first, end - first)));
    }
    if (k == 0) {
      if (!begun) begin(state_dtype(steps.piece()));
      mask = recurrent_mask(walker, recurrent_dropout);
    } else if (n < packing.running[k - 1]) {
      ended.keep(walker, n);
      if (mask.defined()) mask = narrow(mask, 0, 0, n);
    }
    const Step step(static_cast<std::int64_t>(k));
    links.pass(walker, static_cast<std::int64_t>(k));
    outputs.push_back(walker.step(steps.next({row - first, n}), mask.defined() ? &mask : nullptr));
    row += n;
  }
  ended.restore(walker, packing);
  return padded_again(std::move(outputs), packing, T, B);
}

/// `packing` goes with options.lengths and options.reverse.
Tensor walk(Walker& walker, const Tensor& xs, const std::optional<Packing>& packing,
            const ScanOptions& options, double recurrent_dropout) {
  return packing ? walk_packed(walker, xs, *packing, options, recurrent_dropout)
                 : walk_whole(walker, xs, options, recurrent_dropout);
}

void check_sequence(const Tensor& xs) {
  if (xs.size(0) == 0) fail<ShapeError>("scan: the sequence is empty: xs is {}", xs.shape());
}

}  // namespace

void check_rank(const Tensor& xs, std::int64_t rank) {
  if (xs.dim() < rank)
    fail<ShapeError>("scan: xs must be {}, but is {}", rank == 1 ? "[T, ...]" : "[T, B, ...]",
                     xs.shape());
}

Tensor walk(Walker& walker, const Tensor& xs, const ScanOptions& options) {
  check_rank(xs, options.lengths.defined() ? 2 : 1);
  check_sequence(xs);
  check_truncation("scan", options.truncate, options.random_truncate);
  return walk(walker, xs, pack(xs, options.lengths, options.reverse), options, 0.0);
}

// --- Recurrent ----------------------------------------------------------------------------------

RecurrentBase::RecurrentBase(const RecurrentOptions& options) : options_(options) {
  if (options.num_layers < 1)
    fail<ValueError>("Recurrent: num_layers must be at least 1, but is {}", options.num_layers);
  check_probability("Recurrent", "dropout", options.dropout);
  check_probability("Recurrent", "variational.input", options.variational.input);
  check_probability("Recurrent", "variational.output", options.variational.output);
  check_probability("Recurrent", "variational.recurrent", options.variational.recurrent);
  check_truncation("Recurrent", options.truncate, options.random_truncate);
}

std::size_t RecurrentBase::place(std::int64_t layer, bool reverse) const {
  if (layer < 0 || layer >= options_.num_layers)
    fail<IndexError>("{}: layer {} is out of range [0, {})", type_name(typeid(*this)), layer,
                     options_.num_layers);
  if (reverse && !options_.bidirectional)
    fail<IndexError>("{}: there is no reverse direction", type_name(typeid(*this)));
  return static_cast<std::size_t>(layer * num_directions() + (reverse ? 1 : 0));
}

std::string RecurrentBase::suffix(std::size_t cell) const {
  const auto directions = static_cast<std::size_t>(num_directions());
  return detail::format("_l{}{}", cell / directions, cell % directions == 1 ? "_reverse" : "");
}

Scope RecurrentBase::cell_scope(std::size_t cell) const {
  return watched() ? Scope(suffix(cell).substr(1)) : Scope();
}

void RecurrentBase::require_single_cell() const {
  if (num_cells() != 1)
    fail<ValueError>(
        "Recurrent: one cell makes one layer in one direction, but num_layers is {} and "
        "bidirectional is {}: pass sizes, or a function that makes the cells",
        options_.num_layers, options_.bidirectional);
}

void RecurrentBase::check_state(std::size_t given) const {
  if (given != 0 && given != static_cast<std::size_t>(num_cells()))
    fail<ValueError>(
        "{}: the state must hold {} cell state{} ({} x {}), but holds {}", type_name(typeid(*this)),
        num_cells(), num_cells() == 1 ? "" : "s",
        detail::format("{} layer{}", options_.num_layers, options_.num_layers == 1 ? "" : "s"),
        options_.bidirectional ? "2 directions" : "1 direction", given);
}

void RecurrentBase::check_input(const Tensor& x, bool sequence, std::int64_t input_size) const {
  const char* batch = options_.batch_first ? "xs must be [B, T," : "xs must be [T, B,";
  if (input_size >= 0 && (x.dim() != (sequence ? 3 : 2) || x.size(-1) != input_size))
    fail<ShapeError>("{}: {} input_size = {}], but is {}", type_name(typeid(*this)),
                     sequence ? batch : "step: x must be [B,", input_size, x.shape());
}

namespace {

/// Dropout with one mask for all time steps. x: [T, B, ...].
Tensor same_dropout(const Tensor& x, double p) {
  return p > 0.0 ? x * dropout(ones_like(x[0].detach()), p) : x;
}

}  // namespace

Tensor RecurrentBase::run(const Tensor& xs, const Tensor& lengths, std::int64_t input_size,
                          const WalkerAt& walker) const {
  const Scope here = scope();
  check_input(xs, true, input_size);
  check_rank(xs, 2);
  Tensor x = options_.batch_first ? transpose(xs, 0, 1) : xs;
  check_sequence(x);

  ScanOptions forward{.lengths = lengths,
                      .truncate = options_.truncate,
                      .random_truncate = options_.random_truncate};
  ScanOptions reverse = forward;
  reverse.reverse = true;
  const auto packing = pack(x, lengths, false);
  const auto packing_reverse =
      options_.bidirectional ? pack(x, lengths, true) : std::optional<Packing>();
  const double drop = is_training() ? options_.dropout : 0.0;
  const VariationalDropout same = is_training() ? options_.variational : VariationalDropout{};

  std::size_t i = 0;
  const auto next = [&](const auto& packed, const ScanOptions& options) {
    const Scope cell = cell_scope(i);
    return walk(walker(i++), x, packed, options, same.recurrent);
  };
  for (std::int64_t layer = 0; layer < options_.num_layers; ++layer) {
    if (layer > 0 && drop > 0.0) x = dropout(x, drop);
    x = same_dropout(x, same.input);
    Tensor y = next(packing, forward);
    if (options_.bidirectional) {
      const Tensor back = next(packing_reverse, reverse);
      y = options_.merge == Merge::sum ? y + back : concatenate({y, back}, -1);
    }
    x = y;
  }
  x = same_dropout(x, same.output);
  return options_.batch_first ? transpose(x, 0, 1) : x;
}

void RecurrentBase::check_step(const Tensor& x, std::int64_t input_size) const {
  if (options_.bidirectional)
    fail<ValueError>(
        "{}: step: the reverse direction begins at the end of the sequence: a bidirectional module "
        "takes whole sequences only",
        type_name(typeid(*this)));
  const VariationalDropout& same = options_.variational;
  if (is_training() && (same.input > 0.0 || same.output > 0.0 || same.recurrent > 0.0))
    fail<ValueError>(
        "{}: step: variational dropout draws one mask for a whole sequence: call eval() first",
        type_name(typeid(*this)));
  check_input(x, false, input_size);
}

Tensor RecurrentBase::layer_step(std::size_t layer, const Tensor& x, Walker& cell) const {
  const bool drops = layer > 0 && is_training() && options_.dropout > 0.0;
  const Tensor y = drops ? dropout(x, options_.dropout) : x;
  const Scope here = cell_scope(layer);
  const Tensor projected = cell.project(y);
  cell.start(y.size(0), state_dtype(projected));
  return cell.step(projected, nullptr);
}

}  // namespace detail

template class Recurrent<RNNCell>;
template class Recurrent<GRUCell>;
template class Recurrent<LSTMCell>;

RNN::RNN(std::int64_t inputs, std::int64_t hidden, const RecurrentOptions& options,
         const RNNOptions& cell)
    : Recurrent(inputs, hidden, options, cell) {}
RNN::RNN(std::int64_t inputs, std::int64_t hidden, const RNNOptions& cell)
    : RNN(inputs, hidden, RecurrentOptions(), cell) {}

GRU::GRU(std::int64_t inputs, std::int64_t hidden, const RecurrentOptions& options,
         const GRUOptions& cell)
    : Recurrent(inputs, hidden, options, cell) {}
GRU::GRU(std::int64_t inputs, std::int64_t hidden, const GRUOptions& cell)
    : GRU(inputs, hidden, RecurrentOptions(), cell) {}

LSTM::LSTM(std::int64_t inputs, std::int64_t hidden, const RecurrentOptions& options,
           const LSTMOptions& cell)
    : Recurrent(inputs, hidden, options, cell) {}
LSTM::LSTM(std::int64_t inputs, std::int64_t hidden, const LSTMOptions& cell)
    : LSTM(inputs, hidden, RecurrentOptions(), cell) {}

}  // namespace unroll
