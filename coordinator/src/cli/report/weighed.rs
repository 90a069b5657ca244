//! Asks the chosen model which words its mistakes are due to: tensors live in the worker program.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use muster_common::compute;
use muster_common::evaluation::{AttributedText, Attribution};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::launcher::find_worker;
use crate::report::{Predictions, Weighed, questions};

/// Longest wait for the worker to read the model, and for each text that it is asked about.
const START_DEADLINE: Duration = Duration::from_secs(120);
const TEXT_DEADLINE: Duration = Duration::from_secs(60);

/// Answers about the mistakes of a model that lies at `model`. Whatever goes wrong, there is a report without them,
/// which says why.
pub(super) async fn ask(
    worker_binary: Option<&Path>,
    model: &str,
    predictions: &Predictions,
    pairs: bool,
) -> Weighed {
    let asked = questions(predictions, pairs);
    if asked.is_empty() {
        return Weighed::default();
    }
    let directory = PathBuf::from(model.strip_prefix("file://").unwrap_or(model));
    if !directory.is_dir() {
        let place = if model.is_empty() { "none is written".to_owned() } else { model.to_owned() };
        return Weighed::absent(format!("the model is not on this machine ({place})"));
    }
    eprintln!("the model explains {} of its mistakes; --no-explanations does without", asked.len());
    let (rows, texts): (Vec<u64>, Vec<AttributedText>) = asked.into_iter().unzip();
    match answers(worker_binary, &directory, &texts).await {
        Ok(answers) => Weighed { answers: rows.into_iter().zip(answers).collect(), absent: None },
        Err(error) => {
            let why = format!("{error:#}");
            eprintln!("warning: mistakes are not explained: {why}");
            Weighed::absent(why)
        }
    }
}

async fn answers(
    worker_binary: Option<&Path>,
    directory: &Path,
    texts: &[AttributedText],
) -> anyhow::Result<Vec<Attribution>> {
    let mut input = String::new();
    for text in texts {
        input += &serde_json::to_string(text)?;
        input.push('\n');
    }
    let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let deadline = START_DEADLINE + TEXT_DEADLINE.saturating_mul(count);
    let output = timeout(deadline, output_of(worker_binary, directory, &input)).await;
    let output = output.map_err(|_| {
        anyhow::anyhow!("the worker did not answer within {} s", deadline.as_secs())
    })??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word");
        bail!("the worker ended with {}: {}", output.status, last.trim_start_matches("error: "));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let answers = lines.map(serde_json::from_slice).collect::<Result<Vec<Attribution>, _>>();
    let answers = answers.context("the worker's answer cannot be read: is it of this build?")?;
    if answers.len() != texts.len() {
        bail!("the worker gave {} answers to {} texts", answers.len(), texts.len());
    }
    Ok(answers)
}

async fn output_of(
    worker_binary: Option<&Path>,
    directory: &Path,
    input: &str,
) -> anyhow::Result<Output> {
    let worker = find_worker(worker_binary)?;
    let mut child = Command::new(&worker)
        .arg("attribute")
        .arg("--")
        .arg(directory)
        .envs(compute::environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} does not start", worker.display()))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A worker that reads no further says why when it ends.
            let _unread = stdin.write_all(input.as_bytes()).await;
        }
    };
    // It answers while it is asked: neither side may wait for the other to end.
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output.with_context(|| format!("{} cannot be waited for", worker.display()))
}
