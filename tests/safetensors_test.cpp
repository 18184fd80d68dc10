#include "framework/safetensors.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/ops.h"
#include "modules/modules.h"
#include "tests/compare.h"
#include "tests/reference.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using unroll::test::TemporaryDirectory;

namespace {

/// Values as they lie in a file.
template <class T>
std::string bytes(const std::vector<T>& values) {
  std::string result;
  for (T value : values) result.append(reinterpret_cast<const char*>(&value), sizeof value);
  return result;
}

std::string with_length(std::string_view header, const std::string& data) {
  return bytes<std::uint64_t>({header.size()}) + std::string(header) + data;
}

TensorFile load(const std::string& contents) {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  write_file_atomically(path, contents);
  return load_safetensors(path);
}

TensorFile load(std::string_view header, const std::string& data) {
  return load(with_length(header, data));
}

/// What load_safetensors says about such a file, without the path; "" if it takes it.
std::string complaint_about(const std::string& contents) {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  write_file_atomically(path, contents);
  try {
    load_safetensors(path);
  } catch (const FileError& error) {
    const std::string prefix = "cannot read '" + path + "': ", what = error.what();
    REQUIRE(what.substr(0, prefix.size()) == prefix);
    return what.substr(prefix.size());
  }
  return "";
}

std::string complaint(std::string_view header, const std::string& data = "") {
  return complaint_about(with_length(header, data));
}

/// The one entry of a file whose data are these bytes.
template <class T>
Tensor load_as(const std::string& dtype, const std::vector<T>& values) {
  const std::string data = bytes(values);
  const TensorFile file =
      load(R"({"x":{"dtype":")" + dtype + R"(","shape":[)" + std::to_string(values.size()) +
               R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
           data);
  return file.tensors.at(0).second;
}

}  // namespace

// --- Both ways ----------------------------------------------------------------------------------

TEST_CASE("safetensors: what is saved is loaded, in the order given") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  const NamedTensors tensors = {
      {"z.weight", tensor({{1.5, -2.0, 3.25}, {0.0, 1e-30, 1e30}})},
      {"labels", tensor({-1, 0, 7}, DType::i64)},
      {"scalar", tensor(-0.1, DType::f64)},
      {"empty", zeros({0, 3}, DType::f64)},
      {"also empty", zeros({2, 0})},
      {"", tensor({std::numeric_limits<double>::infinity()})},
      {"a \"quoted\"\n\t\\ name, \xc3\xa9 \xe4\xb8\xad", ones({1, 1, 1, 1, 1, 1, 1})},
  };
  const Metadata metadata = {{"config", "{\"hidden\": 256}"}, {"", ""}, {"vocab", "a\nb\n"}};
  save_safetensors(path, tensors, metadata);
  const TensorFile file = load_safetensors(path);
  CHECK(file.metadata == metadata);
  REQUIRE(file.tensors.size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    CAPTURE(i);
    const auto& [name, loaded] = file.tensors[i];
    const Tensor& saved = tensors[i].second;
    CHECK(name == tensors[i].first);
    CHECK(loaded.dtype() == saved.dtype());
    CHECK(loaded.shape() == saved.shape());
    CHECK(loaded.to(DType::f64).to_vector<double>() == saved.to(DType::f64).to_vector<double>());
    CHECK(!loaded.requires_grad());
  }
  CHECK(directory.names() == std::vector<std::string>{"a.safetensors"});
}

TEST_CASE("safetensors: the file is laid out as the format says, 8-byte types first") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  save_safetensors(path, {{"a", tensor({1.0, 2.0, 3.0})}, {"b", tensor(5.0, DType::f64)}},
                   {{"k", "v"}});
  std::string header = R"({"__metadata__":{"k":"v"},)"
                       R"("a":{"dtype":"F32","shape":[3],"data_offsets":[8,20]},)"
                       R"("b":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(read_file(path) ==
        with_length(header, bytes<double>({5.0}) + bytes<float>({1.0f, 2.0f, 3.0f})));
}

TEST_CASE("safetensors: a file may hold nothing") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  save_safetensors(path, {});
  CHECK(read_file(path) == with_length("{}      ", ""));
  CHECK(load_safetensors(path).tensors.empty());
  CHECK(load("{}", "").metadata.empty());
}

