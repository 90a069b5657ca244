//! Data, from files to batches. Files are read twice, row by row ([`source`]): a [`census`] remembers
//! a digest, a class and a signature of every row; [`split`] decides where each goes; the second pass
//! tokenizes what stays ([`prepare`]) into the store's [`cache`], which is mapped, not read. [`order`]
//! makes batches of similar length.

mod cache;
mod census;
mod claim;
mod columns;
mod dataset;
mod error;
mod label;
mod near;
mod order;
mod parallel;
mod prepare;
mod problem;
mod sentence;
mod source;
mod spill;
mod split;
mod tokenize;

pub use dataset::{Dataset, Split, load, load_at};
pub use error::DataError;
pub use order::BatchOrder;
pub(crate) use sentence::FOLLOWS;
pub use tokenize::{Input, Sequence, SpecialTokens, TextTokenizer};

#[cfg(test)]
mod tests;
