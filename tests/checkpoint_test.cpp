// Checkpoints: a training that was interrupted goes on to the same bits, and a writer that is
// killed leaves the checkpoint before.

#include "framework/checkpoint.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "data/sequences.h"
#include "framework/file.h"
#include "framework/ops.h"
#include "modules/modules.h"
#include "optim/optim.h"
#include "tests/compare.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using unroll::test::TemporaryDirectory;

namespace {

struct Net : Module {
  Embedding embedding = child("embedding", Embedding(9, 4, {.sparse = true}));
  Dropout dropout = child("dropout", Dropout(0.2));
  LSTM lstm = child("lstm", LSTM(4, 5));
  Linear output = child("output", Linear(5, 9));

  using State = decltype(lstm.initial_state(1));

  Tensor operator()(const Tensor& tokens, State& state) const {
    auto [hs, last] = lstm(dropout(embedding(tokens)), state);
    state = last;
    return output(dropout(hs));
  }
};

/// A training with all that there is to remember: optimizer, schedule, average, random numbers of
/// dropout and of the windows, the recurrent state, and the place in the data.
class Training {
 public:
  explicit Training(std::uint64_t seed) {
    manual_seed(seed);
    net.emplace();
    AdamW& adam =
        *(optimizer = std::make_unique<AdamW>(net->output.parameters(), AdamWOptions{.lr = 0.02}));
    adam.add_param_group(parameters(net->embedding, net->lstm), {.lr = 0.01});
    schedule.emplace(adam, CosineAnnealingLR{.T_max = 10});
    average.emplace(net->parameters(), 0.9);
    Generator letters(3);
    for (int i = 0; i < 400; ++i) corpus.push_back(letters.below(3) + i % 7);
  }

  /// Up to a batch of an epoch, which is not trained any more.
  void run(std::int64_t last_epoch, std::int64_t last_batch = 0) {
    for (;; ++epoch, batch = 0) {
      if (epoch == last_epoch && last_batch == 0) return;
      if (batch == 0) {
        epoch_generator = default_generator();
        state = net->lstm.initial_state(4);
      }
      Generator generator = epoch_generator;
      const WindowBatches batches = sequential_windows(corpus, {4, 10}, generator);
      if (batch == 0) default_generator() = generator;
      for (; batch < batches.size(); ++batch) {
        if (epoch == last_epoch && batch == last_batch) return;
        const auto [x, y] = batches[batch];
        state = detach(state);
        optimizer->zero_grad();
        cross_entropy((*net)(x, state), y).backward();
        clip_grad_norm(optimizer->parameters(), 1.0);
        optimizer->step();
        average->update();
      }
      schedule->step();
    }
  }

  void save(const std::string& path) {
    Checkpoint file;
    file.add("model", *net);
    file.add("optimizer", *optimizer);
    file.add("schedule", *schedule);
    file.add("average", *average);
    file.add("generator", default_generator());
    file.add("epoch_generator", epoch_generator);
    NamedTensors states;
    for_each_tensor(
        state, [&](const Tensor& t) { states.emplace_back(std::to_string(states.size()), t); });
    file.add("state", states);
    file.add_number("epoch", epoch);
    file.add_number("batch", batch);
    file.add_text("config", "{\"hidden_size\": 5}");
    file.save(path);
  }

  void load(const std::string& path) {
    const Checkpoint file(path);
    file.load("model", *net);
    file.load("optimizer", *optimizer);
    file.load("schedule", *schedule);
    file.load("average", *average);
    file.load("generator", default_generator());
    file.load("epoch_generator", epoch_generator);
    state = net->lstm.initial_state(4);
    std::size_t i = 0;
    const NamedTensors states = file.part("state");
    for_each_tensor(state, [&](Tensor& t) { t = states.at(i++).second; });
    epoch = file.number("epoch");
    batch = file.number("batch");
  }

  std::optional<Net> net;
  std::unique_ptr<AdamW> optimizer;
  std::optional<LRScheduler> schedule;
  std::optional<EMA> average;
  Net::State state;
  std::vector<std::int64_t> corpus;
  Generator epoch_generator;
  std::int64_t epoch = 0, batch = 0;
};

void check_same(const Training& a, const Training& b) {
  const NamedTensors x = a.net->state_dict(), y = b.net->state_dict();
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(x[i].first);
    CHECK(max_difference(x[i].second, y[i].second) == 0.0);
    CHECK(max_difference(a.average->averages()[i], b.average->averages()[i]) == 0.0);
  }
  CHECK(a.optimizer->lr(0) == b.optimizer->lr(0));
  CHECK(a.optimizer->lr(1) == b.optimizer->lr(1));
}

}  // namespace