TEST_CASE("safetensors: any layout is written as its values, and gradients are left alone") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  const Tensor x = tensor({{1, 2, 3}, {4, 5, 6}}).requires_grad_();
  save_safetensors(path, {{"transposed", transpose(x)},
                          {"column", select(x, 1, 1)},
                          {"flipped", flip(x, 1)},
                          {"repeated", broadcast_to(slice(x, 0, 1, 2), {2, 3})}});
  const NamedTensors loaded = load_safetensors(path).tensors;
  CHECK(find(loaded, "transposed").to_vector<float>() == std::vector<float>{1, 4, 2, 5, 3, 6});
  CHECK(find(loaded, "column").to_vector<float>() == std::vector<float>{2, 5});
  CHECK(find(loaded, "flipped").to_vector<float>() == std::vector<float>{3, 2, 1, 6, 5, 4});
  CHECK(find(loaded, "repeated").to_vector<float>() == std::vector<float>{4, 5, 6, 4, 5, 6});
}

TEST_CASE("safetensors: all integer types come as i64") {
  using Values = std::vector<std::int64_t>;
  CHECK(load_as<std::int8_t>("I8", {-128, 127}).to_vector<std::int64_t>() == Values{-128, 127});
  CHECK(load_as<std::uint8_t>("U8", {0, 255}).to_vector<std::int64_t>() == Values{0, 255});
  CHECK(load_as<std::int16_t>("I16", {-32768, 5}).to_vector<std::int64_t>() == Values{-32768, 5});
  CHECK(load_as<std::uint16_t>("U16", {65535}).to_vector<std::int64_t>() == Values{65535});
  CHECK(load_as<std::int32_t>("I32", {INT32_MIN, 1}).to_vector<std::int64_t>() ==
        Values{INT32_MIN, 1});
  CHECK(load_as<std::uint32_t>("U32", {UINT32_MAX}).to_vector<std::int64_t>() ==
        Values{UINT32_MAX});
  CHECK(load_as<std::int64_t>("I64", {INT64_MIN, 2}).to_vector<std::int64_t>() ==
        Values{INT64_MIN, 2});
  CHECK(load_as<std::uint64_t>("U64", {INT64_MAX}).to_vector<std::int64_t>() == Values{INT64_MAX});
  CHECK(load_as<std::uint8_t>("BOOL", {0, 1, 1}).to_vector<std::int64_t>() == Values{0, 1, 1});
}

TEST_CASE("safetensors: half precision comes as f32, exactly") {
  const std::vector<float> halves =
      load_as<std::uint16_t>("F16", {0x3c00, 0xc000, 0x3555, 0x7bff, 0x0400, 0x0001, 0x83ff, 0x8000,
                                     0x7c00, 0xfc00, 0x7e00})
          .to_vector<float>();
  CHECK(halves[0] == 1.0f);
  CHECK(halves[1] == -2.0f);
  CHECK(halves[2] == 0.333251953125f);
  CHECK(halves[3] == 65504.0f);
  CHECK(halves[4] == 0x1p-14f);
  CHECK(halves[5] == 0x1p-24f);
  CHECK(halves[6] == -0x3ffp-24f);
  CHECK(std::bit_cast<std::uint32_t>(halves[7]) == 0x80000000u);
  CHECK(halves[8] == std::numeric_limits<float>::infinity());
  CHECK(halves[9] == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(halves[10]));

  const std::vector<float> brains =
      load_as<std::uint16_t>("BF16", {0x3f80, 0xc049, 0x7f80, 0x0001}).to_vector<float>();
  CHECK(brains ==
        std::vector<float>{1.0f, -3.140625f, std::numeric_limits<float>::infinity(), 0x1p-133f});
}

TEST_CASE("safetensors: data may lie at any address, and entries in any order") {
  const TensorFile file = load(R"({"b":{"shape":[2],"data_offsets":[1,17],"dtype":"F64"},)"
                               R"("a":{"data_offsets":[0,1],"dtype":"U8","shape":[]},)"
                               R"("none":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}})"
                               "  \n",
                               "\7" + bytes<double>({1.5, -2.5}));
  REQUIRE(file.tensors.size() == 3);
  CHECK(file.tensors[0].first == "b");
  CHECK(file.tensors[0].second.to_vector<double>() == std::vector<double>{1.5, -2.5});
  CHECK(file.tensors[1].second.item() == 7);
  CHECK(file.tensors[2].second.shape() == Shape{0});
}

