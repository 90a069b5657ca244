//! The door to the C++ shim, and the only module with unsafe code: operations of libtorch that tch
//! does not bind. Every function is safe to call; errors of C++ come back as [`ShimError`].
#![expect(unsafe_code, reason = "calls into the C++ shim; each call states why it is sound")]

mod attention;
mod collective;
mod device;
mod dropout;
mod elements;
mod mapped;
mod nvml;
mod precision;
mod rows;

pub use attention::{Spans, flash_attention, has_flash_attention};
pub use collective::{
    GpuCollectives, GradientReducer, NcclPlugin, PendingReduction, Place, ProcessGroup, Reduction,
    ReductionTimes, Store,
};
pub use device::{DeviceError, open_device};
pub use dropout::dropout;
pub use elements::Elements;
pub use mapped::MappedFile;
pub use nvml::{GpuUse, Nvml};
pub use precision::{Autocast, update_scale};
pub use rows::{RowGradient, RowTable, RowUpdate};

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Kind, Tensor};

/// Libtorch refused an operation of the shim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libtorch refused {operation}: {message}")]
pub struct ShimError {
    /// What was asked for.
    pub operation: &'static str,
    /// What libtorch says.
    pub message: String,
}

impl From<tch::TchError> for ShimError {
    fn from(error: tch::TchError) -> Self {
        Self { operation: "a tensor operation", message: error.to_string() }
    }
}

/// Settings of one AdamW update (Loshchilov, Hutter 2019), bias correction included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Number of this update, from 1.
    pub step: u64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

/// `at::Tensor*`, borrowed.
type RawTensor = *const c_void;

unsafe extern "C" {
    /// Of the C library.
    safe fn _exit(status: c_int) -> !;
    fn muster_last_error() -> *const c_char;
    fn muster_libtorch_version() -> *const c_char;
    fn muster_adamw(
        parameters: *const RawTensor,
        first_moments: *const RawTensor,
        second_moments: *const RawTensor,
        count: usize,
        step: f64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        norm: RawTensor,
        max_norm: f64,
        overflow: RawTensor,
        skipped: RawTensor,
    ) -> c_int;
    fn muster_gradient_norm(
        parameters: *const RawTensor,
        count: usize,
        more: RawTensor,
        norm: RawTensor,
    ) -> c_int;
    fn muster_lerp(
        averages: *const RawTensor,
        values: *const RawTensor,
        count: usize,
        decay: f64,
    ) -> c_int;
    fn muster_unscale_gradients(
        parameters: *const RawTensor,
        count: usize,
        scale: RawTensor,
        overflow: RawTensor,
    ) -> c_int;
    fn muster_clear_gradients(parameters: *const RawTensor, count: usize) -> c_int;
    fn muster_linear(
        x: RawTensor,
        weight: RawTensor,
        bias: RawTensor,
        result: *mut *mut c_void,
    ) -> c_int;
}

/// Version of the libtorch that this program is built for, such as `2.11.0`.
pub fn libtorch_version() -> String {
    // SAFETY: it returns a NUL-terminated text that lives as long as the program.
    unsafe { CStr::from_ptr(muster_libtorch_version()) }.to_string_lossy().into_owned()
}

/// What the gradients of a step came to under loss scaling; all 0-d and never waited for.
#[derive(Debug, Clone, Copy)]
pub struct Overflow<'a> {
    /// 1 if a gradient of this step is not finite, else 0.
    pub found: &'a Tensor,
    /// Updates that were left out so far.
    pub skipped: &'a Tensor,
}

/// A limit of the gradients' norm.
#[derive(Debug, Clone, Copy)]
pub struct Clip<'a> {
    /// Their norm, 0-d; nobody waits for it.
    pub norm: &'a Tensor,
    /// What it may be at most.
    pub max_norm: f64,
}

