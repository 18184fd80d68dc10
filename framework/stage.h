#pragma once
/// Half of a fused program: straight-line code of elementwise instructions, run over blocks of rows
/// and columns that stay in the L1 cache. Not for users.

#include <cstdint>
#include <utility>
#include <vector>

#include "framework/kernels/kernels.h"
#include "framework/trace.h"

namespace unroll::detail {

inline constexpr std::size_t kMostOperands = 96;  ///< of one stage
inline constexpr int kRegisters = 0;              ///< the array that a stage itself fills in

/// Rows of an array in memory, `stride` elements apart; 0 for one row that repeats.
struct Array {
  void* data;
  std::int64_t stride;
};

class Stage {
 public:
  /// f32 or f64. `arrays` are those that the operands name, from kRegisters + 1 on.
  void run(DType dtype, Array* arrays, std::int64_t rows) const;

  /// Where, in the columns of array `from`, the whole of array `to` may lie: the instruction that
  /// computes it is the last one to read them. -1 if there is no such place.
  std::int64_t overwrites(int to, int from) const;
  /// Whether nothing of array `from` is read any more when the first of array `to` is written.
  bool has_read(int from, int to) const;

 private:
  friend class Assembler;

  /// Where an operand of the code lies.
  struct Operand {
    enum class Kind : std::uint8_t {
      memory,     ///< columns of an array, from `column` on
      splat,      ///< one element of each row of an array, repeated
      constant,   ///< a number, repeated
      temporary,  ///< a register
    } kind;
    int array = kRegisters;
    std::int64_t column = 0;
    double number = 0.0;
  };
  struct Instruction {
    kernels::Op op;
    int to;
    int in[3];
    double s[2];
    unsigned first = 0;  ///< those of `to` and `in` that come up for the first time, as bits
  };

  /// An instruction on a row that is no longer than a block.
  struct Short {
    kernels::Op op;
    struct {
      std::int32_t array, column;
    } to, in[3];
    double s[2];
  };

  template <class T>
  void run_rows(Array* arrays, std::int64_t rows) const;
  template <class T>
  void run_part(const Array* arrays, std::int64_t first_row, std::int64_t last_row,
                std::int64_t first_column, std::int64_t last_column) const;
  template <class T>
  void run_short(Array* arrays, std::int64_t n) const;

  std::int64_t columns_ = 0;  ///< that one pass of the code computes
  std::int64_t work_ = 1;     ///< for one of them, in additions
  bool splats_ = false;       ///< an operand is one
  std::vector<Operand> operands_;
  std::vector<Instruction> code_;
  std::vector<int> constants_;  ///< operands
  std::vector<Short> short_;    ///< the same code
};

/// Makes the code of a stage: backwards from what is wanted to what is given. Throws TraceStop
/// where there is none.
class Assembler {
 public:
  explicit Assembler(const std::vector<TracedValue>& values)
      : values_(values), uses_(values.size()) {}

  /// A value that lies in an array.
  void give(int value, int array) { given_.push_back({value, array}); }
  /// Columns of an array that shall hold columns of values.
  void want(const std::vector<Window>& content, int array);

  Stage assemble();

 private:
  struct Wanted {
    Window content;
    int array;
    std::int64_t column;
  };
  struct Made {
    int value;
    std::int64_t offset;
    int operand;
  };
  /// Columns of a value, from the second on.
  using Source = std::pair<int, std::int64_t>;

  const TracedValue& value(int i) const { return values_[static_cast<std::size_t>(i)]; }
  int array_of(int value) const;
  void visit(const Window& w);
  bool used_once(const Source& x) const;
  int operand(Stage::Operand x);
  Source source(const TracedValue& user, int k, std::int64_t offset) const;
  void combine(const TracedValue& x, Stage::Instruction& instruction, Source* in, int& count) const;
  int load(int v, std::int64_t offset);
  void put(int v, std::int64_t offset, int array, std::int64_t column);
  void reuse_registers();
  void find_first_uses();
  void shorten();

  const std::vector<TracedValue>& values_;
  std::vector<std::vector<Window>> uses_;  ///< of each value: the columns that somebody reads
  std::vector<std::pair<int, int>> given_;
  std::vector<Wanted> wanted_;
  std::vector<Made> made_;
  std::int64_t columns_ = 0, widest_ = 0;
  Stage stage_;
};

}  // namespace unroll::detail
