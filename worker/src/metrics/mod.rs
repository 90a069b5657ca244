//! Metrics on their way to the store: recorded by the training loop without waiting, written as
//! Parquet by a task in the background.

mod sink;

pub use sink::{MetricOrigin, MetricSink, MetricSinkError};
