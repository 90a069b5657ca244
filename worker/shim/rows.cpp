// AdamW over a table of which a step reads a few rows: word embeddings.
//
// A row without a gradient changes all the same: its moments fade, it moves by what is left of them, and it
// decays. But nobody reads it meanwhile. So these updates are made up for when the row is read next, one
// after the other in registers, and a step passes over the rows of its own tokens only, not over the whole
// table and its moments. The numbers are those of updates made at their time, bit for bit: this file is
// compiled without contraction of products and sums, so an element goes through the same operations either way.

#include <ATen/Parallel.h>
#include <ATen/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "guard.h"

using muster::guarded;

// One update: learning rate times weight decay, learning rate over the bias correction of the first moment, and
// the root of the bias correction of the second.
struct muster_row_update {
  float decay;
  float step_size;
  float spread;
};

// beta1, beta2 and epsilon of AdamW.
struct muster_row_constants {
  float beta1;
  float beta2;
  float epsilon;
};

// A table [V, D], its moments [V, D], and how many updates each row has had [V], 64-bit. Contiguous.
struct muster_row_table {
  const at::Tensor* values;
  const at::Tensor* first;
  const at::Tensor* second;
  const at::Tensor* seen;
};

namespace {

// Rows that are worth a thread of their own.
constexpr int64_t kGrain = 32;
// Elements that are kept in registers while their updates are made.
constexpr int kBlock = 16;

struct Pointers {
  float* values;
  float* first;
  float* second;
  int64_t* seen;
  int64_t num_rows;
  int64_t width;
};

Pointers pointers_of(const muster_row_table& table) {
  return {table.values->mutable_data_ptr<float>(), table.first->mutable_data_ptr<float>(),
          table.second->mutable_data_ptr<float>(), table.seen->mutable_data_ptr<int64_t>(),
          table.values->size(0), table.values->size(1)};
}

// `count` updates of `width` elements, all with the same gradient, or with none where that is null.
__attribute__((target_clones("avx512f", "avx2", "default"))) void advance(
    float* values, float* first, float* second, const float* gradient, int64_t width,
    const muster_row_update* updates, int64_t count, float rest1, float beta2, float rest2,
    float epsilon) {
  for (int64_t start = 0; start < width; start += kBlock) {
    const int size = static_cast<int>(std::min<int64_t>(kBlock, width - start));
    float x[kBlock] = {}, m[kBlock] = {}, v[kBlock] = {}, g[kBlock] = {};
    for (int i = 0; i < size; i++) {
      x[i] = values[start + i];
      m[i] = first[start + i];
      v[i] = second[start + i];
      if (gradient != nullptr) g[i] = gradient[start + i];
    }
    for (int64_t n = 0; n < count; n++) {
      const muster_row_update update = updates[n];
      for (int i = 0; i < kBlock; i++) {
        x[i] = x[i] - update.decay * x[i];
        m[i] = m[i] + (g[i] - m[i]) * rest1;
        v[i] = v[i] * beta2 + g[i] * g[i] * rest2;
        x[i] = x[i] - update.step_size * m[i] / (std::sqrt(v[i]) / update.spread + epsilon);
      }
    }
    for (int i = 0; i < size; i++) {
      values[start + i] = x[i];
      first[start + i] = m[i];
      second[start + i] = v[i];
    }
  }
}

// The same of elements whose moments are zero: they decay, and that is all.
__attribute__((target_clones("avx512f", "avx2", "default"))) void fade(
    float* values, int64_t width, const muster_row_update* updates, int64_t count) {
  for (int64_t start = 0; start < width; start += kBlock) {
    const int size = static_cast<int>(std::min<int64_t>(kBlock, width - start));
    float x[kBlock] = {};
    for (int i = 0; i < size; i++) x[i] = values[start + i];
    for (int64_t n = 0; n < count; n++) {
      const float decay = updates[n].decay;
      for (int i = 0; i < kBlock; i++) x[i] = x[i] - decay * x[i];
    }
    for (int i = 0; i < size; i++) values[start + i] = x[i];
  }
}

bool is_zero(const float* values, int64_t width) {
  uint32_t bits = 0;
  for (int64_t i = 0; i < width; i++) bits |= values[i] != 0.0f;
  return bits == 0;
}

}  // namespace

