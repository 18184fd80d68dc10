#pragma once
/// Whole files, in and out.

#include <string>
#include <string_view>

namespace unroll {

/// The bytes of a file. Throws FileError, naming the path and the system's reason.
std::string read_file(const std::string& path);

/// Writes to a temporary file beside `path`, flushes it to disk and renames it, so that `path`
/// holds either the old or the whole new contents, whatever happens. A symbolic link stays one:
/// the file behind it is replaced. /dev/stdout and what is no regular file (a pipe) are written to
/// directly. Throws FileError, naming the path and the system's reason; then no temporary file is
/// left.
void write_file_atomically(const std::string& path, std::string_view contents);

}  // namespace unroll
