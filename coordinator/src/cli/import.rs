//! `muster import`: other systems' files as manifests; and `muster schema`.

use anyhow::Context;
use muster_common::manifest::{Manifest, schema};

use super::args::ImportArguments;
use super::exit::Exit;
use super::validate::InputError;
use crate::import::{Known, import};

/// Writes the manifest, and says on standard error what is not in it.
pub(super) fn import_file(arguments: &ImportArguments) -> anyhow::Result<Exit> {
    let path = arguments.file.clone();
    let text = std::fs::read_to_string(&path)
        .map_err(|source| InputError::Manifest { path: path.clone(), source })?;
    let known = Known {
        model: arguments.model.clone(),
        data: arguments.data.clone(),
        text: arguments.text.clone(),
        label: arguments.label.clone(),
    };
    let imported = import(&text, arguments.from, &known)
        .with_context(|| format!("cannot import {}", path.display()))?;
    match &arguments.output {
        Some(output) => std::fs::write(output, &imported.text)
            .with_context(|| format!("cannot write {}", output.display()))?,
        None => print!("{}", imported.text),
    }
    for remark in &imported.left_out {
        eprintln!("warning: {}: {remark}", path.display());
    }
    for remark in &imported.assumed {
        eprintln!("note: {remark}");
    }
    if let Err(error) = Manifest::parse(&imported.text) {
        eprintln!("note: before it can run, the manifest needs:\n{error}");
    }
    let is_whole = imported.left_out.is_empty() || !arguments.strict;
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

/// Prints what `configs/manifest.schema.json` holds.
pub(super) fn print_schema() -> anyhow::Result<Exit> {
    println!("{}", serde_json::to_string_pretty(&schema::schema())?);
    Ok(Exit::Done)
}
