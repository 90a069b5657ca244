//! A small real experiment: the demo's model on the first few hundred of the demo's sentences.

use std::fs;
use std::path::{Path, PathBuf};

/// Sentences used: enough to learn something, few enough for seconds.
const NUM_SENTENCES: usize = 700;

/// Root of the repository.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where the inputs of the demo are, or why there are none.
pub fn demo_inputs() -> Result<PathBuf, String> {
    let directory = repository().join(".cache/demo");
    if directory.join(".ready").is_file() {
        return Ok(directory);
    }
    Err("data: the demo inputs are missing; run deploy/setup/demo_inputs.sh".to_owned())
}

/// Where real data sets and vocabularies are (`MUSTER_SHARED/data`, else `../shared/data` beside the
/// repository), or why there are none.
pub fn shared_data() -> Result<PathBuf, String> {
    let shared = std::env::var_os("MUSTER_SHARED").map(PathBuf::from);
    let data = shared.unwrap_or_else(|| repository().join("../shared")).join("data");
    if data.join("vocab").is_dir() {
        return Ok(data);
    }
    Err("data: there is no ../shared/data; MUSTER_SHARED names another directory".to_owned())
}

/// What a small manifest varies.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Trials created.
    pub max_trials: u32,
    /// Steps of the lowest rung; the budget is four times that.
    pub min_steps: u64,
}

/// Writes a small manifest and its data into `directory`; returns the manifest's path.
pub fn write_manifest(directory: &Path, sample: &Sample) -> Result<PathBuf, String> {
    let inputs = demo_inputs()?;
    let said = |error: std::io::Error| error.to_string();
    let all = fs::read_to_string(inputs.join("movie-reviews/sentences.tsv")).map_err(said)?;
    let few: Vec<&str> = all.lines().take(NUM_SENTENCES).collect();
    let data = directory.join("sentences.tsv");
    fs::write(&data, few.join("\n")).map_err(said)?;
    let (model, data) = (inputs.join("minilm"), data.display().to_string());
    let text = format!(
        "version: 1
name: sample
seed: 3
model:
  pretrained: {model}
  max_length: 32
  freeze: {{embeddings: true, layers: 5}}
data:
  train: {{path: {data}, columns: [id, rating, text]}}
  test: {{examples: 80}}
  validation: {{examples: 80}}
  text: text
  label:
    column: rating
    ranges: [{{name: negative, below: -0.5}}, {{name: positive, above: 0.5}}]
hyperparameters:
  learning_rate: {{min: 1e-4, max: 1e-3, scale: log}}
  global_batch_size: {{values: [8, 16]}}
  dropout: {{min: 0.0, max: 0.3}}
searcher:
  metric: loss
  max_trials: {max_trials}
  pruner: {{type: asha, reduction_factor: 2, min_budget: {{steps: {min_steps}}}}}
budget: {{steps: {budget}}}
checkpoint: {{every_steps: 3}}
",
        model = model.display(),
        max_trials = sample.max_trials,
        min_steps = sample.min_steps,
        budget = 4 * sample.min_steps,
    );
    let path = directory.join("sample.yaml");
    fs::write(&path, text).map_err(said)?;
    Ok(path)
}

/// The same with steps that take long; see [`slow_down`].
pub fn write_slow_manifest(directory: &Path, sample: &Sample) -> Result<PathBuf, String> {
    let path = write_manifest(directory, sample)?;
    slow_down(&path)?;
    Ok(path)
}

/// Makes steps of that manifest take so long, by larger batches, that a trial of 60 is not over before somebody has
/// looked twice.
pub fn slow_down(manifest: &Path) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let text = fs::read_to_string(manifest).map_err(said)?;
    let slow = text.replace("{values: [8, 16]}", "{values: [64, 96]}");
    if slow == text {
        return Err(format!("{} has other batches than those of a sample", manifest.display()));
    }
    fs::write(manifest, slow).map_err(said)
}
