//! Mixed precision: autocast, and the scale that keeps small gradients of half precision from
//! vanishing.

use std::ffi::c_int;

use tch::{Device, Kind, Tensor};

use super::{RawTensor, ShimError, checked};

unsafe extern "C" {
    fn muster_autocast_begin(cuda: bool, format: i8) -> c_int;
    fn muster_autocast_end(cuda: bool) -> c_int;
    fn muster_update_scale(
        scale: RawTensor,
        streak: RawTensor,
        overflow: RawTensor,
        interval: i64,
    ) -> c_int;
}

/// While it lives, this thread computes matrix products in a shorter number format. What is
/// computed afterwards, backward passes included, is as if it had never been.
#[derive(Debug)]
pub struct Autocast {
    is_cuda: bool,
}

impl Autocast {
    /// Begins. `kind` is a floating-point format; only one autocast may live on a thread.
    pub fn begin(device: Device, kind: Kind) -> Result<Self, ShimError> {
        let is_cuda = device.is_cuda();
        let format = match kind {
            Kind::Half => 5,
            Kind::BFloat16 => 15,
            _ => 6,
        };
        // SAFETY: plain values; the state that changes belongs to this thread.
        let status = unsafe { muster_autocast_begin(is_cuda, format) };
        checked(status, "mixed precision").map(|()| Self { is_cuda })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: plain values; the state that changes belongs to this thread.
        let status = unsafe { muster_autocast_end(self.is_cuda) };
        if let Err(error) = checked(status, "the end of mixed precision") {
            tracing::error!("{error}");
        }
    }
}

/// Doubles `scale` after `interval` steps in a row without an overflow and halves it after one.
/// `scale` and `overflow` are 0-d floats, `streak` is a 0-d 32-bit integer; nobody waits for them.
pub fn update_scale(
    scale: &Tensor,
    streak: &Tensor,
    overflow: &Tensor,
    interval: i64,
) -> Result<(), ShimError> {
    // SAFETY: three live tensors borrowed for the call.
    let status = unsafe {
        muster_update_scale(
            scale.as_ptr().cast(),
            streak.as_ptr().cast(),
            overflow.as_ptr().cast(),
            interval,
        )
    };
    checked(status, "the loss scale")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::{AdamW, Overflow, adamw, linear, unscale_gradients};

    #[test]
    fn autocast_computes_in_the_format_it_is_told_and_ends() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (x, weight, bias) = (random(&[4, 8]), random(&[6, 8]), random(&[6]));
        let exact = linear(&x, &weight, &bias).unwrap();
        let short = {
            let _autocast = Autocast::begin(Device::Cpu, Kind::BFloat16).unwrap();
            linear(&x, &weight, &bias).unwrap()
        };
        assert_eq!(short.kind(), Kind::BFloat16);
        let off = (short.to_kind(Kind::Float) - &exact).abs().max().double_value(&[]);
        assert!(off > 0.0 && off < 0.1, "{off}");
        assert_eq!(linear(&x, &weight, &bias).unwrap(), exact);
    }

    #[test]
    fn an_overflow_leaves_out_the_update_and_halves_the_scale() {
        let number = |value: f64| Tensor::full([0i64; 0], value, (Kind::Float, Device::Cpu));
        let (scale, overflow, skipped) = (number(1024.0), number(0.0), number(0.0));
        let streak = Tensor::zeros([0i64; 0], (Kind::Int, Device::Cpu));
        let weight = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
        let moments = || [Tensor::zeros([2], (Kind::Float, Device::Cpu))];
        let (first, second) = (moments(), moments());
        let list = [weight.shallow_clone()];
        let mut weights = Vec::new();
        for (step, gradient) in (1..).zip([1.0, f64::INFINITY, f64::NAN, 1.0]) {
            (&weight * gradient * &scale).sum(Kind::Float).backward();
            unscale_gradients(&list, &scale, &overflow).unwrap();
            let update = AdamW {
                step,
                learning_rate: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                weight_decay: 0.0,
                epsilon: 1e-8,
            };
            let found = Overflow { found: &overflow, skipped: &skipped };
            adamw(&list, &first, &second, &update, None, Some(found)).unwrap();
            update_scale(&scale, &streak, &overflow, 2).unwrap();
            crate::ffi::clear_gradients(&list).unwrap();
            weights.push(weight.double_value(&[0]));
        }
        assert!((weights[0] - 0.9).abs() < 1e-6, "{weights:?}");
        assert_eq!((weights[1].to_bits(), weights[2].to_bits()), {
            (weights[0].to_bits(), weights[0].to_bits())
        });
        // The fourth is the second update: the same gradient gives the same step again.
        assert!((weights[3] - 0.8).abs() < 1e-6, "{weights:?}");
        assert_eq!(skipped.double_value(&[]).to_bits(), 2.0f64.to_bits());
        assert_eq!(scale.double_value(&[]).to_bits(), 256.0f64.to_bits());
    }
}
