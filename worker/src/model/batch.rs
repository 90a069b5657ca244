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
    /// Segment of every token, `[B, L]`, 64-bit: 0 for the first text of a pair, 1 for the second.
    /// Absent: all are in the first. Families that do not tell segments apart pass over it.
    pub token_types: Option<Tensor>,
}

impl TokenBatch {
    /// Pads `sequences` with `pad_token`. There must be at least one sequence.
    pub fn new(sequences: &[&[u32]], pad_token: i64, device: Device) -> Result<Self, ModelError> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        let ids = padded(sequences, pad_token, device)?;
        Ok(Self { ids, mask: padding_mask(&lengths, device)?, token_types: None })
    }

    /// As [`TokenBatch::new`]; of each sequence so many of the first tokens are in the first
    /// segment, the rest in the second.
    pub fn of_pairs(
        sequences: &[&[u32]],
        first_segments: &[usize],
        pad_token: i64,
        device: Device,
    ) -> Result<Self, ModelError> {
        let fits = |(tokens, first): (&&[u32], &usize)| tokens.len() >= *first;
        let pairs = || sequences.iter().zip(first_segments);
        if sequences.len() != first_segments.len() || !pairs().all(fits) {
            return Err(ModelError::Segments);
        }
        let mut batch = Self::new(sequences, pad_token, device)?;
        if pairs().any(|(tokens, first)| tokens.len() > *first) {
            let segments: Vec<Vec<u32>> = pairs()
                .map(|(tokens, first)| {
                    (0..tokens.len()).map(|at| u32::from(at >= *first)).collect()
                })
                .collect();
            let segments: Vec<&[u32]> = segments.iter().map(Vec::as_slice).collect();
            batch.token_types = Some(padded(&segments, 0, device)?);
        }
        Ok(batch)
    }
}

/// Refuses an empty batch, an empty sequence, and one of more than `max` tokens.
pub(crate) fn check_lengths(sequences: &[&[u32]], max: i64) -> Result<(), ModelError> {
    let wrong = |tokens: &usize| *tokens == 0 || extent(*tokens) > max;
    let lengths = sequences.iter().map(|sequence| sequence.len());
    // An empty batch has no longest sequence, so it is refused here too.
    let found = if sequences.is_empty() { Some(0) } else { lengths.into_iter().find(wrong) };
    found.map_or(Ok(()), |tokens| Err(ModelError::Length { tokens, max }))
}

/// Rows filled up to the longest with `filler`, `[B, L]`.
pub(crate) fn padded(rows: &[&[u32]], filler: i64, device: Device) -> Result<Tensor, ModelError> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut values = Vec::with_capacity(rows.len() * longest);
    for row in rows {
        values.extend(row.iter().map(|value| i64::from(*value)));
        values.resize(values.len() + longest - row.len(), filler);
    }
    let shape = [extent(rows.len()), extent(longest)];
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?.f_to_device(device)?)
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

    #[test]
    fn the_rest_of_a_pair_is_in_the_second_segment() {
        let pairs =
            |first: &[usize]| TokenBatch::of_pairs(&[&[5, 6, 7], &[8]], first, 1, Device::Cpu);
        let types = pairs(&[1, 1]).unwrap().token_types.unwrap();
        assert_eq!(Vec::<i64>::try_from(types.view([-1])).unwrap(), [0, 1, 1, 0, 0, 0]);
        assert!(pairs(&[3, 1]).unwrap().token_types.is_none());
        assert!(pairs(&[1]).is_err());
        assert!(pairs(&[1, 2]).is_err());
    }
}
