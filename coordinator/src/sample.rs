//! Small manifests for tests: of a model and a file that nobody opens.

use muster_common::manifest::Manifest;

/// The text of one, with more keys of the top level; a budget has to be among them.
pub(crate) fn text(name: &str, more: &str) -> String {
    format!(
        "version: 1
name: {name}
model: {{pretrained: m}}
data:
  train: {{path: d.csv}}
  validation: {{fraction: 0.1}}
  text: text
  label: {{column: label}}
{more}"
    )
}

/// The same, parsed.
pub(crate) fn manifest(name: &str, more: &str) -> Manifest {
    Manifest::parse(&text(name, more)).unwrap_or_else(|error| panic!("{error}"))
}
