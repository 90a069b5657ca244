//! Dropout probabilities of a forward pass.

/// Probabilities with which values are dropped, 0 to 1; all zero in evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dropout {
    /// Of the embeddings and of what layers add to the residual stream.
    pub hidden: f64,
    /// Of attention shares.
    pub attention: f64,
    /// Of the classification head.
    pub head: f64,
}

impl Dropout {
    /// Evaluation: nothing is dropped.
    pub const NONE: Self = Self { hidden: 0.0, attention: 0.0, head: 0.0 };

    /// The same probability everywhere where `rate` is given, these where it is not.
    pub fn or_all(self, rate: Option<f64>) -> Self {
        rate.map_or(self, Self::from)
    }
}

impl From<f64> for Dropout {
    /// The same probability everywhere.
    fn from(rate: f64) -> Self {
        Self { hidden: rate, attention: rate, head: rate }
    }
}