TEST_CASE("checkpoint: 5 epochs and 5 more from the file are 10 epochs, to the bit") {
  TemporaryDirectory directory;
  const std::string path = directory.file("run.safetensors");
  Training whole(1);
  whole.run(10);
  const Generator end = default_generator();

  const auto check = [&](std::int64_t epoch, std::int64_t batch) {
    CAPTURE(batch);
    {
      Training first(1);
      first.run(epoch, batch);
      first.save(path);
    }
    Training second(99);  // other weights, other random numbers
    second.load(path);
    CHECK(second.epoch == epoch);
    CHECK(second.batch == batch);
    second.run(10);
    check_same(whole, second);
    CHECK(default_generator().state() == end.state());
  };
  check(5, 0);
  check(5, 3);  // in the middle of an epoch

  // It is not that nothing mattered.
  Training other(1);
  other.run(5);
  other.save(path);
  Training forgetful(99);
  Checkpoint(path).load("model", *forgetful.net);
  forgetful.run(5);
  CHECK(max_difference(whole.net->output.weight, forgetful.net->output.weight) > 1e-4);
}

TEST_CASE("checkpoint: what was added comes back, and any reader finds the weights by name") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  manual_seed(5);
  normal({3});  // an odd number of them: one is in stock
  const Linear linear(2, 3);
  Checkpoint file;
  file.add("model", linear);
  file.add("generator", default_generator());
  file.add("position", NamedTensors{{"row", tensor({1, 2})}});
  file.add_number("large", (std::int64_t{1} << 62) + 1);
  file.add_text("vocabulary", "a\nb\n\xe4\xb8\xad");
  CHECK(file.path() == "");
  file.save(path);
  const Generator before = default_generator();

  const Checkpoint saved(path);
  CHECK(saved.path() == path);
  CHECK(saved.number("large") == (std::int64_t{1} << 62) + 1);
  CHECK(saved.text("vocabulary") == "a\nb\n\xe4\xb8\xad");
  Linear copy(2, 3);
  saved.load("model", copy);
  CHECK(max_difference(copy.weight, linear.weight) == 0.0);
  Generator generator(77);
  saved.load("generator", generator);
  CHECK(generator.state() == before.state());
  CHECK(max_difference(find(saved.part("position"), "row"), tensor({1, 2})) == 0.0);
  CHECK(saved.part("nothing").empty());

  const TensorFile plain = load_safetensors(path);
  CHECK(max_difference(find(plain.tensors, "model.weight"), linear.weight) == 0.0);
  CHECK(plain.metadata.at("vocabulary") == "a\nb\n\xe4\xb8\xad");
}

TEST_CASE("checkpoint: what does not fit is said with file and part, and changes nothing") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  Checkpoint file;
  file.add("model", Linear(2, 3));
  file.add("broken", NamedTensors{{"state", zeros({6}, DType::i64)}});
  file.add_number("epoch", 3);
  file.save(path);
  const Checkpoint saved(path);

  Linear other(2, 4);
  const Tensor before = other.weight.detach().clone();
  CHECK_THROWS_WITH_AS(saved.load("model", other),
                       ("'" + path +
                        "', model: load_state_dict: Linear: the state does not fit:\n"
                        "  weight: expected (4, 2), but is (3, 2)\n"
                        "  bias: expected (4), but is (3)")
                           .c_str(),
                       FileError);
  CHECK(max_difference(other.weight, before) == 0.0);
  Generator generator(5);
  CHECK_THROWS_WITH_AS(
      saved.load("generator", generator),
      ("'" + path + "', generator: Generator: the state does not fit:\n  state: missing").c_str(),
      FileError);
  CHECK_THROWS_WITH_AS(saved.load("broken", generator),
                       ("'" + path + "', broken: set_state: no generator has this state").c_str(),
                       FileError);  // no generator has only zeros
  CHECK(generator.state() == Generator(5).state());
  CHECK_THROWS_WITH_AS(saved.number("batch"), ("'" + path + "' has no number 'batch'").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(saved.number("model.weight"),
                       ("'" + path + "' has no number 'model.weight'").c_str(), FileError);
  CHECK_THROWS_WITH_AS(saved.text("config"), ("'" + path + "' has no text 'config'").c_str(),
                       FileError);

  CHECK_THROWS_WITH_AS(file.add("model", Linear(1, 1)), "Checkpoint: 'model' is there already",
                       ValueError);
  CHECK_THROWS_WITH_AS(file.add_number("epoch", 1), "Checkpoint: 'epoch' is there already",
                       ValueError);
  CHECK_THROWS_WITH_AS(file.add("a.b", NamedTensors{}),
                       "Checkpoint: 'a.b' cannot be a name: it is empty or has a '.'", ValueError);
  CHECK_THROWS_WITH_AS(file.add_number("", 1),
                       "Checkpoint: '' cannot be a name: it is empty or has a '.'", ValueError);
}

