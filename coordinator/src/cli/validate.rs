//! `muster validate`: read a manifest, check what it names, say what it would do.

use std::path::{Path, PathBuf};

use anyhow::Context;
use muster_common::count::counted;
use muster_common::manifest::{Manifest, ManifestError, PrunerSettings, ladder};

use super::args::ValidateArguments;
use super::exit::Exit;
use super::header::missing_column;
use crate::import::{Dialect, foreign};

/// The manifest is legal by itself, but what it names is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// The manifest cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Manifest { path: PathBuf, source: std::io::Error },
    /// The manifest is not legal.
    #[error("{}:\n{source}", path.display())]
    Refused { path: PathBuf, source: muster_common::manifest::ManifestError },
    /// It is another system's file.
    #[error("{file} is {dialect}, no manifest; `muster import {file}` makes one of it", file = path.display())]
    Foreign { path: PathBuf, dialect: Dialect },
    /// A file it names is missing.
    #[error("{}: {name}: `{input}` does not exist; paths start at the working directory, {base}", manifest.display())]
    Missing { manifest: PathBuf, name: &'static str, input: String, base: String },
    /// A pattern it names stands for no file.
    #[error("{}: {name}: `{pattern}`: {wrong}; paths start at the working directory, {base}", manifest.display())]
    Unmatched {
        manifest: PathBuf,
        name: &'static str,
        pattern: String,
        wrong: String,
        base: String,
    },
    /// A file it names has not the columns it names.
    #[error("{}: {file}: {message}", manifest.display())]
    Column { manifest: PathBuf, file: String, message: String },
}

/// A manifest with absolute paths and its text.
pub(super) struct Submission {
    pub(super) manifest: Manifest,
    pub(super) text: String,
    pub(super) base: PathBuf,
}

/// Reads and checks a manifest and what it names: files and their columns, and whether the model can do what is asked.
pub(super) fn read(path: &Path) -> anyhow::Result<Submission> {
    let named = path.to_owned();
    let text = std::fs::read_to_string(path)
        .map_err(|source| InputError::Manifest { path: named.clone(), source })?;
    let mut manifest = Manifest::parse(&text).map_err(|source| refused(&named, &text, source))?;
    let base = std::env::current_dir().context("the working directory is gone")?;
    manifest.rebase(&base);
    for (name, input) in manifest.inputs() {
        if !Path::new(input).exists() {
            let (input, base) = (input.to_owned(), base.display().to_string());
            return Err(InputError::Missing { manifest: named, name, input, base }.into());
        }
    }
    let fits = manifest.check_model(&text);
    let doubts = fits.map_err(|source| InputError::Refused { path: named.clone(), source })?;
    if let Some((name, pattern, wrong)) = manifest.unmatched() {
        let (pattern, base) = (pattern.to_owned(), base.display().to_string());
        return Err(InputError::Unmatched { manifest: named, name, pattern, wrong, base }.into());
    }
    if let Some((file, message)) = missing_column(&manifest.data) {
        return Err(InputError::Column { manifest: named, file, message }.into());
    }
    for warning in manifest.warnings(None).into_iter().chain(doubts) {
        eprintln!("warning: {warning}");
    }
    Ok(Submission { manifest, text, base })
}

/// Says what is wrong with a manifest; of another system's file not that every key is.
fn refused(path: &Path, text: &str, source: ManifestError) -> InputError {
    let path = path.to_owned();
    match foreign(text) {
        Some(dialect) => InputError::Foreign { path, dialect },
        None => InputError::Refused { path, source },
    }
}

pub(super) fn validate(arguments: &ValidateArguments) -> anyhow::Result<Exit> {
    let submission = read(&arguments.manifest)?;
    println!("{}", describe(&submission.manifest));
    Ok(Exit::Done)
}

/// What a manifest would do, in a few lines.
fn describe(manifest: &Manifest) -> String {
    let mut lines = vec![format!("{}: the manifest is legal", manifest.name)];
    if let Some(name) = manifest.model.hub_name() {
        lines.push(format!("  pretrained model: {name}, no directory here, so one of the hub"));
    }
    match &manifest.searcher {
        None => lines.push(format!("  one trial of {}", manifest.budget)),
        Some(searcher) => {
            lines.push(format!(
                "  up to {}, each of at most {}, for the best {}",
                counted(searcher.max_trials, "trial"),
                manifest.budget,
                searcher.goal().names()
            ));
            lines.extend(
                searcher.constraints.iter().map(|bound| format!("  with {}", bound.words())),
            );
            lines.extend(compared(manifest, &searcher.pruner));
            if let Some(target) = searcher.target {
                lines.push(format!("  until one reaches {target}"));
            }
        }
    }
    let slots = manifest.resources.slots;
    if slots.max() > 1 {
        lines.push(format!("  each on {slots} at once"));
    }
    let searched = manifest.hyperparameters.iter().filter(|(_, domain)| domain.is_searched());
    let names: Vec<&str> = searched.map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        lines.push(format!("  searched: {}", names.join(", ")));
    }
    lines.join("\n")
}

/// Where and how trials are compared.
fn compared(manifest: &Manifest, pruner: &PrunerSettings) -> Option<String> {
    let rungs = ladder(manifest.budget, pruner);
    let mut texts: Vec<String> = rungs.iter().map(ToString::to_string).collect();
    if texts.len() > 8 {
        texts.splice(3..texts.len() - 1, ["...".to_owned()]);
    }
    let rule = match pruner {
        PrunerSettings::None => return None,
        PrunerSettings::Asha(asha) => format!("one in {} goes on", asha.reduction_factor),
        PrunerSettings::AshaStopping(asha) => {
            format!("those not among the best of {} so far stop", asha.reduction_factor)
        }
        PrunerSettings::Hyperband(halving) => {
            let brackets = counted(halving.brackets(manifest.budget).len(), "bracket");
            format!("one in {} goes on, in {brackets}", halving.reduction_factor)
        }
        PrunerSettings::Percentile(settings) => {
            format!("those not among the best {} % stop", settings.percentile)
        }
        PrunerSettings::Patience(settings) => {
            format!("{} in a row without an improvement stop a trial", settings.patience)
        }
        PrunerSettings::Population(settings) => {
            let percent = settings.quantile * 100.0;
            format!("the last {percent} % go on from checkpoints of the best")
        }
    };
    Some(format!("  compared at {}; {rule}", texts.join(", ")))
}
