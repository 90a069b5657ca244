//! One call from the command line: what to explain, and where the answers go.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use muster_common::evaluation::AttributedText;
use muster_common::whole_file::WholeFile;
use tch::Device;

use super::explainer::{Explainer, Question};
use super::html;
use super::record::{Baseline, FORMAT, Report, SettingsRecord};
use super::split::{SplitOptions, explain_split};
use super::terminal::{Style, render};
use crate::predict::{Text, directory_of, unless_unread};

/// A file name that stands for standard output.
const STDOUT: &str = "-";

/// Points of the integrals of [`attribute`].
const ATTRIBUTION_STEPS: u32 = 50;

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
    let Outputs { json, html } = &request.outputs;
    if let (Some(json), true) = (json, json == html) {
        bail!("--json and --html name the same file: {}", json.display());
    }
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

/// Says how much the words of texts have to do with their predictions: objects from `input`, one per line, are
/// [`AttributedText`]s, and for each `output` gets an [`Attribution`](muster_common::evaluation::Attribution).
pub fn attribute(
    directory: &Path,
    num_threads: usize,
    device: Device,
    input: impl BufRead,
    output: &mut impl Write,
) -> anyhow::Result<()> {
    let settings = SettingsRecord { steps: ATTRIBUTION_STEPS, baseline: Baseline::Pad };
    let explainer = Explainer::open(directory, num_threads, device, settings)?;
    for line in input.lines() {
        let AttributedText { text, text_pair } =
            serde_json::from_str(&line?).context("standard input holds no texts")?;
        let found = explainer.attribute(&Text { text, text_pair })?;
        writeln!(output, "{}", serde_json::to_string(&found)?)?;
    }
    Ok(output.flush()?)
}

fn write(
    report: &Report,
    outputs: &Outputs,
    style: Style,
    stdout: &mut impl Write,
) -> anyhow::Result<()> {
    // Both files are written before either is put in its place.
    let html = outputs.html.as_deref();
    let html = html.map(|path| draft(path, html::page(report).as_bytes())).transpose()?;
    let mut said = None;
    let mut json = None;
    if let Some(path) = &outputs.json {
        let text = serde_json::to_string(report)? + "\n";
        if path == Path::new(STDOUT) {
            said = Some(text);
        } else {
            json = Some(draft(path, text.as_bytes())?);
        }
    }
    let said = said.unwrap_or_else(|| render(report, style));
    if unless_unread(stdout.write_all(said.as_bytes()))?.is_continue() {
        let _is_unread = unless_unread(stdout.flush())?;
    }
    for (path, file) in [html, json].into_iter().flatten() {
        file.commit().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What will be the file at `path`.
fn draft<'a>(path: &'a Path, contents: &[u8]) -> anyhow::Result<(&'a Path, WholeFile)> {
    let written = WholeFile::create(path).and_then(|mut file| {
        file.write_all(contents)?;
        file.flush()?;
        Ok(file)
    });
    Ok((path, written.with_context(|| format!("cannot write {}", path.display()))?))
}
