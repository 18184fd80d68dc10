// Matrix products of recurrent layers: the kernels alone, in GFLOP/s
#include "common/products.h"
#include "framework/kernels/kernels.h"
#include "framework/kernels/parallel.h"

using namespace unroll;

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Matrix products of recurrent layers");
  set_num_threads(options.threads);
  const kernels::FlushDenormals flush;
  bench::print_product_header();
  bench::for_each_product(options, [&](const bench::Product& p) {
    bench::Operands x(p);
    const kernels::MatrixRef<float> a = {x.a.data(), p.a_transposed ? 1 : p.k,
                                         p.a_transposed ? p.m : 1};
    const kernels::MatrixRef<float> b = {x.b.data(), p.b_transposed ? 1 : p.n,
                                         p.b_transposed ? p.k : 1};
    bench::time_product("unroll", "gemm", p, options,
                        [&] { kernels::gemm(p.m, p.n, p.k, a, b, x.c.data(), p.n, false); });
    if (p.a_transposed) return;  // a gradient's operands are new each time: nothing to pack before
    const auto& table = kernels::float_kernels<float>();
    const auto size = static_cast<std::size_t>(table.packed_size(p.k, p.n));
    std::vector<float> memory(size + 16);
    float* packed = memory.data();
    while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
    table.pack(p.k, p.n, b, packed);
    bench::time_product("unroll", "packed", p, options, [&] {
      kernels::gemm_packed(p.m, p.n, p.k, a, packed, x.c.data(), p.n, false);
    });
  });
}