extern "C" {

// Makes up for the updates that `rows` ([N], 64-bit, any number of times each; null: all rows) have not had.
// `updates` are those after update number `base`, `count` of them.
int muster_rows_refresh(const muster_row_table* table, const at::Tensor* rows,
                        const muster_row_update* updates, int64_t count, int64_t base,
                        const muster_row_constants* constants) {
  return guarded([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    const Pointers to = pointers_of(*table);
    std::vector<int64_t> wanted;
    if (rows != nullptr) {
      const at::Tensor list = rows->contiguous();
      const int64_t* first = list.const_data_ptr<int64_t>();
      wanted.assign(first, first + list.numel());
      std::sort(wanted.begin(), wanted.end());
      wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
      if (!wanted.empty() && (wanted.front() < 0 || wanted.back() >= to.num_rows))
        throw std::runtime_error("there is no row " + std::to_string(wanted.back()));
    }
    const int64_t num_wanted = rows != nullptr ? static_cast<int64_t>(wanted.size()) : to.num_rows;
    const float rest1 = 1.0f - constants->beta1, rest2 = 1.0f - constants->beta2;
    at::parallel_for(0, num_wanted, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at++) {
        const int64_t row = rows != nullptr ? wanted[at] : at;
        const int64_t had = to.seen[row] - base;
        if (had >= count) continue;
        if (had < 0) throw std::runtime_error("row " + std::to_string(row) + " lacks updates");
        float* values = to.values + row * to.width;
        float* first = to.first + row * to.width;
        float* second = to.second + row * to.width;
        if (is_zero(second, to.width) && is_zero(first, to.width)) {
          fade(values, to.width, updates + had, count - had);
        } else {
          advance(values, first, second, nullptr, to.width, updates + had, count - had, rest1,
                  constants->beta2, rest2, constants->epsilon);
        }
        to.seen[row] = base + count;
      }
    });
  });
}

// The gradient of a table that was read through sparse lookups. *rows: [N], 64-bit, each row once, in the order in
// which they came; *sums: [N, D]. The caller owns both.
int muster_rows_gather(const at::Tensor* values, at::Tensor** rows, at::Tensor** sums) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const at::Tensor& gradient = values->grad();
    if (!gradient.defined()) throw std::runtime_error("the table has no gradient");
    if (!gradient.is_sparse()) throw std::runtime_error("the gradient of the table is a dense one");
    const at::Tensor numbers = gradient._indices().select(0, 0).contiguous();
    const at::Tensor parts = gradient._values().contiguous();
    const int64_t* number = numbers.const_data_ptr<int64_t>();
    const int64_t count = numbers.numel(), width = values->size(1);
    std::unordered_map<int64_t, int64_t> places;
    std::vector<int64_t> order;
    for (int64_t i = 0; i < count; i++) {
      if (places.emplace(number[i], static_cast<int64_t>(order.size())).second) order.push_back(number[i]);
    }
    at::Tensor found = at::empty({static_cast<int64_t>(order.size())}, numbers.options());
    std::copy(order.begin(), order.end(), found.mutable_data_ptr<int64_t>());
    at::Tensor total = at::zeros({static_cast<int64_t>(order.size()), width}, parts.options());
    float* to = total.mutable_data_ptr<float>();
    const float* from = parts.const_data_ptr<float>();
    for (int64_t i = 0; i < count; i++) {
      float* sum = to + places[number[i]] * width;
      const float* part = from + i * width;
      for (int64_t j = 0; j < width; j++) sum[j] += part[j];
    }
    *rows = new at::Tensor(std::move(found));
    *sums = new at::Tensor(std::move(total));
  });
}

// Update `number` of `rows` (each once), which have had all before it. `gradients` ([N, D]) are divided by
// `divisor` on the way.
int muster_rows_update(const muster_row_table* table, const at::Tensor* rows,
                       const at::Tensor* gradients, const muster_row_update* update, int64_t number,
                       float divisor, const muster_row_constants* constants) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const Pointers to = pointers_of(*table);
    const int64_t* row_numbers = rows->const_data_ptr<int64_t>();
    const at::Tensor scaled = divisor == 1.0f ? *gradients : gradients->div(divisor);
    const float* gradient = scaled.const_data_ptr<float>();
    for (int64_t at = 0; at < rows->numel(); at++) {
      const int64_t row = row_numbers[at];
      if (row < 0 || row >= to.num_rows || to.seen[row] != number - 1)
        throw std::runtime_error("row " + std::to_string(row) + " was read as it was some updates ago");
    }
    const float rest1 = 1.0f - constants->beta1, rest2 = 1.0f - constants->beta2;
    at::parallel_for(0, rows->numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at++) {
        const int64_t row = row_numbers[at], offset = row * to.width;
        advance(to.values + offset, to.first + offset, to.second + offset, gradient + at * to.width,
                to.width, update, 1, rest1, constants->beta2, rest2, constants->epsilon);
        to.seen[row] = number;
      }
    });
  });
}

}  // extern "C"
