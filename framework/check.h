#pragma once
/// Errors. Everything that unroll throws derives from `Error`, and every message names the
/// operation, what it was given and the rule that failed.

#include <stdexcept>
#include <string>

namespace unroll {

/// Base of all errors of this library.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Shapes that don't fit together, or a dimension that a tensor does not have.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A dtype that an operation does not take, or two that differ.
class DTypeError : public Error {
 public:
  using Error::Error;
};

/// An index outside of its range.
class IndexError : public Error {
 public:
  using Error::Error;
};

/// A number or option outside of its range.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// Misuse of the tape: no graph, a graph that is gone, a value that changed under it.
class GraphError : public Error {
 public:
  using Error::Error;
};

/// A file that can't be read, written or understood. Names the file and the place in it.
class FileError : public Error {
 public:
  using Error::Error;
};

}  // namespace unroll
