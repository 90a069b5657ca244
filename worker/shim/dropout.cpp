// Dropout on the CPU whose mask is a hash of the element's number under a key: all threads draw it at
// once, whatever their number the mask is the same, and the backward pass draws it again instead of
// keeping it. libtorch's own draws one number after the other on one thread, 5 % of a training step
// of MiniLM on two threads.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "guard.h"

using muster::guarded;

namespace {

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 16384;

// A bijection of 32-bit numbers in which every bit of the result depends on every bit of the input:
// constants of Chris Wellons' hash prospector ("lowbias32", improved).
inline uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  x ^= x >> 15;
  return x;
}

// Keeps an element, scaled, when its hash reaches `threshold`. Compiled for wide registers too.
__attribute__((target_clones("avx512f", "avx2", "default"))) void mask(
    const float* from, float* to, int64_t count, uint32_t first, uint64_t key, uint32_t threshold,
    float scale) {
  const auto low = static_cast<uint32_t>(key);
  const auto high = static_cast<uint32_t>(key >> 32);
  for (int64_t i = 0; i < count; i++) {
    const uint32_t number = first + static_cast<uint32_t>(i);
    const uint32_t hash = mixed(mixed(number + low) ^ high);
    to[i] = hash >= threshold ? from[i] * scale : 0.0f;
  }
}

at::Tensor masked(const at::Tensor& x, int64_t key, double p) {
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const float* source = from.const_data_ptr<float>();
  float* target = to.mutable_data_ptr<float>();
  const auto threshold = static_cast<uint32_t>(std::min(p * 0x1p32, 0x1p32 - 1));
  const auto scale = static_cast<float>(1.0 / (1.0 - p));
  at::parallel_for(0, from.numel(), kGrain, [&](int64_t begin, int64_t end) {
    mask(source + begin, target + begin, end - begin, static_cast<uint32_t>(begin),
         static_cast<uint64_t>(key), threshold, scale);
  });
  return to;
}

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            int64_t key, double p) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->saved_data["key"] = key;
    context->saved_data["p"] = p;
    return masked(x, key, p);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    at::NoGradGuard no_grad;
    torch::autograd::variable_list results(3);
    results[0] = masked(gradients[0], context->saved_data["key"].toInt(),
                        context->saved_data["p"].toDouble());
    return results;
  }
};

// The next number of the generator that a seed sets: what `random_()` gives for a 64-bit integer.
int64_t drawn_key() {
  auto* generator =
      at::get_generator_or_default<at::CPUGeneratorImpl>(std::nullopt, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(generator->mutex_);
  return static_cast<int64_t>(generator->random64() & 0x7fffffffffffffffu);
}

}  // namespace

// *result: x with every element zero with probability `p`, else divided by 1 - p; a new tensor that the
// caller owns.
extern "C" int muster_dropout(const at::Tensor* x, double p, at::Tensor** result) {
  return guarded([&] {
    if (x->device().is_cpu() && x->scalar_type() == at::kFloat && p < 1.0) {
      *result = new at::Tensor(Dropout::apply(*x, drawn_key(), p));
    } else {
      *result = new at::Tensor(at::dropout(*x, p, /*train=*/true));
    }
  });
}
