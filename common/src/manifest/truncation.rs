//! Which part of a text that is too long is kept.

use serde::{Deserialize, Serialize};

use super::reader::Field;
use super::settings::lookup;
use super::{Assignment, Domain, Manifest, ParameterValue};

/// Which part of a text that is too long is kept. Pairs of texts are always cut longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The beginning.
    #[default]
    Head,
    /// The end.
    Tail,
    /// The beginning and the end (Sun et al. 2019, "How to Fine-Tune BERT for Text
    /// Classification?": 128 and 382 tokens of 512).
    HeadTail {
        /// Tokens of the beginning; absent: a quarter of the longest sequence.
        head: Option<u32>,
    },
}

impl Truncation {
    /// So many of the `room` tokens that a text gets in a sequence of `max_length` are its first.
    pub fn head_tokens(self, max_length: usize, room: usize) -> usize {
        match self {
            Self::Head => room,
            Self::Tail => 0,
            Self::HeadTail { head: None } => (max_length / 4).min(room),
            Self::HeadTail { head: Some(head) } => {
                usize::try_from(head).unwrap_or(usize::MAX).min(room)
            }
        }
    }
}

impl Manifest {
    /// Longest sequence of a trial in tokens, special tokens counted: the hyperparameter
    /// `max_length`, or `model.max_length` where it is absent.
    pub fn max_length(&self, assignment: &Assignment) -> u32 {
        let Some(value) = lookup(&self.hyperparameters, assignment, "max_length") else {
            return self.model.max_length;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "validation keeps it a whole number within 8 to 8192"
        )]
        let value = value as u32;
        value
    }

    /// Lengths for which the data is made ready before trials begin: all that a trial can have where
    /// they are listed, else `model.max_length`, and others when a trial asks for them.
    pub fn max_lengths(&self) -> Vec<u32> {
        let listed = match self.hyperparameters.get("max_length") {
            Some(Domain::Constant(value)) => vec![*value],
            Some(Domain::Values(values)) => values.clone(),
            _ => return vec![self.model.max_length],
        };
        let length = |value: ParameterValue| match value {
            ParameterValue::Int(whole) => u32::try_from(whole).ok(),
            ParameterValue::Float(_) | ParameterValue::Category(_) => None,
        };
        listed.into_iter().filter_map(length).collect()
    }
}

pub(super) fn read_truncation(field: &Field<'_>, length_max: u32) -> Option<Truncation> {
    if !field.is_mapping() {
        return field.choice(&[
            ("head", Truncation::Head),
            ("tail", Truncation::Tail),
            ("head_tail", Truncation::HeadTail { head: None }),
        ]);
    }
    let section = field.section()?;
    let head = section.require("head", "128").and_then(|field| field.whole_u32(1, length_max));
    section.finish();
    Some(Truncation::HeadTail { head: Some(head?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_those_of_the_paper() {
        let split = |truncation: Truncation, max_length: usize| {
            let head = truncation.head_tokens(max_length, max_length - 2);
            (head, max_length - 2 - head)
        };
        assert_eq!(split(Truncation::HeadTail { head: None }, 512), (128, 382));
        assert_eq!(split(Truncation::HeadTail { head: Some(100) }, 512), (100, 410));
        assert_eq!(split(Truncation::HeadTail { head: Some(600) }, 512), (510, 0));
        assert_eq!(split(Truncation::Head, 128), (126, 0));
        assert_eq!(split(Truncation::Tail, 128), (0, 126));
    }
}
