// The products of gemm.cpp by OpenBLAS and oneDNN: sgemm, and oneDNN's matmul with packed weights
#include <cblas.h>
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "common/products.h"

namespace {

using Desc = dnnl::memory::desc;

void openblas(const bench::Product& p, const bench::Options& options, bench::Operands& x) {
  const auto a = p.a_transposed ? CblasTrans : CblasNoTrans;
  const auto b = p.b_transposed ? CblasTrans : CblasNoTrans;
  const int lda = p.a_transposed ? p.m : p.k, ldb = p.b_transposed ? p.k : p.n;
  bench::time_product("OpenBLAS", "gemm", p, options, [&] {
    cblas_sgemm(CblasRowMajor, a, b, p.m, p.n, p.k, 1.0f, x.a.data(), lda, x.b.data(), ldb, 0.0f,
                x.c.data(), p.n);
  });
}

void onednn(const bench::Product& p, const bench::Options& options, bench::Operands& x) {
  const int lda = p.a_transposed ? p.m : p.k, ldb = p.b_transposed ? p.k : p.n;
  bench::time_product("oneDNN", "gemm", p, options, [&] {
    dnnl_sgemm(p.a_transposed ? 'T' : 'N', p.b_transposed ? 'T' : 'N', p.m, p.n, p.k, 1.0f,
               x.a.data(), lda, x.b.data(), ldb, 0.0f, x.c.data(), p.n);
  });
  if (p.a_transposed) return;

  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  static dnnl::stream queue(cpu);
  const auto f32 = dnnl::memory::data_type::f32;
  using Tag = dnnl::memory::format_tag;
  const Desc a({p.m, p.k}, f32, Tag::ab), c({p.m, p.n}, f32, Tag::ab);
  const Desc plain({p.k, p.n}, f32, p.b_transposed ? Tag::ba : Tag::ab);
  const Desc any({p.k, p.n}, f32, Tag::any);
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a, any, c), cpu);
  dnnl::memory from(plain, cpu, x.b.data()), packed(desc.weights_desc(), cpu);
  dnnl::reorder(from, packed).execute(queue, from, packed);
  queue.wait();
  const dnnl::matmul matmul(desc);
  const std::unordered_map<int, dnnl::memory> arguments = {
      {DNNL_ARG_SRC, dnnl::memory(a, cpu, x.a.data())},
      {DNNL_ARG_WEIGHTS, packed},
      {DNNL_ARG_DST, dnnl::memory(c, cpu, x.c.data())}};
  bench::time_product("oneDNN", "packed", p, options, [&] {
    matmul.execute(queue, arguments);
    queue.wait();
  });
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Matrix products by OpenBLAS and oneDNN");
  omp_set_num_threads(options.threads);
  bench::print_product_header();
  bench::for_each_product(options, [&](const bench::Product& p) {
    bench::Operands x(p);
    openblas(p, options, x);
    onednn(p, options, x);
  });
}
