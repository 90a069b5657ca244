//! Token sequences as tensors.

use tch::{Device, Kind, Tensor};

use super::ModelError;

/// Sequences padded to the longest of them.
#[derive(Debug)]
pub struct TokenBatch {
    /// Token ids, `[B, L]`, 64-bit.
    pub ids: Tensor,
    /// Added to attention scores: `[B, 1, 1, L]`, 0 at tokens and minus infinity at padding. Absent
    /// when all sequences are equally long.
    pub mask: Option<Tensor>,
}

impl TokenBatch {
    /// Pads `sequences` with `pad_token`. There must be at least one sequence.
    pub fn new(sequences: &[&[u32]], pad_token: i64, device: Device) -> Result<Self, ModelError> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(sequences.len() * longest);
        for sequence in sequences {
            ids.extend(sequence.iter().map(|token| i64::from(*token)));
            ids.resize(ids.len() + longest - sequence.len(), pad_token);
        }
        let shape = [extent(sequences.len()), extent(longest)];
        let ids = Tensor::f_from_slice(&ids)?.f_view(shape)?.f_to_device(device)?;
        Ok(Self { ids, mask: padding_mask(&lengths, device)? })
    }
}

/// The additive attention mask of sequences of these `lengths`; none when they are all equal.
pub(crate) fn padding_mask(
    lengths: &[usize],
    device: Device,
) -> Result<Option<Tensor>, ModelError> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if lengths.iter().all(|length| *length == longest) {
        return Ok(None);
    }
    let mut mask = Vec::with_capacity(lengths.len() * longest);
    for length in lengths {
        mask.resize(mask.len() + length, 0.0f32);
        mask.resize(mask.len() + longest - length, f32::NEG_INFINITY);
    }
    let shape = [extent(lengths.len()), 1, 1, extent(longest)];
    let mask = Tensor::f_from_slice(&mask)?.f_view(shape)?;
    debug_assert_eq!(mask.kind(), Kind::Float);
    Ok(Some(mask.f_to_device(device)?))
}

/// A count as libtorch wants it.
pub(crate) fn extent(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sequences_are_padded_and_masked() {
        let batch = TokenBatch::new(&[&[5, 6, 7], &[8]], 0, Device::Cpu).unwrap();
        let ids: Vec<i64> = batch.ids.view([-1]).try_into().unwrap();
        assert_eq!(ids, [5, 6, 7, 8, 0, 0]);
        let mask: Vec<f32> = batch.mask.unwrap().view([-1]).try_into().unwrap();
        assert_eq!(mask[..4], [0.0; 4]);
        assert!(mask[4..].iter().all(|value| *value == f32::NEG_INFINITY));
        assert!(TokenBatch::new(&[&[5], &[8]], 0, Device::Cpu).unwrap().mask.is_none());
    }
}
