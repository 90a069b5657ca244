//! One call from the command line: what to explain, and where the answers go.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use muster_common::whole_file::write_whole;
use tch::Device;

use super::explainer::{Explainer, Question};
use super::html;
use super::record::{FORMAT, Report, SettingsRecord};
use super::split::{SplitOptions, explain_split};
use super::terminal::{Style, render};
use crate::predict::{Text, directory_of, unless_unread};

/// A file name that stands for standard output.
const STDOUT: &str = "-";

/// Where answers are written beside the terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    /// The [`Report`] as JSON; `-` is standard output, which then gets nothing else.
    pub json: Option<PathBuf>,
    /// One page with everything in it.
    pub html: Option<PathBuf>,
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Directory of a model, or its name on a hub.
    pub model: String,
    /// Texts.
    pub texts: Vec<Text>,
    /// A file of texts.
    pub file: Option<(PathBuf, SplitOptions)>,
    /// Name or number of the class to explain in every text; absent: the predicted one.
    pub class: Option<String>,
    /// How.
    pub settings: SettingsRecord,
    /// Where to.
    pub outputs: Outputs,
}

/// Explains, and writes what was found. `num_threads` compute, in all of this process.
pub fn run(
    request: &Request,
    num_threads: usize,
    device: Device,
    style: Style,
    stdout: &mut impl Write,
) -> anyhow::Result<()> {
    if request.texts.iter().any(|text| text.text.trim().is_empty()) {
        bail!("a text is empty: there is no word in it to explain");
    }
    let directory = directory_of(&request.model)?;
    let explainer = Explainer::open(&directory, num_threads, device, request.settings)?;
    let class = request.class.as_deref().map(|class| explainer.class(class)).transpose()?;
    let question = Question { class, layers: true };
    let explain = |text: &Text| explainer.explain(text, None, question);
    let texts = request.texts.iter().map(explain).collect::<anyhow::Result<Vec<_>>>()?;
    let split = request.file.as_ref();
    let split =
        split.map(|(path, options)| explain_split(&explainer, path, options)).transpose()?;
    let report = Report {
        format: FORMAT,
        model: explainer.model_record(&request.model),
        settings: explainer.settings(),
        texts,
        split,
    };
    write(&report, &request.outputs, style, stdout)
}

fn write(
    report: &Report,
    outputs: &Outputs,
    style: Style,
    stdout: &mut impl Write,
) -> anyhow::Result<()> {
    if let Some(path) = &outputs.html {
        write_file(path, html::page(report).as_bytes())?;
    }
    let said = match &outputs.json {
        Some(path) => {
            let mut json = serde_json::to_string(report)?;
            json.push('\n');
            if path == Path::new(STDOUT) {
                Some(json)
            } else {
                write_file(path, json.as_bytes())?;
                None
            }
        }
        None => None,
    };
    let said = said.unwrap_or_else(|| render(report, style));
    match unless_unread(stdout.write_all(said.as_bytes()))? {
        ControlFlow::Continue(()) => unless_unread(stdout.flush()).map(|_| ()),
        ControlFlow::Break(()) => Ok(()),
    }
}

fn write_file(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    write_whole(path, contents).with_context(|| format!("cannot write {}", path.display()))
}
