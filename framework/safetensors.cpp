#include "framework/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/format.h"
#include "framework/internal.h"
#include "framework/stored.h"

namespace unroll {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

using detail::Invalid, detail::invalid, detail::Stored;

// --- The header ---------------------------------------------------------------------------------

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> offsets;
};

/// Takes the JSON of a header event by event, so that nothing passes unseen: a key that stands
/// twice, a number that is no u64, a field too many.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  Metadata metadata;

  bool start_object(std::size_t) override {
    if (place_ == Place::start) return go(Place::top);
    if (place_ != Place::top) unexpected("an object");
    keys_.clear();
    if (name_ == kMetadata) return go(Place::metadata);
    entries.push_back({name_, {}, {}, {}});
    return go(Place::entry);
  }

  bool key(std::string& key) override {
    if (place_ == Place::top) {
      if (!names_.insert(key).second) invalid("the name '{}' stands twice", key);
    } else {
      if (!keys_.insert(key).second) invalid("'{}': the key '{}' stands twice", name_, key);
      if (place_ == Place::entry && !is_field(key)) invalid("'{}': unknown key '{}'", name_, key);
    }
    (place_ == Place::top ? name_ : key_) = key;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::entry && keys_.size() != std::size(kFields)) {
      invalid("'{}': dtype, shape and data_offsets must all be there", name_);
    }
    return go(Place::top);
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::entry && key_ == "shape") return go(Place::shape);
    if (place_ == Place::entry && key_ == "data_offsets") return go(Place::offsets);
    unexpected("an array");
  }

  bool end_array() override { return go(Place::entry); }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ == Place::shape) {
      entries.back().shape.push_back(value);
    } else if (place_ == Place::offsets) {
      entries.back().offsets.push_back(value);
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      metadata[key_] = value;
    } else if (place_ == Place::entry && key_ == "dtype") {
      entries.back().dtype = value;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("true or false"); }
  bool number_integer(std::int64_t) override { unexpected("a negative number"); }
  bool number_float(double, const std::string& text) override { unexpected("the number " + text); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    invalid("the header is not JSON at its byte {}", position);
  }

 private:
  enum class Place { start, top, metadata, entry, shape, offsets };
  static constexpr const char* kFields[] = {"dtype", "shape", "data_offsets"};

  static bool is_field(const std::string& key) {
    return std::find(std::begin(kFields), std::end(kFields), key) != std::end(kFields);
  }

  bool go(Place place) {
    place_ = place;
    return true;
  }

  [[noreturn]] void unexpected(const std::string& what) const {
    switch (place_) {
      case Place::top: invalid("'{}': {} where an object must stand", name_, what);
      case Place::metadata:
        invalid("'{}': '{}': {} where a string must stand", kMetadata, key_, what);
      case Place::entry:
        invalid("'{}': '{}': {} where {} must stand", name_, key_, what,
                key_ == "dtype" ? "a string" : "an array");
      default: invalid("'{}': '{}': {} where a size must stand", name_, key_, what);
    }
  }

  Place place_ = Place::start;
  std::string name_, key_;
  std::set<std::string> names_, keys_;
};

// --- Values -------------------------------------------------------------------------------------

constexpr std::pair<std::string_view, Stored> kTypes[] = {
    {"F32", Stored::f32},      {"F64", Stored::f64}, {"F16", Stored::f16}, {"BF16", Stored::bf16},
    {"I64", Stored::i64},      {"I32", Stored::i32}, {"I16", Stored::i16}, {"I8", Stored::i8},
    {"U64", Stored::u64},      {"U32", Stored::u32}, {"U16", Stored::u16}, {"U8", Stored::u8},
    {"BOOL", Stored::boolean},
};

Stored type_of(const Entry& entry) {
  for (const auto& [name, type] : kTypes) {
    if (name == entry.dtype) return type;
  }
  invalid("'{}': cannot read dtype '{}'", entry.name, entry.dtype);
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::f64: return "F64";
    default: return "I64";
  }
}

// --- Reading ------------------------------------------------------------------------------------

/// f(), with the entry's name in front of what is wrong.
template <class F>
auto named(const Entry& entry, F&& f) {
  try {
    return f();
  } catch (const Invalid& error) {
    invalid("'{}': {}", entry.name, error.what);
  }
}

/// Checks one entry by itself: the offsets fit the shape and the dtype and lie in the data.
void check_entry(const Entry& entry, std::uint64_t data_size) {
  const Stored type = type_of(entry);
  const std::uint64_t bytes = named(entry, [&] { return detail::bytes_of(type, entry.shape); });
  if (entry.offsets.size() != 2) invalid("'{}': data_offsets must be two numbers", entry.name);
  const auto [begin, end] = std::pair(entry.offsets[0], entry.offsets[1]);
  if (begin > end || end > data_size) {
    invalid("'{}': data_offsets {} to {} do not lie in the data, which have {} bytes", entry.name,
            begin, end, data_size);
  }
  if (end - begin != bytes) {
    invalid("'{}': data_offsets hold {} bytes, dtype and shape need {}", entry.name, end - begin,
            bytes);
  }
}

