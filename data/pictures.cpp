#include "data/pictures.h"

#include <cstddef>
#include <cstdint>

#include "data/text.h"
#include "framework/check.h"
#include "framework/format.h"
#include "framework/npy.h"
#include "framework/ops.h"

namespace unroll {

Tensor read_pictures(const std::string& path) {
  const Tensor array = load_npy(path);
  if (array.dim() != 4 || array.size(3) != 3 || array.numel() == 0)
    detail::fail<FileError>(
        "cannot read '{}': expected an array (pictures, height, width, 3), got {}", path,
        to_string(array.shape()));
  Tensor pixels = array.to(DType::f32);
  if (array.dtype() == DType::i64) pixels = pixels / 255.0;
  const double low = min(pixels).item(), high = max(pixels).item();
  if (!(low >= 0 && high <= 1))
    detail::fail<FileError>(
        "cannot read '{}': numbers must be from 0 to 1 (or integers from 0 to 255), "
        "but are from {} to {}",
        path, low, high);
  return pixels;
}

CaptionedPictures read_pictures(const std::string& path, const std::string& captions_path) {
  CaptionedPictures pictures{read_pictures(path), {}};
  for (const std::string& line : read_lines(captions_path)) {
    pictures.captions.push_back(split_words(line));
    if (pictures.captions.back().empty())
      detail::fail<FileError>("cannot read '{}': line {}: there is no caption", captions_path,
                              pictures.captions.size());
  }
  if (std::ssize(pictures.captions) != pictures.pixels.size(0))
    detail::fail<FileError>("'{}' has {} pictures, but '{}' has {} lines", path,
                            pictures.pixels.size(0), captions_path, pictures.captions.size());
  return pictures;
}

std::vector<std::vector<std::string>> nearest_captions(const CaptionedPictures& known,
                                                       const Tensor& pixels) {
  const Tensor a = reshape(pixels, {pixels.size(0), -1}),
               b = reshape(known.pixels, {known.pixels.size(0), -1});
  // |a - b|^2 without what is the same for all b.
  const Tensor nearest = argmax(2.0 * matmul(a, transpose(b)) - sum(square(b), 1), -1);
  std::vector<std::vector<std::string>> captions;
  for (std::int64_t i : nearest.to_vector<std::int64_t>())
    captions.push_back(known.captions[static_cast<std::size_t>(i)]);
  return captions;
}

}  // namespace unroll
