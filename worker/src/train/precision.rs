//! The number format of a trial: mixed precision over float32 weights, and the loss scale of half
//! precision.

use muster_common::manifest::Precision;
use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::ffi::{self, Autocast};
use crate::model::ModelError;

/// Scale at the start, and steps without an overflow after which it is doubled: those of
/// `torch.amp.GradScaler`.
const SCALE_START: f64 = 65536.0;
const GROWTH_INTERVAL: i64 = 2000;

const SCALE: &str = "loss_scale";
const STREAK: &str = "loss_scale_streak";

/// Begins mixed precision where `precision` asks for it; it ends when what is returned is dropped.
pub(super) fn autocast(
    precision: Precision,
    device: Device,
) -> Result<Option<Autocast>, ModelError> {
    let kind = match precision {
        Precision::Float32 => return Ok(None),
        Precision::Bfloat16 => Kind::BFloat16,
        Precision::Float16 => Kind::Half,
    };
    Ok(Some(Autocast::begin(device, kind)?))
}

/// Half precision is for GPUs: the CPU kernels of libtorch lack most of it.
pub(super) fn check(precision: Precision, device: Device) -> Result<(), TrainError> {
    if precision == Precision::Float16 && !device.is_cuda() {
        return Err(TrainError::Float16);
    }
    Ok(())
}

/// The factor of the loss that keeps small gradients of half precision from vanishing. Everything is
/// 0-d, lives on the device and is never waited for.
#[derive(Debug)]
pub(super) struct LossScale {
    scale: Tensor,
    streak: Tensor,
    /// 1 when a gradient of the last step was not finite.
    pub(super) overflow: Tensor,
}

impl LossScale {
    /// Where `precision` needs one.
    pub(super) fn new(precision: Precision, device: Device) -> Result<Option<Self>, ModelError> {
        if precision != Precision::Float16 {
            return Ok(None);
        }
        let number = |value: f64, kind| Tensor::f_full([0i64; 0], value, (kind, device));
        Ok(Some(Self {
            scale: number(SCALE_START, Kind::Float)?,
            streak: number(0.0, Kind::Int)?,
            overflow: number(0.0, Kind::Float)?,
        }))
    }

    /// The scaled loss, to run backward from.
    pub(super) fn apply(&self, loss: &Tensor) -> Result<Tensor, ModelError> {
        Ok(loss.f_mul(&self.scale)?)
    }

    /// Takes the scale off the gradients and looks for overflows.
    pub(super) fn unscale(&self, parameters: &[Tensor]) -> Result<(), ModelError> {
        Ok(ffi::unscale_gradients(parameters, &self.scale, &self.overflow)?)
    }

    /// Adapts the scale after a step.
    pub(super) fn update(&self) -> Result<(), ModelError> {
        Ok(ffi::update_scale(&self.scale, &self.streak, &self.overflow, GROWTH_INTERVAL)?)
    }

    /// Its state by name.
    pub(super) fn named(&self) -> [(String, &Tensor); 2] {
        [(SCALE.to_owned(), &self.scale), (STREAK.to_owned(), &self.streak)]
    }
}
