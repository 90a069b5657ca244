// What tch does not bind of training: the fused AdamW update, the gradient norm and clip without a
// look at the values, averages of weights, loss scaling, and gradients set to none. Tensors cross the boundary as tch's `C_tensor*`,
// which is `at::Tensor*`; they are borrowed. No exception leaves a function: each returns 0, or -1
// with a message for muster_last_error.

#include <ATen/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "guard.h"

using muster::guarded;

namespace {

std::vector<at::Tensor> borrow(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++) list.push_back(*tensors[i]);
  return list;
}

std::vector<at::Tensor> gradients(at::Tensor* const* parameters, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; i++) {
    const at::Tensor& gradient = parameters[i]->grad();
    if (!gradient.defined())
      throw std::runtime_error("parameter " + std::to_string(i) + " of the list has no gradient");
    list.push_back(gradient);
  }
  return list;
}

}  // namespace

extern "C" {

// One AdamW update in place. `step` counts from 1 and is the exponent of the bias correction. With
// `overflow` (0-d, else null) nothing is updated where it is 1, and `skipped` (0-d) counts that; what
// it has counted is taken off `step`. With `max_norm` > 0, gradients are scaled on their way into the
// update as if their norm, `norm` (0-d), had been clipped to it: that saves a pass over all of them.
int muster_adamw(at::Tensor* const* parameters, at::Tensor* const* first_moments,
                 at::Tensor* const* second_moments, size_t count, double step, double learning_rate,
                 double beta1, double beta2, double weight_decay, double epsilon,
                 const at::Tensor* norm, double max_norm, const at::Tensor* overflow,
                 at::Tensor* skipped) {
  return guarded([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> values = borrow(parameters, count);
    std::vector<at::Tensor> grads = gradients(parameters, count);
    std::vector<at::Tensor> first = borrow(first_moments, count);
    std::vector<at::Tensor> second = borrow(second_moments, count);
    at::Tensor counter = at::full({}, step, values[0].options().dtype(at::kFloat));
    std::optional<at::Tensor> found_overflow;
    if (overflow != nullptr) {
      counter.sub_(*skipped);
      skipped->add_(*overflow);
      found_overflow = *overflow;
    }
    std::optional<at::Tensor> divisor;
    if (max_norm > 0) divisor = at::clamp_min(norm->add(1e-6).div(max_norm), 1.0);
    std::vector<at::Tensor> steps(count, counter);
    at::_fused_adamw_(values, grads, first, second, /*max_exp_avg_sqs=*/{}, steps, learning_rate,
                      beta1, beta2, weight_decay, epsilon, /*amsgrad=*/false, /*maximize=*/false,
                      divisor, found_overflow);
  });
}

// Writes the 2-norm over all gradients, and over `more` (else null), to `norm` (0-d). Nothing is read back from the
// device.
int muster_gradient_norm(at::Tensor* const* parameters, size_t count, const at::Tensor* more,
                         at::Tensor* norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> grads = gradients(parameters, count);
    if (more != nullptr) grads.push_back(*more);
    if (grads.empty()) throw std::runtime_error("the list of parameters is empty");
    norm->copy_(at::linalg_vector_norm(at::stack(at::_foreach_norm(grads, 2.0)), 2.0));
  });
}

// averages[i] += (1 - decay) * (values[i] - averages[i])
int muster_lerp(at::Tensor* const* averages, at::Tensor* const* values, size_t count,
                double decay) {
  return guarded([&] {
    if (count == 0) return;
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(borrow(averages, count), borrow(values, count), 1.0 - decay);
  });
}

// Divides the gradients by `scale` (0-d) and sets `overflow` (0-d) to 1 where one is not finite.
int muster_unscale_gradients(at::Tensor* const* parameters, size_t count, const at::Tensor* scale,
                             at::Tensor* overflow) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> grads = gradients(parameters, count);
    overflow->zero_();
    const at::Tensor inverse = scale->to(at::kDouble).reciprocal().to(at::kFloat);
    at::_amp_foreach_non_finite_check_and_unscale_(grads, *overflow, inverse);
  });
}

// The scale of the next step: doubled after `interval` steps without an overflow, halved by one.
int muster_update_scale(at::Tensor* scale, at::Tensor* streak, const at::Tensor* overflow,
                        int64_t interval) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    at::_amp_update_scale_(*scale, *streak, *overflow, /*growth=*/2.0, /*backoff=*/0.5, interval);
  });
}

// Sets every gradient to none, so that the next backward writes instead of adding.
int muster_clear_gradients(at::Tensor* const* parameters, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; i++) parameters[i]->mutable_grad() = at::Tensor();
  });
}

}  // extern "C"