/// Updates `parameters` in place from their gradients; the moments are updated too. With a `clip` the
/// gradients are scaled so that their norm is at most that. With an `overflow` that was found,
/// nothing is updated and one more is counted as skipped.
///
/// The three lists run in parallel. Fails when a parameter has no gradient.
pub fn adamw(
    parameters: &[Tensor],
    first_moments: &[Tensor],
    second_moments: &[Tensor],
    update: &AdamW,
    clip: Option<Clip<'_>>,
    overflow: Option<Overflow<'_>>,
) -> Result<(), ShimError> {
    let operation = "the AdamW update";
    if first_moments.len() != parameters.len() || second_moments.len() != parameters.len() {
        let message = "parameters and moments differ in number".to_owned();
        return Err(ShimError { operation, message });
    }
    let (values, first, second) = (raw(parameters), raw(first_moments), raw(second_moments));
    let pointer = |tensor: &Tensor| -> RawTensor { tensor.as_ptr().cast() };
    let none = std::ptr::null();
    // SAFETY: the pointers are live tensors borrowed for the call, three lists of `count` entries;
    // `norm` is read where its limit is above 0; the last two are both null or both not.
    let status = unsafe {
        muster_adamw(
            values.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            values.len(),
            update.step as f64,
            update.learning_rate,
            update.beta1,
            update.beta2,
            update.weight_decay,
            update.epsilon,
            clip.map_or(none, |clip| pointer(clip.norm)),
            clip.map_or(0.0, |clip| clip.max_norm),
            overflow.map_or(none, |overflow| pointer(overflow.found)),
            overflow.map_or(none, |overflow| pointer(overflow.skipped)),
        )
    };
    checked(status, operation)
}

/// The 2-norm over the gradients of `parameters` and over `more`, a 0-d tensor that nobody has waited for.
pub fn gradient_norm(parameters: &[Tensor], more: Option<&Tensor>) -> Result<Tensor, ShimError> {
    let device = parameters.first().map_or(tch::Device::Cpu, Tensor::device);
    let norm = Tensor::f_zeros([0i64; 0], (Kind::Float, device))?;
    let values = raw(parameters);
    let more = more.map_or(std::ptr::null(), |more| more.as_ptr().cast());
    // SAFETY: the pointers are live tensors borrowed for the call, or null for `more`; `norm` is not shared yet.
    let status =
        unsafe { muster_gradient_norm(values.as_ptr(), values.len(), more, norm.as_ptr().cast()) };
    checked(status, "the gradient norm").map(|()| norm)
}

/// Moves `averages` towards `values`, which runs in parallel: `a += (1 - decay) * (v - a)`.
pub fn lerp(averages: &[Tensor], values: &[Tensor], decay: f64) -> Result<(), ShimError> {
    let operation = "the average of weights";
    if averages.len() != values.len() {
        let message = "averages and weights differ in number".to_owned();
        return Err(ShimError { operation, message });
    }
    let (averages, values) = (raw(averages), raw(values));
    // SAFETY: the pointers are live tensors borrowed for the call, two lists of `count` entries.
    let status = unsafe { muster_lerp(averages.as_ptr(), values.as_ptr(), averages.len(), decay) };
    checked(status, operation)
}

/// Divides the gradients of `parameters` by `scale` and writes to `overflow` whether one is not
/// finite (1) or all are (0). Both are 0-d; nobody waits for them.
pub fn unscale_gradients(
    parameters: &[Tensor],
    scale: &Tensor,
    overflow: &Tensor,
) -> Result<(), ShimError> {
    let values = raw(parameters);
    // SAFETY: the pointers are live tensors borrowed for the call.
    let status = unsafe {
        muster_unscale_gradients(
            values.as_ptr(),
            values.len(),
            scale.as_ptr().cast(),
            overflow.as_ptr().cast(),
        )
    };
    checked(status, "unscaling gradients")
}

/// Sets the gradients of `parameters` to none.
pub fn clear_gradients(parameters: &[Tensor]) -> Result<(), ShimError> {
    let values = raw(parameters);
    // SAFETY: the pointers are live tensors borrowed for the call.
    let status = unsafe { muster_clear_gradients(values.as_ptr(), values.len()) };
    checked(status, "clearing gradients")
}

/// `x W^T + b` with gradients; `x` is `[..., in]`, `weight` is `[out, in]`, `bias` is `[out]`. On the
/// CPU twice as fast as libtorch's own where that does not use AVX-512.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, ShimError> {
    let mut result = std::ptr::null_mut();
    // SAFETY: three live tensors borrowed for the call, and a place for the result.
    let status = unsafe {
        muster_linear(
            x.as_ptr().cast(),
            weight.as_ptr().cast(),
            bias.as_ptr().cast(),
            &raw mut result,
        )
    };
    checked(status, "a linear layer")?;
    // SAFETY: on success the shim wrote a new `at::Tensor*`, which nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

