// Attention within sequences that lie one behind the other: flash attention's variable-length form.
//
// Reached through the dispatcher, so that this file needs no CUDA header: the operation is declared
// by libtorch's CPU part and implemented by its CUDA part. Gradients and dropout are libtorch's.

#include <ATen/Tensor.h>
#include <ATen/ops/_flash_attention_forward.h>

#include "guard.h"

using muster::guarded;

// query: [Q, H, K], key and value: [T, H, K], 16-bit floats; spans: [B + 1], 32-bit, the row at which
// each sequence starts and, last, where they end. *result: [Q, H, K], which the caller owns.
extern "C" int muster_flash_attention(const at::Tensor* query, const at::Tensor* key,
                                      const at::Tensor* value, const at::Tensor* query_spans,
                                      const at::Tensor* key_spans, int64_t longest_query,
                                      int64_t longest_key, double dropout, at::Tensor** result) {
  return guarded([&] {
    auto found = at::_flash_attention_forward(*query, *key, *value, *query_spans, *key_spans,
                                              longest_query, longest_key, dropout,
                                              /*is_causal=*/false, /*return_debug_mask=*/false);
    *result = new at::Tensor(std::move(std::get<0>(found)));
  });
}
