//! Dropout.

use std::ffi::{c_int, c_void};

use tch::Tensor;

use super::{RawTensor, ShimError, checked};

unsafe extern "C" {
    fn muster_dropout(x: RawTensor, p: f64, result: *mut *mut c_void) -> c_int;
}

/// `x` with every element zero with probability `p` (0 to 1), else divided by `1 - p`; with gradients.
/// What is dropped follows from the seed of libtorch's generator, not from the number of threads.
pub fn dropout(x: &Tensor, p: f64) -> Result<Tensor, ShimError> {
    let mut result = std::ptr::null_mut();
    // SAFETY: a live tensor borrowed for the call, and a place for the result.
    let status = unsafe { muster_dropout(x.as_ptr().cast(), p, &raw mut result) };
    checked(status, "dropout")?;
    // SAFETY: on success the shim wrote a new `at::Tensor*`, which nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const SIDE: i64 = 1000;

    fn ones() -> Tensor {
        Tensor::ones([SIDE, SIDE], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn so_many_are_dropped_and_the_rest_is_scaled() {
        for p in [0.1, 0.5, 0.9] {
            let x = ones().set_requires_grad(true);
            let y = dropout(&x, p).unwrap();
            let (kept, count) = (1.0 / (1.0 - p), (SIDE * SIDE) as f64);
            // Four standard deviations of a million draws.
            let tolerance = 4.0 * (p * (1.0 - p) / count).sqrt();
            let dropped = y.eq(0.0).sum(Kind::Float).double_value(&[]) / count;
            assert!((dropped - p).abs() < tolerance, "{dropped} instead of {p}");
            assert!((y.max().double_value(&[]) - kept).abs() < 1e-6);
            // Of rows, of columns and of neighbours too: the mask has no stripes.
            let shares = [
                y.eq(0.0).mean_dim(0, false, Kind::Float),
                y.eq(0.0).mean_dim(1, false, Kind::Float),
            ];
            for share in shares {
                let spread = share.std(true).double_value(&[]);
                let wanted = (p * (1.0 - p) / SIDE as f64).sqrt();
                assert!((spread / wanted - 1.0).abs() < 0.1, "{spread} instead of {wanted}");
            }
            for shift in [1, 2, 64] {
                let both = y.eq(0.0).logical_and(&y.eq(0.0).roll([shift], [1]));
                let both = both.sum(Kind::Float).double_value(&[]) / count;
                assert!((both - p * p).abs() < 2.0 * tolerance, "{both} instead of {}", p * p);
            }
            y.sum(Kind::Float).backward();
            assert_eq!(x.grad(), y.detach());
        }
    }

    #[test]
    fn other_kinds_and_layouts_are_taken() {
        let x = ones().to_kind(Kind::BFloat16);
        assert_eq!(dropout(&x, 0.5).unwrap().kind(), Kind::BFloat16);
        let turned = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1);
        let kept = dropout(&turned, 1e-9).unwrap();
        assert_eq!(kept, turned);
        let all = dropout(&ones(), 1.0).unwrap();
        assert!(all.abs().max().double_value(&[]) < 1e-9);
    }
}
