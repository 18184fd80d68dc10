#pragma once
/// From a text file to tokens. All text is UTF-8, and what is not is refused with its place.
///
///     std::vector<std::string> lines = read_lines("book.txt");
///     for (std::string& line : lines) line = letters_only(line);
///     std::vector<std::string> tokens = split_characters(join(lines));

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace unroll {

/// A text file as one string: its line ends become "\n" (from "\r\n", too) and a byte order mark
/// at its start goes. Throws FileError, naming the path and the reason, for a file that can't be
/// read, and naming path, line and byte offset for one that is not UTF-8.
std::string read_text(const std::string& path);

/// The lines of a text file: split_lines(read_text(path)).
std::vector<std::string> read_lines(const std::string& path);

/// The lines of a text, without their ends ("\n" or "\r\n"). The end of the last line may be
/// missing; an empty text has no line.
std::vector<std::string> split_lines(std::string_view text);

/// Every run of bytes other than A-Z and a-z becomes one space, spaces at both ends go, and letters
/// become lower-case: "The Time-Machine, by H. G. Wells" gives "the time machine by h g wells".
std::string letters_only(std::string_view text);

/// What stands between white space (of Unicode, so the ideographic space splits too); never an
/// empty word. Throws ValueError, naming the byte offset, for text that is not UTF-8.
std::vector<std::string> split_words(std::string_view text);

/// Every letter that has a lower-case form becomes that: "Élan" gives "élan". Throws ValueError,
/// naming the byte offset, for text that is not UTF-8.
std::string lower_case(std::string_view text);

/// Words as split_words, but a punctuation mark (, . ; : ! ? and their Chinese and wide forms,
/// quotation marks, brackets) is a token of its own unless it stands between two digits: "Go on,
/// it's 10:30!" gives {"Go", "on", ",", "it's", "10:30", "!"}. Apostrophes and hyphens belong to
/// the word. Throws ValueError, naming the byte offset, for text that is not UTF-8.
std::vector<std::string> split_punctuation(std::string_view text);

/// The code points of a text, each as a UTF-8 string: "né" gives {"n", "é"}. Throws ValueError,
/// naming the byte offset, for text that is not UTF-8.
std::vector<std::string> split_characters(std::string_view text);

/// A finite decimal number such as "-12.5e3", with or without spaces and tabs around it; nothing
/// for every other text.
std::optional<double> parse_number(std::string_view text);

/// All parts in a row, with the separator between two: the way back from tokens to text.
std::string join(const std::vector<std::string>& parts, std::string_view separator = "");

}  // namespace unroll