TEST_CASE("safetensors: weights go from PyTorch to modules by name, and back") {
  struct Net : Module {
    Embedding embedding = child("embedding", Embedding(7, 3));
    RNN rnn = child("rnn", RNN(3, 4));
    GRU gru = child("gru", GRU(4, 5, {.num_layers = 2, .bidirectional = true}));
    LSTM lstm = child("lstm", LSTM(10, 4));
    LayerNorm norm = child("norm", LayerNorm(4));
    Linear linear = child("linear", Linear(4, 2));
    Tensor operator()(const Tensor& indices) const {
      return linear(norm(lstm(gru(rnn(embedding(indices)).outputs).outputs).outputs));
    }
  };
  const std::string path = UNROLL_SOURCE_DIR "/tests/reference/weights.safetensors";
  const TensorFile file = load_safetensors(path);
  CHECK(file.metadata == Metadata{{"format", "pt"}});
  Net net;
  net.load_state_dict(file.tensors);
  const nlohmann::json test = read_reference("weights.json")[0];
  CHECK(max_difference(net(read_tensor(test["indices"], DType::i64)),
                       read_tensor(test["outputs"], DType::f64)) < 1e-6);

  // What we write is PyTorch's file again, byte for byte.
  TemporaryDirectory directory;
  save_safetensors(directory.file("a"), net.state_dict(), file.metadata);
  CHECK(read_file(directory.file("a")) == read_file(path));
}

// --- What is refused ----------------------------------------------------------------------------

