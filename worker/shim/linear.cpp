// y = x W^T + b through oneDNN, with gradients.
//
// libtorch computes 32-bit matrix products on the CPU with MKL, which uses AVX-512 on Intel only:
// on one core of an AMD EPYC with AVX-512 it reaches 112 GFLOPS where oneDNN, inside the same
// library, reaches 250 (products of 864x384 and 384x1536). Both sum in 32-bit floats.

#include <ATen/Tensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guard.h"

using muster::guarded;

namespace {

using Pointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                             c10::string_view, c10::List<std::optional<at::Scalar>>,
                             std::optional<c10::string_view>);

// oneDNN's x W^T + b on plain (dense, strided) tensors; none in a libtorch built without oneDNN.
const std::optional<c10::TypedOperatorHandle<Pointwise>>& one_dnn() {
  static const auto found = [] {
    auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    return schema ? std::optional(schema->typed<Pointwise>()) : std::nullopt;
  }();
  return found;
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias) {
  const c10::List<std::optional<at::Scalar>> nothing;
  return one_dnn()->call(x, weight, bias, /*activation=*/"none", nothing, std::nullopt);
}

struct Linear : torch::autograd::Function<Linear> {
  // x: [rows, in], weight: [out, in], bias: [out].
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, weight});
    return product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    at::NoGradGuard no_grad;
    const auto saved = context->get_saved_variables();
    const at::Tensor gradient = gradients[0].contiguous();
    torch::autograd::variable_list results(3);
    if (context->needs_input_grad(0)) results[0] = product(gradient, saved[1].t(), std::nullopt);
    if (context->needs_input_grad(1))
      results[1] = product(gradient.t(), saved[0].t(), std::nullopt);
    if (context->needs_input_grad(2)) results[2] = gradient.sum(0);
    return results;
  }
};

bool suits_one_dnn(const at::Tensor& x, const at::Tensor& weight) {
  const auto plain = [](const at::Tensor& tensor) {
    return tensor.device().is_cpu() && tensor.scalar_type() == at::kFloat;
  };
  return one_dnn().has_value() && plain(x) && plain(weight) && x.numel() > 0 &&
         !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // namespace

// x: [..., in]; *result: [..., out], a new tensor that the caller owns.
extern "C" int muster_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias,
                             at::Tensor** result) {
  return guarded([&] {
    if (!suits_one_dnn(*x, *weight)) {
      *result = new at::Tensor(at::linear(*x, *weight, *bias));
      return;
    }
    auto shape = x->sizes().vec();
    const at::Tensor rows = x->reshape({-1, shape.back()});
    shape.back() = weight->size(0);
    *result = new at::Tensor(Linear::apply(rows.contiguous(), *weight, *bias).view(shape));
  });
}
