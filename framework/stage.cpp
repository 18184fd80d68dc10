#include "framework/stage.h"

#include <algorithm>
#include <numeric>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/kernels/scratch.h"

namespace unroll::detail {

using kernels::Op;
using Kind = TracedValue::Kind;

// --- Running -------------------------------------------------------------------------------------

namespace {

/// Elements of a register: 2 KB of the L1 cache.
template <class T>
constexpr std::int64_t kBlock = 2048 / static_cast<std::int64_t>(sizeof(T));
constexpr std::int64_t kRegister = kBlock<float>;  // elements from one to the next

}  // namespace

template <class T>
void Stage::run_short(Array* arrays, std::int64_t n) const {
  const auto& kernels = kernels::float_kernels<T>().elementwise;
  T* const registers = static_cast<T*>(
      kernels::scratch(kernels::Scratch::registers,
                       operands_.size() * static_cast<std::size_t>(kRegister) * sizeof(T)));
  arrays[kRegisters].data = registers;
  for (int i : constants_)
    std::fill_n(registers + i * kRegister, n,
                static_cast<T>(operands_[static_cast<std::size_t>(i)].number));
  const auto at = [arrays](const auto& x) {
    return static_cast<T*>(arrays[x.array].data) + x.column;
  };
  for (const Short& i : short_)
    kernels[static_cast<std::size_t>(i.op)](n, at(i.to), at(i.in[0]), at(i.in[1]), at(i.in[2]),
                                            i.s);
}

template <class T>
void Stage::run_part(const Array* arrays, std::int64_t first_row, std::int64_t last_row,
                     std::int64_t first_column, std::int64_t last_column) const {
  const bool one_row = last_row - first_row == 1;
  if (!one_row && last_column - first_column > kBlock<T>) {
    for (std::int64_t column = first_column; column < last_column; column += kBlock<T>)
      run_part<T>(arrays, first_row, last_row, column, std::min(column + kBlock<T>, last_column));
    return;
  }
  // Blocks are pieces of the one row, or some rows of all columns.
  const std::int64_t columns = std::min(last_column - first_column, kBlock<T>);
  const std::int64_t total = one_row ? last_column - first_column : last_row - first_row;
  const std::int64_t block = one_row ? columns : std::min(kBlock<T> / columns, total);

  const auto& kernels = kernels::float_kernels<T>().elementwise;
  const std::size_t count = operands_.size();
  T* registers = static_cast<T*>(kernels::scratch(
      kernels::Scratch::registers, count * static_cast<std::size_t>(kRegister) * sizeof(T)));
  T* at[kMostOperands];                 // where each operand of a block begins
  std::int64_t stride[kMostOperands];   // from one of its rows to the next
  std::int64_t advance[kMostOperands];  // and to the next block
  for (std::size_t i = 0; i < count; ++i) {
    const Operand& x = operands_[i];
    at[i] = registers + static_cast<std::int64_t>(i) * kRegister;
    stride[i] = columns;
    advance[i] = 0;
    if (x.kind == Operand::Kind::memory) {
      stride[i] = arrays[x.array].stride;
      at[i] =
          static_cast<T*>(arrays[x.array].data) + first_row * stride[i] + x.column + first_column;
      advance[i] = one_row ? block : block * stride[i];
    } else if (x.kind == Operand::Kind::constant) {
      std::fill_n(at[i], one_row ? columns : block * columns, static_cast<T>(x.number));
    }
  }

  for (std::int64_t done = 0; done < total; done += block) {
    const std::int64_t left = std::min(block, total - done);
    const std::int64_t rows = one_row ? 1 : left, n = one_row ? left : columns;
    if (splats_) {
      for (std::size_t i = 0; i < count; ++i) {
        const Operand& x = operands_[i];
        if (x.kind != Operand::Kind::splat) continue;
        const Array& array = arrays[x.array];
        const T* first = static_cast<T*>(array.data) + x.column +
                         (first_row + (one_row ? 0 : done)) * array.stride;
        for (std::int64_t r = 0; r < rows; ++r)
          std::fill_n(at[i] + r * columns, n, first[r * array.stride]);
      }
    }
    const bool more = done + block < total;
    for (const Instruction& i : code_) {
      const auto run = kernels[static_cast<std::size_t>(i.op)];
      T* to = at[i.to];
      const T *a = at[i.in[0]], *b = at[i.in[1]], *c = at[i.in[2]];
      if (one_row || (rows == 1 && !more)) {
        run(n, to, a, b, c, i.s);
        continue;
      }
      kernels::RowStrides strides{stride[i.to], stride[i.in[0]], stride[i.in[1]], stride[i.in[2]]};
      if (more) {  // the rows of a block are too short for the processor to see where they go on
        const auto ahead = [&](int k, int operand) {
          return (i.first >> k & 1) != 0 ? advance[operand] : 0;
        };
        strides.asks = i.first != 0;
        strides.ahead_out = ahead(0, i.to);
        strides.ahead_a = ahead(1, i.in[0]);
        strides.ahead_b = ahead(2, i.in[1]);
        strides.ahead_c = ahead(3, i.in[2]);
      } else if (strides.out == n && strides.a == n && strides.b == n && strides.c == n) {
        run(rows * n, to, a, b, c, i.s);
        continue;
      }
      run.rows(rows, n, to, a, b, c, strides, i.s);
    }
    if (more)
      for (std::size_t i = 0; i < count; ++i) at[i] += advance[i];
  }
}

template <class T>
void Stage::run_rows(Array* arrays, std::int64_t rows) const {
  bool flat =
      !splats_;  // the rows of every array follow one another, so that they are one long row
  if (flat && rows > 1)
    for (const Operand& x : operands_)
      if (x.kind == Operand::Kind::memory) flat = flat && arrays[x.array].stride == columns_;
  if (flat && rows * columns_ <= kBlock<T>) return run_short<T>(arrays, rows * columns_);
  const std::int64_t work = rows * columns_ * work_;
  const bool wake = work >= kernels::kAdditionsWorthWaking;
  if (work <= kernels::kAdditionsPerThread) {
    run_part<T>(arrays, 0, flat ? 1 : rows, 0, flat ? rows * columns_ : columns_);
  } else if (flat) {
    kernels::parallel_for(
        0, rows * columns_, std::max(kBlock<T>, kernels::kAdditionsPerThread / work_),
        [&](std::int64_t first, std::int64_t last) { run_part<T>(arrays, 0, 1, first, last); },
        wake);
  } else {
    kernels::parallel_for(
        0, rows, std::max<std::int64_t>(1, kernels::kAdditionsPerThread / (work_ * columns_)),
        [&](std::int64_t first, std::int64_t last) {
          run_part<T>(arrays, first, last, 0, columns_);
        },
        wake);
  }
}

void Stage::run(DType dtype, Array* arrays, std::int64_t rows) const {
  dispatch_floating(dtype, [&]<class T>(T) { run_rows<T>(arrays, rows); });
}

std::int64_t Stage::overwrites(int to, int from) const {
  const auto operand = [&](int i) -> const Operand& {
    return operands_[static_cast<std::size_t>(i)];
  };
  const Instruction* writer = nullptr;
  int over = -1;
  for (const Instruction& i : code_) {
    for (int in : i.in)
      if (in == over) return -1;  // somebody reads it later
    if (operand(i.to).kind != Operand::Kind::memory || operand(i.to).array != to) continue;
    if (writer) return -1;
    writer = &i;
    for (int in : i.in)
      if (operand(in).kind == Operand::Kind::memory && operand(in).array == from) over = in;
  }
  return over < 0 ? -1 : operand(over).column;
}

bool Stage::has_read(int from, int to) const {
  const auto array = [&](int i) { return operands_[static_cast<std::size_t>(i)].array; };
  bool written = false;
  for (const Instruction& i : code_) {
    for (int in : i.in)
      if (written && array(in) == from) return false;
    written = written || array(i.to) == to;
  }
  return true;
}

// --- Assembling ----------------------------------------------------------------------------------

void Assembler::want(const std::vector<Window>& content, int array) {
  std::int64_t column = 0;
  for (const Window& w : content) {
    wanted_.push_back({w, array, column});
    column += w.width;
  }
}

Stage Assembler::assemble() {
  for (const Wanted& w : wanted_) {
    columns_ = std::gcd(columns_, std::gcd(w.column, w.content.width));
    widest_ = std::max(widest_, w.content.width);
    visit(w.content);
  }
  if (columns_ < widest_ / 16) throw TraceStop();  // cut so finely that it would be slow
  stage_.columns_ = columns_;
  for (const Wanted& w : wanted_)
    for (std::int64_t at = 0; at < w.content.width; at += columns_)
      put(w.content.value, w.content.offset + at, w.array, w.column + at);
  if (stage_.operands_.size() > kMostOperands) throw TraceStop();
  reuse_registers();
  find_first_uses();
  shorten();
  for (const Stage::Operand& x : stage_.operands_)
    stage_.splats_ = stage_.splats_ || x.kind == Stage::Operand::Kind::splat;
  for (const Stage::Instruction& i : stage_.code_) stage_.work_ += kernels::work(i.op);
  return std::move(stage_);
}

int Assembler::array_of(int v) const {
  for (const auto& [given, array] : given_)
    if (given == v) return array;
  return -1;
}

/// Finds the width that all windows are multiples of, and who reads which columns of a value.
void Assembler::visit(const Window& w) {
  const TracedValue& v = value(w.value);
  if (v.kind == Kind::constant) return;
  if (w.width != 1 || v.width() != 1) columns_ = std::gcd(columns_, std::gcd(w.offset, w.width));
  auto& uses = uses_[static_cast<std::size_t>(w.value)];
  uses.push_back(w);
  if (uses.size() > 1 || array_of(w.value) >= 0) return;
  for (int k = 0; k < v.operands; ++k) visit(v.in[k]);
}

/// Whether these columns of a value are read in one place only.
bool Assembler::used_once(const Source& x) const {
  const auto& uses = uses_[static_cast<std::size_t>(x.first)];
  return std::count_if(uses.begin(), uses.end(), [&](const Window& w) {
           return w.offset <= x.second && x.second < w.offset + w.width;
         }) == 1;
}

int Assembler::operand(Stage::Operand x) {
  stage_.operands_.push_back(x);
  return static_cast<int>(stage_.operands_.size()) - 1;
}

/// What operand k of an instruction reads for the columns from `offset` on.
Assembler::Source Assembler::source(const TracedValue& user, int k, std::int64_t offset) const {
  const Window& w = user.in[k];
  const bool repeats = w.width == 1 && user.width() > 1;
  if (repeats && value(w.value).width() > 1 && value(w.value).kind != Kind::constant)
    throw TraceStop();
  return {w.value, repeats ? w.offset : w.offset + offset};
}

namespace {

/// outer(..., inner(a, ...), ...) in one instruction, whose operands are those of inner, and then
/// the others of outer.
struct Combination {
  Op outer;
  int operand;  ///< of outer, that inner makes
  Op inner;
  Op both;
};
constexpr Combination kCombinations[] = {
    {Op::add, 0, Op::mul, Op::muladd},
    {Op::add, 1, Op::mul, Op::muladd},
    {Op::add, 0, Op::tanh_grad, Op::tanh_grad_add},
    {Op::add, 1, Op::tanh_grad, Op::tanh_grad_add},
    {Op::tanh, 0, Op::add, Op::tanh_of_sum},
    {Op::sigmoid, 0, Op::add, Op::sigmoid_of_sum},
    {Op::tanh_grad, 0, Op::mul, Op::tanh_grad_of_mul},
    {Op::sigmoid_grad, 0, Op::mul, Op::sigmoid_grad_of_mul},
    {Op::mul, 0, Op::tanh, Op::tanh_mul},
    {Op::mul, 1, Op::tanh, Op::tanh_mul},
    {Op::tanh_mul, 1, Op::sigmoid, Op::sigmoid_mul_tanh},
};

}  // namespace

/// Makes one instruction of several where an inner one's result is needed for nothing else.
void Assembler::combine(const TracedValue& x, Stage::Instruction& instruction, Source* in,
                        int& count) const {
  for (const Combination& c : kCombinations) {
    if (instruction.op != c.outer) continue;
    const Source inner = in[c.operand];
    const TracedValue& v = value(inner.first);
    if (v.kind != Kind::instruction || v.op != c.inner || (v.width() == 1) != (x.width() == 1) ||
        array_of(inner.first) >= 0 || !used_once(inner))
      continue;
    Source others[2] = {};
    int left = 0;
    for (int k = 0; k < count; ++k)
      if (k != c.operand) others[left++] = in[k];
    for (int k = 0; k < v.operands; ++k) in[k] = source(v, k, inner.second);
    for (int k = 0; k < left; ++k) in[v.operands + k] = others[k];
    count = v.operands + left;
    instruction.op = c.both;
  }
}

/// The operand that holds columns [offset, offset + columns_) of a value, or its only column
/// repeated.
int Assembler::load(int v, std::int64_t offset) {
  for (const Made& m : made_)
    if (m.value == v && m.offset == offset) return m.operand;
  const TracedValue& x = value(v);
  int result;
  if (x.kind == Kind::constant) {
    result = operand({.kind = Stage::Operand::Kind::constant, .number = x.s[0]});
  } else if (const int array = array_of(v); array >= 0) {
    const bool repeats = x.width() == 1 && columns_ > 1;
    result = operand({.kind = repeats ? Stage::Operand::Kind::splat : Stage::Operand::Kind::memory,
                      .array = array,
                      .column = offset});
  } else {
    if (x.kind == Kind::argument) throw TraceStop();  // a value that was not kept
    Stage::Instruction i{.op = x.op, .to = 0, .in = {}, .s = {x.s[0], x.s[1]}};
    int count = x.operands;
    Source in[3];
    for (int k = 0; k < count; ++k) in[k] = source(x, k, offset);
    combine(x, i, in, count);
    for (int k = 0; k < 3; ++k) i.in[k] = k < count ? load(in[k].first, in[k].second) : i.in[0];
    i.to = result = operand({.kind = Stage::Operand::Kind::temporary});
    stage_.code_.push_back(i);
  }
  made_.push_back({v, offset, result});
  return result;
}

/// Computes columns of a value into an array.
void Assembler::put(int v, std::int64_t offset, int array, std::int64_t column) {
  const int from = load(v, offset);
  const Stage::Operand to{.kind = Stage::Operand::Kind::memory, .array = array, .column = column};
  Stage::Operand& home = stage_.operands_[static_cast<std::size_t>(from)];
  if (home.kind == Stage::Operand::Kind::temporary) {
    home = to;  // those who read it later read it there
  } else {
    const int target = operand(to);
    stage_.code_.push_back({.op = Op::copy, .to = target, .in = {from, from, from}, .s = {}});
  }
}

/// Registers whose value is no longer needed take the next one, so that all of them stay in the L1
/// cache.
void Assembler::reuse_registers() {
  auto& operands = stage_.operands_;
  const auto temporary = [&](std::size_t x) {
    return operands[x].kind == Stage::Operand::Kind::temporary;
  };
  std::vector<std::size_t> last(operands.size(), 0);
  for (std::size_t i = 0; i < stage_.code_.size(); ++i)
    for (int k : stage_.code_[i].in) last[static_cast<std::size_t>(k)] = i;
  std::vector<int> name(operands.size()), free;
  std::iota(name.begin(), name.end(), 0);
  for (std::size_t i = 0; i < stage_.code_.size(); ++i) {
    Stage::Instruction& instruction = stage_.code_[i];
    int old[3];
    for (int k = 0; k < 3; ++k) {
      old[k] = instruction.in[k];
      instruction.in[k] = name[static_cast<std::size_t>(old[k])];
    }
    for (int k = 0; k < 3; ++k) {
      const auto x = static_cast<std::size_t>(old[k]);
      const bool again = (k > 0 && old[0] == old[k]) || (k > 1 && old[1] == old[k]);
      if (!again && temporary(x) && last[x] == i) free.push_back(name[x]);
    }
    const auto to = static_cast<std::size_t>(instruction.to);
    if (temporary(to) && !free.empty()) {
      name[to] = free.back();
      free.pop_back();
    }
    instruction.to = name[to];
  }
  // Leave out the operands that have no name of their own any more.
  std::vector<int> place(operands.size(), -1);
  std::vector<Stage::Operand> kept;
  const auto renumber = [&](int& x) {
    int& p = place[static_cast<std::size_t>(x)];
    if (p < 0) {
      p = static_cast<int>(kept.size());
      kept.push_back(operands[static_cast<std::size_t>(x)]);
    }
    x = p;
  };
  for (Stage::Instruction& i : stage_.code_) {
    for (int& x : i.in) renumber(x);
    renumber(i.to);
  }
  operands = std::move(kept);
}

/// Marks where an operand comes up for the first time.
void Assembler::find_first_uses() {
  std::vector<bool> seen(stage_.operands_.size());
  for (Stage::Instruction& i : stage_.code_) {
    const int operands[] = {i.to, i.in[0], i.in[1], i.in[2]};
    for (int k = 0; k < 4; ++k) {
      const auto x = static_cast<std::size_t>(operands[k]);
      if (!seen[x]) i.first |= 1u << k;
      seen[x] = true;
    }
  }
}

/// Writes where the operands of each instruction lie in a row that is no longer than a block.
void Assembler::shorten() {
  for (std::size_t i = 0; i < stage_.operands_.size(); ++i)
    if (stage_.operands_[i].kind == Stage::Operand::Kind::constant)
      stage_.constants_.push_back(static_cast<int>(i));
  const auto place = [&](int i, auto& to) {
    const Stage::Operand& x = stage_.operands_[static_cast<std::size_t>(i)];
    if (x.kind == Stage::Operand::Kind::memory)
      to = {x.array, static_cast<std::int32_t>(x.column)};
    else
      to = {kRegisters, static_cast<std::int32_t>(i * kRegister)};
  };
  for (const Stage::Instruction& i : stage_.code_) {
    Stage::Short& to = stage_.short_.emplace_back();
    to.op = i.op;
    place(i.to, to.to);
    for (int k = 0; k < 3; ++k) place(i.in[k], to.in[k]);
    std::copy_n(i.s, 2, to.s);
  }
}

}  // namespace unroll::detail
