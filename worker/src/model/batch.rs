//! Token sequences as tensors.

use muster_common::model::{ModelConfig, TokenTypes};
use tch::{Device, Tensor};

use super::ModelError;
use super::packing::Frame;

/// The tokens of a batch, one sequence behind the other: `T` rows, see [`Frame`].
#[derive(Debug)]
pub struct TokenBatch {
    /// Token ids, `[T]`, 64-bit.
    pub ids: Tensor,
    /// Row of each token in the table of positions, `[T]`, 64-bit.
    pub positions: Tensor,
    /// Segment of every token, `[T]`, 64-bit: 0 for the first text of a pair, 1 for the second.
    /// Absent: all are in the first. Families that do not tell segments apart pass over it.
    pub token_types: Option<Tensor>,
    /// Which tokens belong together.
    pub frame: Frame,
}

impl TokenBatch {
    /// Of sequences, of which there must be at least one. Of each pair so many of the first tokens
    /// are in the first segment, the rest in the second. `skipped` is the token that positions are
    /// counted past, where a family does that.
    pub(crate) fn new(
        sequences: &[&[u32]],
        first_segments: Option<&[usize]>,
        skipped: Option<i64>,
        device: Device,
    ) -> Result<Self, ModelError> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        let frame = Frame::new(&lengths, device)?;
        let token_types = match first_segments {
            None => None,
            Some(first) => {
                let fits = |(length, first): (&usize, &usize)| length >= first;
                if lengths.len() != first.len() || !lengths.iter().zip(first).all(fits) {
                    return Err(ModelError::Segments);
                }
                let types = |(length, first): (&usize, &usize)| -> Vec<u32> {
                    (0..*length).map(|at| u32::from(at >= *first)).collect()
                };
                let types: Vec<Vec<u32>> = lengths.iter().zip(first).map(types).collect();
                let pairs = lengths.iter().zip(first).any(|(length, first)| length > first);
                if pairs { Some(laid_down(&types, &frame, device)?) } else { None }
            }
        };
        let positions: Vec<Vec<u32>> =
            sequences.iter().map(|sequence| positions(sequence, skipped)).collect();
        let ids = laid_down(sequences, &frame, device)?;
        let positions = laid_down(&positions, &frame, device)?;
        Ok(Self { ids, positions, token_types, frame })
    }
}

/// Position of every token: counted from 0, or from behind the number of the token that is skipped,
/// which itself stays at its own number.
fn positions(sequence: &[u32], skipped: Option<i64>) -> Vec<u32> {
    let Some(skipped) = skipped.and_then(|token| u32::try_from(token).ok()) else {
        return (0..).take(sequence.len()).collect();
    };
    let count = |last: &mut u32, token: &u32| {
        let real = *token != skipped;
        *last += u32::from(real);
        Some(if real { *last } else { skipped })
    };
    sequence.iter().scan(skipped, count).collect()
}

/// One value per token in the order of a frame, 0 in rows without one, `[T]`, 64-bit.
fn laid_down(
    rows: &[impl AsRef<[u32]>],
    frame: &Frame,
    device: Device,
) -> Result<Tensor, ModelError> {
    let mut values = vec![0i64; usize::try_from(frame.num_rows()).unwrap_or(0)];
    for (index, row) in rows.iter().enumerate() {
        let start = usize::try_from(frame.start(index)).unwrap_or(usize::MAX);
        for (value, source) in values.iter_mut().skip(start).zip(row.as_ref()) {
            *value = i64::from(*source);
        }
    }
    Ok(Tensor::f_from_slice(&values)?.f_to_device(device)?)
}