/// Checks that the entries share the data out among themselves, with no hole and no overlap.
void check_layout(const std::vector<Entry>& entries, std::uint64_t data_size) {
  std::vector<const Entry*> sorted;
  sorted.reserve(entries.size());
  for (const Entry& entry : entries) sorted.push_back(&entry);
  std::sort(sorted.begin(), sorted.end(),
            [](const Entry* a, const Entry* b) { return a->offsets < b->offsets; });

  std::uint64_t position = 0;
  for (const Entry* entry : sorted) {
    const std::uint64_t begin = entry->offsets[0];
    if (begin < position) invalid("'{}': its data overlap those of another tensor", entry->name);
    if (begin > position) invalid("bytes {} to {} of the data are no tensor's", position, begin);
    position = entry->offsets[1];
  }
  if (position != data_size) {
    invalid("bytes {} to {} of the data are no tensor's", position, data_size);
  }
}

/// The first bytes of a file, with \x and two digits for those that cannot be printed.
std::string beginning(std::string_view file) {
  std::string text;
  for (const char c : file.substr(0, 16)) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte >= 0x20 && byte < 0x7f ? std::string(1, c) : detail::format("\\x{:02x}", byte);
  }
  return text;
}

TensorFile parse(std::string_view file) {
  std::uint64_t header_size = 0;
  if (file.size() < sizeof header_size) {
    invalid("it has {} bytes, the length of the header alone takes 8", file.size());
  }
  std::memcpy(&header_size, file.data(), sizeof header_size);
  if (!file.substr(sizeof header_size).starts_with('{')) {
    invalid(
        "it is no safetensors file: it begins with '{}', where 8 bytes of length and a '{{' must "
        "stand",
        beginning(file));
  }
  file.remove_prefix(sizeof header_size);
  if (header_size > kMaxHeader) {
    invalid("the header's length, {}, is above {}", header_size, kMaxHeader);
  }
  if (header_size > file.size()) {
    invalid("the header's length, {}, is above the {} bytes that follow", header_size, file.size());
  }

  const std::string_view header = file.substr(0, header_size);
  const std::string_view data = file.substr(header_size);
  // To nlohmann's parser a zero byte is the end.
  if (header.find('\0') != header.npos) invalid("the header holds a zero byte");
  HeaderReader reader;
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);

  for (const Entry& entry : reader.entries) check_entry(entry, data.size());
  check_layout(reader.entries, data.size());

  TensorFile result{{}, std::move(reader.metadata)};
  for (const Entry& entry : reader.entries) {
    const char* values = data.data() + entry.offsets[0];
    result.tensors.emplace_back(entry.name, named(entry, [&] {
                                  return detail::read_stored(type_of(entry), values, entry.shape);
                                }));
  }
  return result;
}

// --- Writing ------------------------------------------------------------------------------------

std::string quoted(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    detail::fail<ValueError>("save_safetensors: '{}' is not UTF-8", text);
  }
}

std::int64_t bytes_of(const Tensor& tensor) { return tensor.numel() * size_of(tensor.dtype()); }

std::string json_metadata(const Metadata& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    if (!text.empty()) text += ",";
    text += detail::format("{}:{}", quoted(key), quoted(value));
  }
  return detail::format("{}:{{{}}}", quoted(kMetadata), text);
}

std::string json_entry(const std::string& name, const Tensor& tensor, std::int64_t begin) {
  std::string shape;
  for (std::int64_t size : tensor.shape()) {
    if (!shape.empty()) shape += ",";
    shape += std::to_string(size);
  }
  return detail::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(name),
                        dtype_name(tensor.dtype()), shape, begin, begin + bytes_of(tensor));
}

}  // namespace

void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const Metadata& metadata) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (name == kMetadata) {
      detail::fail<ValueError>("save_safetensors: no tensor may be named '{}'", name);
    }
    if (!names.insert(name).second) {
      detail::fail<ValueError>("save_safetensors: two tensors are named '{}'", name);
    }
    if (!tensor.defined()) {
      detail::fail<ValueError>("save_safetensors: '{}' is undefined", name);
    }
  }

  // The header names the tensors in the order given. The data of the larger element types come
  // first, so that all are aligned.
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(tensors[a].second.dtype()) > size_of(tensors[b].second.dtype());
  });
  std::vector<std::int64_t> begin(tensors.size());
  std::int64_t data_size = 0;
  for (std::size_t i : order) {
    begin[i] = data_size;
    data_size += bytes_of(tensors[i].second);
  }

  std::string header = metadata.empty() ? "" : json_metadata(metadata);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!header.empty()) header += ",";
    header += json_entry(tensors[i].first, tensors[i].second, begin[i]);
  }
  header = detail::format("{{{}}}", header);
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t header_size = header.size();
  if (header_size > kMaxHeader) {
    detail::fail<ValueError>("save_safetensors: the header has {} bytes, {} are allowed",
                             header_size, kMaxHeader);
  }

  std::string file;
  file.reserve(sizeof header_size + header_size + static_cast<std::size_t>(data_size));
  file.append(reinterpret_cast<const char*>(&header_size), sizeof header_size);
  file.append(header);
  for (std::size_t i : order) {
    const Tensor values = detail::dense(tensors[i].second);
    file.append(static_cast<const char*>(detail::read(values)),
                static_cast<std::size_t>(bytes_of(values)));
  }
  write_file_atomically(path, file);
}

TensorFile load_safetensors(const std::string& path) { return detail::parse_file(path, parse); }

}  // namespace unroll
