// .npy files: those that NumPy writes, our own, and all that is refused.

#include "framework/npy.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/ops.h"
#include "tests/compare.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using unroll::test::TemporaryDirectory;

namespace {

Tensor of_numpy(const std::string& name) {
  return load_npy(UNROLL_SOURCE_DIR "/tests/reference/npy/" + name + ".npy");
}

template <class T>
std::string bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// A file of version 1.0.
std::string file_of(const std::string& header, const std::string& data) {
  const auto length = static_cast<std::uint16_t>(header.size());
  return std::string("\x93NUMPY\1\0", 8) + bytes<std::uint16_t>({length}) + header + data;
}

std::string file_with_shape(const std::string& shape, const std::string& data = "") {
  return file_of("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + "}\n", data);
}

/// What load_npy says about such a file, without the path; "" if it takes it.
std::string complaint(const std::string& contents) {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  write_file_atomically(path, contents);
  try {
    load_npy(path);
  } catch (const FileError& error) {
    const std::string prefix = "cannot read '" + path + "': ", what = error.what();
    REQUIRE(what.substr(0, prefix.size()) == prefix);
    return what.substr(prefix.size());
  }
  return "";
}

std::string header_complaint(const std::string& header) { return complaint(file_of(header, "")); }

}  // namespace

// --- Both ways ----------------------------------------------------------------------------------

TEST_CASE("npy: all element types that NumPy writes are read without loss") {
  const Tensor expected = tensor({{0, 1, 2}, {3, 4, 5}});
  for (const char* name : {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}) {
    CAPTURE(name);
    const Tensor x = of_numpy(name);
    const std::string type = name;
    CHECK(x.dtype() == (type == "f8" ? DType::f64 : type[0] == 'f' ? DType::f32 : DType::i64));
    CHECK(max_difference(x, expected) == 0.0);
  }
  CHECK(of_numpy("b1").dtype() == DType::i64);
  CHECK(max_difference(of_numpy("b1"), tensor({{0, 1, 1}, {0, 1, 1}})) == 0.0);
}

TEST_CASE("npy: all versions, ranks and both orders are read") {
  CHECK(max_difference(of_numpy("version2"), tensor({0, 1, 2})) == 0.0);
  CHECK(max_difference(of_numpy("version3"), tensor({0, 1, 2})) == 0.0);
  CHECK(of_numpy("scalar").shape() == Shape{});
  CHECK(of_numpy("scalar").item() == 7.0);
  CHECK(of_numpy("empty").shape() == Shape{2, 0, 3});
  const Tensor fortran = of_numpy("fortran");
  CHECK(fortran.is_contiguous());
  CHECK(max_difference(fortran, reshape(arange(24), {2, 3, 4})) == 0.0);
}

TEST_CASE("npy: what is saved is loaded") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  const Tensor x = tensor({{1.5, -2.0, 3.25}, {0.0, 1e-30, 1e30}}).requires_grad_();
  for (const Tensor& saved :
       {x, tensor({-1, 0, 7}, DType::i64), tensor(-0.1, DType::f64), zeros({0, 3}), transpose(x),
        flip(x, 1), select(x, 1, 2), ones({1, 2, 1, 2, 1, 2, 1, 2})}) {
    save_npy(path, saved);
    const Tensor loaded = load_npy(path);
    CHECK(loaded.dtype() == saved.dtype());
    CHECK(max_difference(loaded, saved) == 0.0);
    CHECK_FALSE(loaded.requires_grad());
  }
  CHECK(directory.names() == std::vector<std::string>{"a.npy"});
}

TEST_CASE("npy: the file is laid out as NumPy lays it out") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  for (const char* name : {"f4", "f8", "i8", "scalar", "empty"}) {
    CAPTURE(name);
    save_npy(path, of_numpy(name));
    CHECK(read_file(path) ==
          read_file(UNROLL_SOURCE_DIR "/tests/reference/npy/" + std::string(name) + ".npy"));
  }
}

