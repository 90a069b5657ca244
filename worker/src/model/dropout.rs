//! Dropout of tensors.

use tch::Tensor;

use super::ModelError;
use crate::ffi;

/// Dropout with probability `p`; the same tensor where `p` is zero.
pub(crate) fn dropout(x: Tensor, p: f64) -> Result<Tensor, ModelError> {
    if p > 0.0 { Ok(ffi::dropout(&x, p)?) } else { Ok(x) }
}
