#include "framework/npy.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/stored.h"

namespace unroll {
namespace {

using detail::invalid, detail::Stored;

constexpr std::string_view kMagic = "\x93NUMPY";

constexpr std::pair<std::string_view, Stored> kTypes[] = {
    {"<f2", Stored::f16}, {"<f4", Stored::f32}, {"<f8", Stored::f64}, {"|i1", Stored::i8},
    {"<i2", Stored::i16}, {"<i4", Stored::i32}, {"<i8", Stored::i64}, {"|u1", Stored::u8},
    {"<u2", Stored::u16}, {"<u4", Stored::u32}, {"<u8", Stored::u64}, {"|b1", Stored::boolean},
};

// --- The header ---------------------------------------------------------------------------------

struct Header {
  std::string descr;
  bool fortran_order;
  std::vector<std::uint64_t> shape;
};

/// Reads the part of Python's notation that a header is written in.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : text_(text) {}

  Header read() {
    std::optional<std::string> descr;
    std::optional<bool> fortran_order;
    std::optional<std::vector<std::uint64_t>> shape;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      const auto once = [&](auto& value) -> auto& {
        if (value) invalid("the key '{}' stands twice", key);
        return value;
      };
      if (key == "descr") {
        if (next() == '[') invalid("records are not read");
        once(descr) = string();
      } else if (key == "fortran_order") {
        once(fortran_order) = boolean();
      } else if (key == "shape") {
        once(shape) = tuple();
      } else {
        invalid("unknown key '{}'", key);
      }
      if (!accept(',') && next() != '}') fail();
    }
    if (!text_.ends_with('\n')) invalid("the header does not end with a line break");
    if (text_.find_first_not_of(' ', at_) != text_.size() - 1) fail();
    if (!descr || !fortran_order || !shape)
      invalid("descr, fortran_order and shape must all be there");
    return {*descr, *fortran_order, *shape};
  }

 private:
  [[noreturn]] void fail() const { invalid("the header is not understood at its byte {}", at_); }

  /// The next character that is no space; 0 at the end.
  char next() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (next() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail();
  }
  bool accept(std::string_view word) {
    next();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  std::string string() {
    const char quote = next();
    if (quote != '\'' && quote != '"') fail();
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == text_.npos) fail();
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    if (value.find('\\') != value.npos) fail();
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    if (accept("True")) return true;
    if (!accept("False")) fail();
    return false;
  }

  std::uint64_t number() {
    const char first = next();
    if (first < '0' || first > '9') fail();
    std::uint64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if (__builtin_mul_overflow(value, 10u, &value) ||
          __builtin_add_overflow(value, static_cast<std::uint64_t>(text_[at_] - '0'), &value))
        invalid("the shape is too large");
    return value;
  }

  /// (), (2,), (2, 3) or (2, 3,); (2) is a number.
  std::vector<std::uint64_t> tuple() {
    std::vector<std::uint64_t> values;
    expect('(');
    while (!accept(')')) {
      values.push_back(number());
      if (!accept(',') && (next() != ')' || values.size() == 1)) fail();
    }
    return values;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// --- The file -----------------------------------------------------------------------------------

/// Takes the first n bytes off.
std::string_view take(std::string_view& rest, std::size_t n, const char* what) {
  if (rest.size() < n) invalid("it ends in its {}", what);
  const std::string_view part = rest.substr(0, n);
  rest.remove_prefix(n);
  return part;
}

std::uint32_t little_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size());
  return value;
}

std::string tuple(const std::vector<std::int64_t>& sizes) {
  return sizes.size() == 1 ? detail::format("({},)", sizes[0])
                           : to_string(Shape(sizes));  // is Python's notation
}

Tensor parse(std::string_view rest) {
  if (!rest.starts_with(kMagic)) invalid("it does not begin with \\x93NUMPY");
  rest.remove_prefix(kMagic.size());
  const std::string_view version = take(rest, 2, "version");
  const int major = static_cast<unsigned char>(version[0]);
  const int minor = static_cast<unsigned char>(version[1]);
  if (major < 1 || major > 3 || minor != 0)
    invalid("version {}.{} is not 1.0, 2.0 or 3.0", major, minor);
  const std::uint32_t length = little_endian(take(rest, major == 1 ? 2 : 4, "header's length"));
  if (length > rest.size())
    invalid("the header's length, {}, is above the {} bytes that follow", length, rest.size());
  Header header = HeaderReader(take(rest, length, "header")).read();

  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](const auto& entry) { return entry.first == header.descr; });
  if (type == std::end(kTypes))
    invalid("cannot read descr '{}': only bool and little-endian numbers", header.descr);
  const std::uint64_t bytes = detail::bytes_of(type->second, header.shape);
  if (bytes != rest.size())
    invalid("shape {} and descr '{}' need {} bytes of data, there are {}",
            tuple({header.shape.begin(), header.shape.end()}), header.descr, bytes, rest.size());
  if (!header.fortran_order) return detail::read_stored(type->second, rest.data(), header.shape);

  std::reverse(header.shape.begin(), header.shape.end());
  const Tensor reversed = detail::read_stored(type->second, rest.data(), header.shape);
  Shape order;
  for (std::int64_t d = reversed.dim(); d-- > 0;) order.push_back(d);
  return permute(reversed, order).contiguous();
}

const char* descr_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "<f4";
    case DType::f64: return "<f8";
    default: return "<i8";
  }
}

}  // namespace

void save_npy(const std::string& path, const Tensor& tensor) {
  if (!tensor.defined()) throw ValueError("save_npy: the tensor is undefined");
  std::string header = detail::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
                                      descr_of(tensor.dtype()),
                                      tuple({tensor.shape().begin(), tensor.shape().end()}));
  const std::size_t fixed = kMagic.size() + 2 + 2;  // with version and length
  const std::size_t padded = (fixed + header.size() + 1 + 63) / 64 * 64 - fixed;
  if (padded > 0xffff) throw ValueError("save_npy: the tensor has too many dimensions");
  header.resize(padded - 1, ' ');
  header += '\n';

  std::string file(kMagic);
  file += {'\1', '\0', static_cast<char>(padded & 0xff), static_cast<char>(padded >> 8)};
  file += header;
  const Tensor values = detail::dense(tensor);
  file.append(static_cast<const char*>(detail::read(values)),
              static_cast<std::size_t>(values.numel() * size_of(values.dtype())));
  write_file_atomically(path, file);
}

Tensor load_npy(const std::string& path) { return detail::parse_file(path, parse); }

}  // namespace unroll
