//! Flash attention over sequences of different lengths without padding (Dao 2023, "FlashAttention-2",
//! arXiv 2307.08691), for GPUs.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use super::{RawTensor, ShimError, checked};

/// The kernel's widest head.
const HEAD_WIDTH_MAX: i64 = 256;

unsafe extern "C" {
    fn muster_flash_attention(
        query: RawTensor,
        key: RawTensor,
        value: RawTensor,
        query_spans: RawTensor,
        key_spans: RawTensor,
        longest_query: i64,
        longest_key: i64,
        dropout: f64,
        result: *mut *mut c_void,
    ) -> c_int;
}

/// Where sequences lie that follow one another.
#[derive(Debug)]
pub struct Spans {
    /// Row of the first token of each and, last, where they end: `[B + 1]`, 32-bit.
    pub starts: Tensor,
    /// Tokens of the longest.
    pub longest: i64,
}

/// Attention of each sequence to itself with gradients: `query` is `[Q, H, K]`, `key` and `value` are
/// `[T, H, K]`, the result is `[Q, H, K]`. `p` is the dropout probability of the attention shares.
///
/// # Errors
/// Fails where [`has_flash_attention`] says no.
pub fn flash_attention(
    query: (&Tensor, &Spans),
    key: (&Tensor, &Spans),
    value: &Tensor,
    p: f64,
) -> Result<Tensor, ShimError> {
    let pointer = |tensor: &Tensor| -> RawTensor { tensor.as_ptr().cast() };
    let ((query, queries), (key, keys)) = (query, key);
    let mut result = std::ptr::null_mut();
    // SAFETY: five live tensors borrowed for the call, and a place for the result.
    let status = unsafe {
        muster_flash_attention(
            pointer(query),
            pointer(key),
            pointer(value),
            pointer(&queries.starts),
            pointer(&keys.starts),
            queries.longest,
            keys.longest,
            p,
            &raw mut result,
        )
    };
    checked(status, "flash attention")?;
    // SAFETY: on success the shim wrote a new `at::Tensor*`, which nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

/// Whether [`flash_attention`] can be used for tensors of this kind with heads so wide on `device`.
///
/// The kernel is compiled for GPUs of a certain age only, so that is tried, once per process.
pub fn has_flash_attention(device: Device, kind: Kind, head_width: i64) -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let fits = device.is_cuda()
        && matches!(kind, Kind::Half | Kind::BFloat16)
        && head_width % 8 == 0
        && head_width <= HEAD_WIDTH_MAX;
    fits && *WORKS.get_or_init(|| match attempt(device) {
        Ok(()) => true,
        Err(error) => {
            tracing::info!("attention runs length by length: {error}");
            false
        }
    })
}

fn attempt(device: Device) -> Result<(), ShimError> {
    let states = Tensor::f_ones([3, 1, 64], (Kind::BFloat16, device))?;
    let starts = Tensor::f_from_slice(&[0i32, 1, 3])?.f_to_device(device)?;
    let spans = Spans { starts, longest: 2 };
    let context = flash_attention((&states, &spans), (&states, &spans), &states, 0.0)?;
    // Kernels run late; an error of this one shows when its result is wanted.
    let sum = context.f_sum(Kind::Float)?.f_double_value(&[])?;
    if (sum - 192.0).abs() < 1.0 {
        return Ok(());
    }
    let message = format!("the mean of ones came out as {}", sum / 192.0);
    Err(ShimError { operation: "flash attention", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_short_floats_on_a_gpu() {
        assert!(!has_flash_attention(Device::Cpu, Kind::BFloat16, 64));
        assert!(!has_flash_attention(Device::Cuda(0), Kind::Float, 64));
        assert!(!has_flash_attention(Device::Cuda(0), Kind::BFloat16, 60));
        assert!(!has_flash_attention(Device::Cuda(0), Kind::BFloat16, 320));
    }

    #[test]
    fn on_a_cpu_it_is_refused() {
        let error = attempt(Device::Cpu).unwrap_err();
        assert_eq!(error.operation, "flash attention");
    }
}
