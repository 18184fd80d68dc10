#pragma once
/// Embedding: a learned vector for each of a number of things.

#include "modules/module.h"

namespace unroll {

struct EmbeddingOptions {
  std::int64_t padding_idx = -1;  ///< a row that starts at 0 and gets no gradient; -1: none
  /// Whether the gradient comes by rows (framework/row_grad.h), so that a training step with SGD,
  /// Adagrad or SparseAdam touches only the rows that were looked up, however large the table is.
  bool sparse = false;
};

/// weight starts standard normal. Throws ValueError for sizes below 1 and for a padding_idx that is
/// no row.
struct Embedding : Module {
  Embedding(std::int64_t num_embeddings, std::int64_t embedding_dim,
            const EmbeddingOptions& options = {});

  /// indices: [...] of i64; returns [..., embedding_dim]. Throws IndexError, with the position, for
  /// an index outside of [0, num_embeddings).
  Tensor operator()(const Tensor& indices) const;

  std::int64_t num_embeddings;
  std::int64_t embedding_dim;
  std::int64_t padding_idx;
  bool sparse;
  Tensor weight;  ///< [num_embeddings, embedding_dim]
};

}  // namespace unroll