TEST_CASE("checkpoint: one of another architecture, a part of one, and no checkpoint at all") {
  TemporaryDirectory directory;
  const std::string path = directory.file("gru.safetensors");
  Checkpoint file;
  file.add("model", GRUCell(2, 3));
  file.save(path);
  LSTMCell lstm(2, 3, {.bias = false, .proj_size = 2});
  CHECK_THROWS_WITH_AS(
      Checkpoint(path).load("model", lstm),
      ("'" + path +
       "', model: load_state_dict: LSTMCell: the state does not fit:\n  weight_ih: expected (12, "
       "2), but is (9, 2)\n  weight_hh: expected (12, 2), but is (9, 3)\n  bias_ih: unexpected\n  "
       "bias_hh: unexpected\n  weight_hr: missing")
          .c_str(),
      FileError);

  const std::string whole = read_file(path);
  write_file_atomically(path, whole.substr(0, whole.size() - 4));
  CHECK_THROWS_WITH_AS(
      Checkpoint{path},
      ("cannot read '" + path +
       "': 'model.bias_hh': data_offsets 216 to 252 do not lie in the data, which have 248 bytes")
          .c_str(),
      FileError);
  write_file_atomically(path, whole.substr(0, 50));
  CHECK_THROWS_WITH_AS(
      Checkpoint{path},
      ("cannot read '" + path + "': the header's length, 288, is above the 42 bytes that follow")
          .c_str(),
      FileError);
  write_file_atomically(path, "PK\x03\x04 this is an archive of something else");
  CHECK_THROWS_WITH_AS(
      Checkpoint{path},
      ("cannot read '" + path +
       "': it is no safetensors file: it begins with 'PK\\x03\\x04 this is an ', where 8 bytes of "
       "length and a '{' must stand")
          .c_str(),
      FileError);
}

TEST_CASE("checkpoint: a full disk is one clear error") {
  Checkpoint file;
  file.add("model", Linear(2, 3));
  CHECK_THROWS_WITH_AS(file.save("/dev/full"), "cannot write '/dev/full': No space left on device",
                       FileError);
}

// --- Killed while writing -----------------------------------------------------------------------

namespace {

/// Number n everywhere: a file of it shows whether it is of one piece.
Checkpoint numbered(std::int64_t n) {
  Checkpoint file;
  file.add("model", NamedTensors{{"weight", full({200, 500}, static_cast<double>(n))},
                                 {"bias", full({300}, static_cast<double>(n))}});
  file.add_number("n", n);
  file.add_text("n", std::to_string(n));
  return file;
}

/// The number of a file that is whole.
std::int64_t number_of(const std::string& path) {
  const Checkpoint file(path);
  const std::int64_t n = file.number("n");
  CHECK(file.text("n") == std::to_string(n));
  const NamedTensors model = file.part("model");
  CHECK(max_difference(find(model, "weight"), full({200, 500}, static_cast<double>(n))) == 0.0);
  CHECK(max_difference(find(model, "bias"), full({300}, static_cast<double>(n))) == 0.0);
  return n;
}

}  // namespace

TEST_CASE("checkpoint: a writer that is killed leaves a whole file, each time") {
  TemporaryDirectory directory;
  const std::string path = directory.file("run.safetensors");
  numbered(0).save(path);
  std::int64_t last = 0, in_the_middle = 0;
  Generator generator(1);
  for (int round = 0; round < 40; ++round) {
    int started[2];
    REQUIRE(::pipe(started) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // writes one checkpoint after the other until it dies
      try {
        for (std::int64_t n = last + 1;; ++n) {
          const Checkpoint file = numbered(n);
          if (::write(started[1], "w", 1) != 1) ::_exit(1);
          file.save(path);
        }
      } catch (...) {
        ::_exit(2);
      }
    }
    ::close(started[1]);
    char byte;
    for (int i = 0; i < 2; ++i) REQUIRE(::read(started[0], &byte, 1) == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(generator.below(3000)));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    ::close(started[0]);
    REQUIRE(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);

    const std::int64_t n = number_of(path);
    CHECK(n > last);  // the writer had begun its second one
    last = n;
    // What the killed one had begun lies beside the file and is in nobody's way.
    for (const std::string& name : directory.names()) {
      if (name == "run.safetensors") continue;
      CHECK(name.ends_with(".tmp"));
      ++in_the_middle;
      REQUIRE(::unlink(directory.file(name).c_str()) == 0);
    }
  }
  CHECK(in_the_middle > 0);
}
