#include "framework/kernels/scratch.h"

#include <new>

namespace unroll::kernels {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Buffer {
  void* memory = nullptr;
  std::size_t size = 0;

  ~Buffer() { ::operator delete(memory, kAlignment); }
};

}  // namespace

void* scratch(Scratch use, std::size_t bytes) {
  thread_local Buffer buffers[static_cast<int>(Scratch::count)];
  Buffer& buffer = buffers[static_cast<int>(use)];
  if (buffer.size < bytes) {
    ::operator delete(buffer.memory, kAlignment);
    buffer.memory = nullptr;
    buffer.size = 0;
    buffer.memory = ::operator new(bytes, kAlignment);
    buffer.size = bytes;
  }
  return buffer.memory;
}

}  // namespace unroll::kernels