TEST_CASE("safetensors: a file that cannot be read or written is an error") {
  TemporaryDirectory directory;
  const std::string path = directory.file("missing/a.safetensors");
  CHECK_THROWS_WITH_AS(load_safetensors(path),
                       ("cannot read '" + path + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(save_safetensors(path, {}),
                       ("cannot write '" + path + "': No such file or directory").c_str(),
                       FileError);
}

TEST_CASE("safetensors: what cannot be saved is refused, and the old file stays") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.safetensors");
  save_safetensors(path, {{"old", ones({1})}});
  const std::string old = read_file(path);
  const Tensor x = ones({2});
  CHECK_THROWS_WITH_AS(save_safetensors(path, {{"x", x}, {"y", x}, {"x", x}}),
                       "save_safetensors: two tensors are named 'x'", ValueError);
  CHECK_THROWS_WITH_AS(save_safetensors(path, {{"__metadata__", x}}),
                       "save_safetensors: no tensor may be named '__metadata__'", ValueError);
  CHECK_THROWS_WITH_AS(save_safetensors(path, {{"x", Tensor()}}),
                       "save_safetensors: 'x' is undefined", ValueError);
  CHECK_THROWS_WITH_AS(save_safetensors(path, {{"\xff", x}}),
                       "save_safetensors: '\xff' is not UTF-8", ValueError);
  CHECK_THROWS_WITH_AS(save_safetensors(path, {{"x", x}}, {{"k", "caf\xe9"}}),
                       "save_safetensors: 'caf\xe9' is not UTF-8", ValueError);
  CHECK(read_file(path) == old);
}

TEST_CASE("safetensors: a header whose length is wrong is refused before it is looked at") {
  CHECK(complaint_about("") == "it has 0 bytes, the length of the header alone takes 8");
  CHECK(complaint_about("1234567") == "it has 7 bytes, the length of the header alone takes 8");
  CHECK(complaint_about(bytes<std::uint64_t>({100'000'001}) + "{}") ==
        "the header's length, 100000001, is above 100000000");
  CHECK(complaint_about(bytes<std::uint64_t>({UINT64_MAX}) + "{}") ==
        "the header's length, 18446744073709551615, is above 100000000");
  CHECK(complaint_about(bytes<std::uint64_t>({3}) + "{}") ==
        "the header's length, 3, is above the 2 bytes that follow");
  CHECK(complaint_about(bytes<std::uint64_t>({0}) + "{}") ==
        "the header is not JSON at its byte 1");
}

TEST_CASE("safetensors: a file of another kind is called so, with what it begins with") {
  const auto other = [](const std::string& begin) {
    return "it is no safetensors file: it begins with '" + begin +
           "', where 8 bytes of length and a '{' must stand";
  };
  CHECK(complaint_about("These are only words.") == other("These are only w"));
  CHECK(complaint_about("PK\3\4 \x7f~\x80 zip") == other("PK\\x03\\x04 \\x7f~\\x80 zip"));
  CHECK(complaint_about(std::string("\x93NUMPY\1\0v\0{'descr'", 18)) ==
        other("\\x93NUMPY\\x01\\x00v\\x00{'desc"));
  CHECK(complaint_about(std::string(8, '\0')) == other("\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"));
  CHECK(complaint("[]") == other("\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00[]"));
  CHECK(complaint(" {}") == other("\\x03\\x00\\x00\\x00\\x00\\x00\\x00\\x00 {}"));
  CHECK(complaint("\xef\xbb\xbf{}") ==
        other("\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xef\\xbb\\xbf{}"));
}

TEST_CASE("safetensors: a header that is not JSON is refused") {
  CHECK(complaint("{") == "the header is not JSON at its byte 2");
  CHECK(complaint("{}}") == "the header is not JSON at its byte 3");
  CHECK(complaint("{} {}") == "the header is not JSON at its byte 4");
  CHECK(complaint("{\"a\"}") == "the header is not JSON at its byte 5");
  CHECK(complaint("{}/* */") == "the header is not JSON at its byte 3");
  CHECK(complaint(std::string_view("{}\0\0", 4)) == "the header holds a zero byte");
  CHECK(complaint("{\"\xff\":1}") == "the header is not JSON at its byte 3");
  CHECK(complaint("{\"\\ud800\":1}") == "the header is not JSON at its byte 9");
}

TEST_CASE("safetensors: a key that stands twice is refused") {
  const std::string entry = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  CHECK(complaint("{\"x\":" + entry + ",\"x\":" + entry + "}") == "the name 'x' stands twice");
  CHECK(complaint(R"({"__metadata__":{},"__metadata__":{}})") ==
        "the name '__metadata__' stands twice");
  CHECK(complaint(R"({"__metadata__":{"k":"1","k":"1"}})") ==
        "'__metadata__': the key 'k' stands twice");
  CHECK(complaint(R"({"x":{"dtype":"F32","dtype":"F32"}})") == "'x': the key 'dtype' stands twice");
}

TEST_CASE("safetensors: an entry that is not as the format says is refused") {
  CHECK(complaint(R"({"x":1})") == "'x': a number where an object must stand");
  CHECK(complaint(R"({"x":[]})") == "'x': an array where an object must stand");
  CHECK(complaint(R"({"x":null})") == "'x': null where an object must stand");
  CHECK(complaint(R"({"__metadata__":"k"})") ==
        "'__metadata__': a string where an object must stand");
  CHECK(complaint(R"({"__metadata__":{"k":1}})") ==
        "'__metadata__': 'k': a number where a string must stand");
  CHECK(complaint(R"({"__metadata__":{"k":{}}})") ==
        "'__metadata__': 'k': an object where a string must stand");
  CHECK(complaint(R"({"x":{}})") == "'x': dtype, shape and data_offsets must all be there");
  CHECK(complaint(R"({"x":{"dtype":"F32","shape":[]}})") ==
        "'x': dtype, shape and data_offsets must all be there");
  CHECK(complaint(R"({"x":{"device":"cpu"}})") == "'x': unknown key 'device'");
  CHECK(complaint(R"({"x":{"dtype":32}})") == "'x': 'dtype': a number where a string must stand");
  CHECK(complaint(R"({"x":{"shape":"2"}})") == "'x': 'shape': a string where an array must stand");
  CHECK(complaint(R"({"x":{"shape":{}}})") == "'x': 'shape': an object where an array must stand");
  CHECK(complaint(R"({"x":{"shape":[-1]}})") ==
        "'x': 'shape': a negative number where a size must stand");
  CHECK(complaint(R"({"x":{"shape":[2.0]}})") ==
        "'x': 'shape': the number 2.0 where a size must stand");
  CHECK(complaint(R"({"x":{"shape":[18446744073709551616]}})") ==
        "'x': 'shape': the number 18446744073709551616 where a size must stand");
  CHECK(complaint(R"({"x":{"shape":[true]}})") ==
        "'x': 'shape': true or false where a size must stand");
  CHECK(complaint(R"({"x":{"shape":[[2]]}})") == "'x': 'shape': an array where a size must stand");
  CHECK(complaint("{\"x\":" + std::string(100'000, '[')) ==
        "'x': an array where an object must stand");
  CHECK(complaint(R"({"x":{"dtype":"C64","shape":[],"data_offsets":[0,8]}})", "12345678") ==
        "'x': cannot read dtype 'C64'");
  CHECK(complaint(R"({"x":{"dtype":"f32","shape":[],"data_offsets":[0,4]}})", "1234") ==
        "'x': cannot read dtype 'f32'");
}

TEST_CASE("safetensors: sizes that overflow are refused") {
  const auto with_shape = [](const std::string& shape) {
    return complaint(R"({"x":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,0]}})");
  };
  const std::string expected = "'x': the shape is too large";
  CHECK(with_shape("[18446744073709551615]") == expected);
  CHECK(with_shape("[4611686018427387904]") == expected);
  CHECK(with_shape("[4294967296,4294967296]") == expected);
  CHECK(with_shape("[0,4294967296,4294967296]") == expected);
  CHECK(with_shape("[17592186044416,0]") == expected);
  CHECK(with_shape("[1099511627776,0]") == "");
}

TEST_CASE("safetensors: offsets that do not fit are refused") {
  const auto with_offsets = [](const std::string& offsets) {
    return complaint(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":)" + offsets + "}}",
                     "12345678");
  };
  CHECK(with_offsets("[0,8]") == "");
  CHECK(with_offsets("[]") == "'x': data_offsets must be two numbers");
  CHECK(with_offsets("[0,8,8]") == "'x': data_offsets must be two numbers");
  CHECK(with_offsets("[8,0]") ==
        "'x': data_offsets 8 to 0 do not lie in the data, which have 8 bytes");
  CHECK(with_offsets("[1,9]") ==
        "'x': data_offsets 1 to 9 do not lie in the data, which have 8 bytes");
  CHECK(with_offsets("[0,18446744073709551615]") ==
        "'x': data_offsets 0 to 18446744073709551615 do not lie in the data, which have 8 bytes");
  CHECK(with_offsets("[0,4]") == "'x': data_offsets hold 4 bytes, dtype and shape need 8");
}

TEST_CASE("safetensors: holes, overlaps and bytes that are left over are refused") {
  const auto two = [](const std::string& first, const std::string& second) {
    return complaint(R"({"x":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                         R"(},"y":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                     "0123456789");
  };
  CHECK(two("[0,4]", "[4,8]") == "bytes 8 to 10 of the data are no tensor's");
  CHECK(two("[0,4]", "[6,10]") == "bytes 4 to 6 of the data are no tensor's");
  CHECK(two("[6,10]", "[2,6]") == "bytes 0 to 2 of the data are no tensor's");
  CHECK(two("[0,4]", "[3,7]") == "'y': its data overlap those of another tensor");
  CHECK(two("[0,4]", "[0,4]") == "'y': its data overlap those of another tensor");
  CHECK(complaint("{}", "1") == "bytes 0 to 1 of the data are no tensor's");
  CHECK(complaint(R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                  R"("y":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})",
                  "12") == "'y': its data overlap those of another tensor");
}

TEST_CASE("safetensors: values that the element type does not hold are refused") {
  CHECK(complaint(R"({"x":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\1\2") ==
        "'x': a BOOL is 2, must be 0 or 1");
  CHECK(complaint(R"({"x":{"dtype":"U64","shape":[],"data_offsets":[0,8]}})",
                  bytes<std::uint64_t>({std::uint64_t{1} << 63})) ==
        "'x': the U64 9223372036854775808 is above the largest i64");
}

TEST_CASE("safetensors: a file cut off anywhere is refused") {
  const std::string whole =
      with_length(R"({"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc");
  CHECK(complaint_about(whole) == "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(complaint_about(whole.substr(0, size)) != "");
  }
}

TEST_CASE("safetensors: one with any byte changed is read or refused, and nothing else happens") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  save_safetensors(path, {{"x", ones({2, 3})}, {"y", tensor({1, 2}, DType::i64)}}, {{"k", "v"}});
  const std::string whole = read_file(path);
  std::int64_t refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const char byte : {'\0', '\x01', ' ', ',', '0', '9', '"', '}', '\xff'}) {
      std::string changed = whole;
      changed[i] = byte;
      std::ofstream(path, std::ios::binary) << changed;
      try {
        load_safetensors(path);
      } catch (const FileError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 300);
}
