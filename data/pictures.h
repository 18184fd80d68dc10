#pragma once
/// Pictures with the sentences that describe them.

#include <string>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// Pictures of one size, and a caption for each.
struct CaptionedPictures {
  Tensor pixels;                                   ///< f32 [N, height, width, 3], 0 to 1
  std::vector<std::vector<std::string>> captions;  ///< [N] words, or none at all
};

/// Pictures from a .npy file, an array [N, height, width, 3] of numbers from 0 to 1 or of integers
/// from 0 to 255: f32, 0 to 1. Throws FileError as load_npy, and for what is no such array.
Tensor read_pictures(const std::string& path);

/// The same with their captions: a text file with a line for each, words between white space.
/// Throws FileError as read_text, and, naming path and line, where one is missing.
CaptionedPictures read_pictures(const std::string& path, const std::string& captions_path);

/// What a model that describes pictures has to beat: for each of `pixels` [N, height, width, 3] the
/// caption of the most similar picture that is known, by the squared distance. Throws ShapeError
/// for pictures of another size.
std::vector<std::vector<std::string>> nearest_captions(const CaptionedPictures& known,
                                                       const Tensor& pixels);

}  // namespace unroll
