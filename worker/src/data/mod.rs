//! Data, from files to batches. Files are read once, row by row ([`source`]): a [`census`] remembers
//! a digest, a class and a signature of every row, and [`rows`] puts the texts on disk; [`split`] decides
//! where each goes. A [`stream`] tokenizes rows when they are asked for, while [`prepare`] makes tokens
//! of all of them for the store's [`cache`], which is mapped, not read ([`load`] brings these together).
//! [`order`] makes batches of similar length.

mod balance;
mod cache;
mod census;
mod claim;
mod columns;
mod dataset;
mod error;
mod inputs;
mod label;
mod load;
mod moves;
mod near;
mod order;
mod origin;
mod parallel;
mod prepare;
mod problem;
mod reading;
mod rows;
mod sentence;
mod source;
mod spill;
mod split;
mod stream;
mod table;
mod tokenize;

pub use dataset::{Dataset, Split};
pub use error::DataError;
pub use inputs::fetch;
pub use load::{Data, load, load_at, open};
pub use moves::moves;
pub use order::BatchOrder;
pub use origin::Origins;
pub(crate) use sentence::FOLLOWS;
pub use source::{Rest, TextColumns, WideRow, WideRows};
pub(crate) use source::{place, schema_of_names};
pub use stream::{Stream, StreamedSplit};
pub use table::{LabeledText, TableColumns, class_of, format_named, format_of, read_table};
pub use tokenize::{Input, Piece, Sequence, SpecialTokens, TextTokenizer};

#[cfg(test)]
mod tests;
