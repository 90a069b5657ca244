//! Data, from files to batches: read ([`source`]), label, split, tokenize, keep in the store's cache,
//! and order into batches of similar length.

mod cache;
mod dataset;
mod error;
mod label;
mod order;
mod source;
mod split;
mod tokenize;

pub use dataset::{Dataset, Split, load};
pub use error::DataError;
pub use order::BatchOrder;
pub use tokenize::{Input, Sequence, TextTokenizer};

#[cfg(test)]
mod tests;
