#pragma once
/// Embedding: a learned vector for each of a number of things.

#include "modules/module.h"

namespace unroll {

/// Options of Embedding.
struct EmbeddingOptions {
  std::int64_t padding_idx = -1;  ///< a row that starts at 0 and gets no gradient; -1: none
  /// Whether the gradient comes by rows (framework/row_grad.h), so that a training step with SGD,
  /// Adagrad or SparseAdam touches only the rows that were looked up, however large the table is.
  bool sparse = false;
};

/// weight starts standard normal. Throws ValueError for sizes below 1 and for a padding_idx that is
/// no row.
struct Embedding : Module {
  /// A table of random rows.
  Embedding(std::int64_t num_embeddings, std::int64_t embedding_dim,
            const EmbeddingOptions& options = {});

  /// indices: [...] of i64; returns [..., embedding_dim]. Throws IndexError, with the position, for
  /// an index outside of [0, num_embeddings).
  Tensor operator()(const Tensor& indices) const;

  std::int64_t num_embeddings;  ///< rows
  std::int64_t embedding_dim;   ///< numbers of a row
  std::int64_t padding_idx;     ///< the row that gets no gradient; -1: none
  bool sparse;                  ///< whether gradients come by rows
  Tensor weight;                ///< [num_embeddings, embedding_dim]
};

}  // namespace unroll