/// Ends the process at once, without running what libraries have registered for its end: other
/// threads may be inside libtorch, which must not be torn down under them.
pub fn leave_process(status: i32) -> ! {
    _exit(status)
}

fn raw(tensors: &[Tensor]) -> Vec<RawTensor> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast()).collect()
}

fn checked(status: c_int, operation: &'static str) -> Result<(), ShimError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a NUL-terminated string that lives until the next call on this
    // thread; it is copied here.
    let message = unsafe { CStr::from_ptr(muster_last_error()) }.to_string_lossy().into_owned();
    Err(ShimError { operation, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn parameter(values: &[f32], gradient: &[f32]) -> Tensor {
        let tensor = Tensor::from_slice(values).set_requires_grad(true);
        (&tensor * Tensor::from_slice(gradient)).sum(Kind::Float).backward();
        tensor
    }

    #[test]
    fn adamw_agrees_with_its_definition() {
        let weight = parameter(&[1.0, -2.0], &[0.5, 0.25]);
        let zeros = || Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let (first, second) = (zeros(), zeros());
        let update = AdamW {
            step: 1,
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.01,
            epsilon: 1e-8,
        };
        let list = [weight.shallow_clone()];
        adamw(&list, &[first.shallow_clone()], &[second], &update, None, None).unwrap();
        // After one step both corrected moments are g and g^2, so the update is lr * sign(g).
        let expected = [0.999 - 0.1, -1.998 - 0.1];
        for (i, wanted) in expected.into_iter().enumerate() {
            let found = weight.double_value(&[i64::try_from(i).unwrap()]);
            assert!((found - wanted).abs() < 1e-5, "{found} instead of {wanted}");
        }
        assert!((first.double_value(&[0]) - 0.05).abs() < 1e-7);
        clear_gradients(&list).unwrap();
        assert!(!weight.grad().defined());
    }

    #[test]
    fn clipping_scales_to_the_limit() {
        let list = [parameter(&[0.0], &[3.0]), parameter(&[0.0], &[4.0])];
        let norm = gradient_norm(&list, None).unwrap();
        assert!((norm.double_value(&[]) - 5.0).abs() < 1e-6);
        let zeros = || [(); 2].map(|()| Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        let update = AdamW {
            step: 1,
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            epsilon: 1e-8,
        };
        // The first moment after one step is a tenth of the gradient.
        for (max_norm, wanted) in [(1.0, 0.08), (10.0, 0.4)] {
            let list = [parameter(&[0.0], &[3.0]), parameter(&[0.0], &[4.0])];
            let (first, second) = (zeros(), zeros());
            let clip = Clip { norm: &norm, max_norm };
            adamw(&list, &first, &second, &update, Some(clip), None).unwrap();
            let found = first[1].double_value(&[0]);
            assert!((found - wanted).abs() < 1e-6, "{found} instead of {wanted}");
        }
    }

    #[test]
    fn linear_and_its_gradients_agree_with_libtorch() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let inputs = [random(&[3, 5, 16]), random(&[24, 16]), random(&[24])];
        let inputs = inputs.map(|tensor| tensor.set_requires_grad(true));
        let [x, weight, bias] = &inputs;
        let weights = random(&[3, 5, 24]);
        let gradients = |y: Tensor| {
            (&y * &weights).sum(Kind::Float).backward();
            let found = inputs.each_ref().map(|tensor| tensor.grad().copy());
            clear_gradients(&inputs.each_ref().map(Tensor::shallow_clone)).unwrap();
            (y, found)
        };
        let (own, own_gradients) = gradients(linear(x, weight, bias).unwrap());
        let (theirs, their_gradients) = gradients(x.linear(weight, Some(bias)));
        let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
        assert!(close(&own, &theirs));
        assert!(own_gradients.iter().zip(&their_gradients).all(|(a, b)| close(a, b)));
        assert!(linear(x, &random(&[24, 15]), bias).is_err());
    }

    #[test]
    fn errors_of_cpp_come_back_as_errors() {
        let no_gradient = [Tensor::from_slice(&[1.0f32])];
        let error = gradient_norm(&no_gradient, None).unwrap_err();
        assert!(error.to_string().contains("no gradient"), "{error}");
    }
}
