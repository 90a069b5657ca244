//! A fine-tuned classifier as an ONNX file, which other runtimes run without libtorch. In reading order:
//! [`message`] is the format, [`drawing`] a graph in it, [`classifier`] the graph of a model.

mod classifier;
mod drawing;
mod message;

use std::path::Path;

use anyhow::{Context, bail};
use muster_common::whole_file::write_whole;
use prost::Message;

use crate::model::Classifier;
use message::{Model, OperatorSet, Property};

/// Version of the file's own format, and of the operations: the first that has `LayerNormalization`.
const IR_VERSION: i64 = 8;
const OPERATIONS: i64 = 17;

/// Largest message that readers of protobuf take.
const SIZE_MAX: usize = (1 << 31) - 1;

/// Writes `model` to `path`. Class names are in the file's metadata, in the order of their numbers, as a JSON list.
pub fn write(model: &Classifier, path: &Path) -> anyhow::Result<()> {
    let labels = serde_json::to_string(model.labels())?;
    let file = Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("muster".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(classifier::draw(model)?),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(OPERATIONS) }],
        metadata_props: vec![Property { key: Some("labels".to_owned()), value: Some(labels) }],
    };
    let size_bytes = file.encoded_len();
    if size_bytes > SIZE_MAX {
        bail!("the model has {size_bytes} bytes; an ONNX file of one part has at most {SIZE_MAX}");
    }
    write_whole(path, file.encode_to_vec())
        .with_context(|| format!("cannot write {}", path.display()))
}