TEST_CASE("npy: headers of other programs are read") {
  const std::string data = bytes<float>({1, 2});
  TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  for (const char* header : {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }      \n",
                             "{'shape':(2,),'fortran_order':False,'descr':'<f4'}\n",
                             "  { \"descr\" : \"<f4\" , \"shape\" : ( 2 , ) , "
                             "\"fortran_order\" : True }\n"}) {
    CAPTURE(header);
    write_file_atomically(path, file_of(header, data));
    CHECK(max_difference(load_npy(path), tensor({1, 2})) == 0.0);
  }
  write_file_atomically(path, file_with_shape("(1, 2,)", data));
  CHECK(load_npy(path).shape() == Shape{1, 2});
  // The header's length has a low byte of 128 or more.
  write_file_atomically(path, file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}" +
                                          std::string(150, ' ') + "\n",
                                      data));
  CHECK(max_difference(load_npy(path), tensor({1, 2})) == 0.0);
}

// --- What is refused ----------------------------------------------------------------------------

TEST_CASE("npy: what cannot be read or written is an error") {
  TemporaryDirectory directory;
  const std::string path = directory.file("missing/a.npy");
  CHECK_THROWS_WITH_AS(
      load_npy(path), ("cannot read '" + path + "': No such file or directory").c_str(), FileError);
  CHECK_THROWS_WITH_AS(save_npy(path, ones({1})),
                       ("cannot write '" + path + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(save_npy("/dev/full", ones({1})),
                       "cannot write '/dev/full': No space left on device", FileError);
  CHECK_THROWS_WITH_AS(save_npy(path, Tensor()), "save_npy: the tensor is undefined", ValueError);
}

TEST_CASE("npy: a file cut off anywhere is refused, and one that is too long") {
  const std::string whole = read_file(UNROLL_SOURCE_DIR "/tests/reference/npy/i2.npy");
  CHECK(complaint(whole) == "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(complaint(whole.substr(0, size)) != "");
  }
  CHECK(complaint("") == "it does not begin with \\x93NUMPY");
  CHECK(complaint("PK\3\4") == "it does not begin with \\x93NUMPY");
  CHECK(complaint(whole.substr(0, 7)) == "it ends in its version");
  CHECK(complaint(whole.substr(0, 9)) == "it ends in its header's length");
  CHECK(complaint(whole.substr(0, 20)) ==
        "the header's length, 118, is above the 10 bytes that follow");
  CHECK(complaint(whole.substr(0, whole.size() - 1)) ==
        "shape (2, 3) and descr '<i2' need 12 bytes of data, there are 11");
  CHECK(complaint(whole + "x") ==
        "shape (2, 3) and descr '<i2' need 12 bytes of data, there are 13");
  std::string other = whole;
  other[6] = 4;
  CHECK(complaint(other) == "version 4.0 is not 1.0, 2.0 or 3.0");
  other[6] = 1, other[7] = 1;
  CHECK(complaint(other) == "version 1.1 is not 1.0, 2.0 or 3.0");
}

TEST_CASE("npy: huge shapes are refused before memory is asked for") {
  const std::string too_large = "the shape is too large";
  CHECK(complaint(file_with_shape("(1099511627776,)")) ==
        "shape (1099511627776,) and descr '<f4' need 4398046511104 bytes of data, there are 0");
  CHECK(complaint(file_with_shape("(18446744073709551615,)")) == too_large);
  CHECK(complaint(file_with_shape("(18446744073709551616,)")) == too_large);
  CHECK(complaint(file_with_shape("(4294967296, 4294967296)")) == too_large);
  CHECK(complaint(file_with_shape("(0, 4294967296, 4294967296)")) == too_large);
  CHECK(complaint(file_with_shape("(4611686018427387904,)")) == too_large);
  CHECK(complaint(file_with_shape("(1099511627776, 0)")) == "");
}

TEST_CASE("npy: a header that is not as the format says is refused") {
  const auto at = [](int byte) {
    return "the header is not understood at its byte " + std::to_string(byte);
  };
  CHECK(header_complaint("") == at(0));
  CHECK(header_complaint("\n") == at(0));
  CHECK(header_complaint("{\n") == at(1));
  CHECK(header_complaint("{'descr'}\n") == at(8));
  CHECK(header_complaint("{'descr: '<f4'}\n") == at(10));
  CHECK(header_complaint("{'descr': <f4}\n") == at(10));
  CHECK(header_complaint("{'descr': 'f\\x34'}\n") == at(10));
  CHECK(header_complaint("{'fortran_order': 0}\n") == at(18));
  CHECK(header_complaint("{'fortran_order': Falsehood}\n") == at(23));
  CHECK(header_complaint("{'shape': 3}\n") == at(10));
  CHECK(header_complaint("{'shape': (3)}\n") == at(12));
  CHECK(header_complaint("{'shape': (-3,)}\n") == at(11));
  CHECK(header_complaint("{'shape': (3.0,)}\n") == at(12));
  CHECK(header_complaint("{'shape': (,)}\n") == at(11));
  CHECK(header_complaint("{'shape': (1, 2}\n") == at(15));
  CHECK(header_complaint("{'shape': (1 2)}\n") == at(13));
  CHECK(header_complaint("{'shape': (1,) 'descr': '<f4'}\n") == at(15));
  CHECK(header_complaint("{'size': 3}\n") == "unknown key 'size'");
  CHECK(header_complaint("{'shape': (1,), 'shape': (1,)}\n") == "the key 'shape' stands twice");
  CHECK(header_complaint("{'descr': '<f4', 'shape': (1,)}\n") ==
        "descr, fortran_order and shape must all be there");
  CHECK(header_complaint("{'descr': '<f4'}") == "the header does not end with a line break");
  CHECK(header_complaint("{'descr': '<f4'} {}\n") == at(16));
}

TEST_CASE("npy: other element types are refused by name") {
  const auto with_descr = [](const std::string& descr) {
    return header_complaint("{'descr': " + descr + ", 'fortran_order': False, 'shape': (0,)}\n");
  };
  CHECK(with_descr("'<f4'") == "");
  for (const std::string descr : {">f8", "<c16", "|O", "<U5", "|S3", "<M8[ns]", "<f16", "f4", ""})
    CHECK(with_descr("'" + descr + "'") ==
          "cannot read descr '" + descr + "': only bool and little-endian numbers");
  CHECK(with_descr("[('x', '<f4')]") == "records are not read");
  CHECK_THROWS_WITH_AS(of_numpy("big_endian"),
                       "cannot read '" UNROLL_SOURCE_DIR
                       "/tests/reference/npy/big_endian.npy': cannot read descr '>f8': only bool "
                       "and little-endian numbers",
                       FileError);
}

TEST_CASE("npy: values that the element type does not hold are refused") {
  const auto with = [](const std::string& descr, const std::string& data) {
    return complaint(
        file_of("{'descr': '" + descr + "', 'fortran_order': False, 'shape': ()}\n", data));
  };
  CHECK(with("<u8", bytes<std::uint64_t>({INT64_MAX})) == "");
  CHECK(with("<u8", bytes<std::uint64_t>({std::uint64_t{1} << 63})) ==
        "the U64 9223372036854775808 is above the largest i64");
  CHECK(with("|b1", "\2") == "a BOOL is 2, must be 0 or 1");
}

TEST_CASE("npy: a file with any one byte changed is read or refused, and nothing else happens") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a.npy");
  const std::string whole = read_file(UNROLL_SOURCE_DIR "/tests/reference/npy/fortran.npy");
  std::int64_t refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const char byte : {'\0', '\x01', ' ', ',', '0', '9', '\'', '\xff'}) {
      std::string changed = whole;
      changed[i] = byte;
      std::ofstream(path, std::ios::binary) << changed;
      try {
        load_npy(path);
      } catch (const FileError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 300);
}
