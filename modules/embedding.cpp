#include "modules/embedding.h"

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {

using detail::fail;

Embedding::Embedding(std::int64_t count, std::int64_t dim, const EmbeddingOptions& options)
    : num_embeddings(count),
      embedding_dim(dim),
      padding_idx(options.padding_idx),
      sparse(options.sparse) {
  if (count < 1 || dim < 1)
    fail<ValueError>(
        "Embedding: sizes are at least 1, but num_embeddings is {} and embedding_dim is {}", count,
        dim);
  if (padding_idx < -1 || padding_idx >= count)
    fail<ValueError>("Embedding: padding_idx is {}, but the rows are 0 to {}", padding_idx,
                     count - 1);
  Tensor values = normal({count, dim});
  if (padding_idx >= 0) values[padding_idx].zero_();
  weight = param("weight", values);
}

Tensor Embedding::operator()(const Tensor& indices) const {
  const Scope here = scope();
  return embedding(weight, indices, padding_idx, sparse);
}

}  // namespace unroll
