#pragma once
/// Embedding: a learned vector for each of a number of things.

#include "modules/module.h"

namespace unroll {

/// weight starts standard normal; the row of padding_idx (-1: none) starts at 0 and gets no
/// gradient. Throws ValueError for sizes below 1 and for a padding_idx that is no row.
struct Embedding : Module {
  Embedding(std::int64_t num_embeddings, std::int64_t embedding_dim, std::int64_t padding_idx = -1);

  /// indices: [...] of i64; returns [..., embedding_dim]. Throws IndexError, with the position, for
  /// an index outside of [0, num_embeddings).
  Tensor operator()(const Tensor& indices) const;

  std::int64_t num_embeddings;
  std::int64_t embedding_dim;
  std::int64_t padding_idx;
  Tensor weight;  ///< [num_embeddings, embedding_dim]
};

}  // namespace unroll