/// Refuses what the model cannot take: an empty batch, an empty sequence, one that is too long, tokens that are not
/// in its vocabulary, and second segments where it has but one.
pub(crate) fn check(
    sequences: &[&[u32]],
    first_segments: Option<&[usize]>,
    config: &ModelConfig,
) -> Result<(), ModelError> {
    check_lengths(sequences, config.max_tokens())?;
    check_vocabulary(sequences.iter().copied().flatten(), config)?;
    let type_vocab_size = config.type_vocab_size;
    let by_segment = config.family.token_types() == TokenTypes::BySegment;
    let firsts = first_segments.unwrap_or_default();
    if by_segment
        && type_vocab_size < 2
        && sequences.iter().zip(firsts).any(|(sequence, first)| sequence.len() > *first)
    {
        return Err(ModelError::TokenTypes { type_vocab_size });
    }
    Ok(())
}

/// Refuses tokens that are not in the vocabulary.
pub(crate) fn check_vocabulary<'a>(
    mut tokens: impl Iterator<Item = &'a u32>,
    config: &ModelConfig,
) -> Result<(), ModelError> {
    let vocab_size = config.vocab_size;
    match tokens.find(|token| i64::from(**token) >= vocab_size) {
        Some(token) => Err(ModelError::Vocabulary { token: *token, vocab_size }),
        None => Ok(()),
    }
}

fn check_lengths(sequences: &[&[u32]], max: i64) -> Result<(), ModelError> {
    let wrong = |tokens: &usize| *tokens == 0 || extent(*tokens) > max;
    let lengths = sequences.iter().map(|sequence| sequence.len());
    // An empty batch has no longest sequence, so it is refused here too.
    let found = if sequences.is_empty() { Some(0) } else { lengths.into_iter().find(wrong) };
    found.map_or(Ok(()), |tokens| Err(ModelError::Length { tokens, max }))
}

/// A count as libtorch wants it.
pub(crate) fn extent(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn sequences_are_laid_down_without_padding() {
        let batch = TokenBatch::new(&[&[5, 6, 7], &[8]], None, None, Device::Cpu).unwrap();
        assert_eq!(values(&batch.ids), [8, 5, 6, 7]);
        assert_eq!(values(&batch.positions), [0, 0, 1, 2]);
        assert!(batch.token_types.is_none());
    }

    #[test]
    fn positions_can_be_counted_past_a_token() {
        let batch = TokenBatch::new(&[&[5, 1, 7], &[8, 9]], None, Some(1), Device::Cpu).unwrap();
        assert_eq!(values(&batch.positions), [2, 3, 2, 1, 3]);
    }

    #[test]
    fn what_the_model_does_not_know_is_refused_before_it_computes() {
        let config = |type_vocab_size: u32| {
            let text = format!(
                r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 4,
                "type_vocab_size": {type_vocab_size}}}"#
            );
            ModelConfig::parse(text.as_bytes()).unwrap()
        };
        assert!(check(&[&[8, 0], &[1]], None, &config(1)).is_ok());
        let error = check(&[&[8, 0], &[1, 9]], None, &config(1)).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("the token 9"), "{error}");
        assert!(check(&[&[1, 2, 3, 4, 5]], None, &config(1)).is_err());
        assert!(check(&[&[1, 2], &[3, 4]], Some(&[2, 1]), &config(2)).is_ok());
        assert!(check(&[&[1, 2], &[3, 4]], Some(&[2, 2]), &config(1)).is_ok());
        let error = check(&[&[1, 2], &[3, 4]], Some(&[2, 1]), &config(1)).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("type_vocab_size"), "{error}");
    }

    #[test]
    fn the_rest_of_a_pair_is_in_the_second_segment() {
        let pairs =
            |first: &[usize]| TokenBatch::new(&[&[5, 6, 7], &[8]], Some(first), None, Device::Cpu);
        assert_eq!(values(&pairs(&[1, 1]).unwrap().token_types.unwrap()), [0, 0, 1, 1]);
        assert!(pairs(&[3, 1]).unwrap().token_types.is_none());
        assert!(pairs(&[1]).is_err());
        assert!(pairs(&[1, 2]).is_err());
    }
}
