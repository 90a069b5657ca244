//! Wire to domain and back. Going in, every error names the field.

mod report;
mod run;

pub use run::{RunWriter, assignment_from_wire, assignment_to_wire};

use muster_common::id::IdError;

/// A message that is not legal.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("field `{field}` is missing")]
    Missing {
        /// Name in the proto file.
        field: &'static str,
    },
    /// A field holds something illegal.
    #[error("field `{field}` is illegal: {reason}")]
    Illegal {
        /// Name in the proto file.
        field: &'static str,
        /// Why.
        reason: String,
    },
}

impl ConvertError {
    fn id(field: &'static str) -> impl Fn(IdError) -> Self {
        move |error| Self::Illegal { field, reason: error.to_string() }
    }
}

/// Unwraps an optional message field.
fn required<T>(value: Option<T>, field: &'static str) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { field })
}
