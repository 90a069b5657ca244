//! Classifying texts with a model directory, as exported or as other tools write it. A [`request`] is one call from the
//! command line: [`part`] takes rows in parts, the predictor answers them, and [`table`] writes files.

mod part;
mod request;
mod table;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use muster_common::manifest::HubName;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::data::{Input, Sequence, TextTokenizer};
use crate::model::{self, Classifier, HubSettings};
use part::PART;

pub use request::{Request, TextSource, run};
pub use table::TableKind;

/// Texts per forward.
const BATCH: usize = 32;

/// One text to classify, or a pair that is read as one example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { text, text_pair: None }
    }
}

/// What the model says about one text. Written as JSON it is one object without line breaks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The text, as given.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Name of the most probable class.
    pub label: String,
    /// Its probability, 0 to 1.
    pub probability: f64,
    /// Probabilities of all classes, in the order of their numbers.
    pub probabilities: Vec<f64>,
    /// Raw scores of all classes, in the order of their numbers.
    pub logits: Vec<f32>,
    /// What the model read, special tokens included.
    pub token_ids: Vec<u32>,
}

impl Prediction {
    /// One line for people: class, probability, text; tab separated.
    pub fn to_line(&self) -> String {
        format!("{}\t{:.4}\t{}", self.label, self.probability, self.text)
    }

    fn new(
        text: Text,
        tokens: Sequence,
        logits: Vec<f32>,
        labels: &[String],
    ) -> anyhow::Result<Self> {
        // Of equal scores the first, as in evaluations: `max_by` gives the last.
        let best = logits.iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (class, score) = best.context("the model has no classes")?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            bail!("the scores are not finite: the weights are damaged");
        }
        let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - score).exp()).collect();
        let total: f64 = powers.iter().sum();
        let label = labels.get(class).context("the model has more scores than class names")?;
        Ok(Self {
            text: text.text,
            text_pair: text.text_pair,
            label: label.clone(),
            probability: total.recip(),
            probabilities: powers.iter().map(|power| power / total).collect(),
            logits,
            token_ids: tokens.ids,
        })
    }
}

/// The directory of `model`: a path, or the name of a model on a hub.
pub fn directory_of(model: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("the working directory is gone")?;
    let Some(name) = HubName::unless_there(model, &here) else { return Ok(PathBuf::from(model)) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the threads that talk to the hub")?;
    let go_on = |_: &str| ControlFlow::Continue(());
    let fetched = model::fetch(runtime.handle(), &name, &HubSettings::from_environment(), go_on)?;
    fetched.context("the download was stopped")
}

/// A fine-tuned model with its tokenizer.
#[derive(Debug)]
pub struct Predictor {
    model: Classifier,
    tokenizer: TextTokenizer,
    num_threads: usize,
}

impl Predictor {
    /// Reads a Hugging Face directory; the model will lie on `device`. `num_threads` compute, in all of
    /// this process.
    pub fn open(directory: &Path, num_threads: usize, device: Device) -> anyhow::Result<Self> {
        tch::set_num_threads(i32::try_from(num_threads)?);
        let model = Classifier::from_directory(directory, device)
            .with_context(|| format!("no model in {}", directory.display()))?;
        let problem = model.config().raw.get("problem_type").and_then(|value| value.as_str());
        if let Some(problem) = problem.filter(|problem| *problem != "single_label_classification") {
            bail!(
                "{} is made for `{problem}`; only one class per text is predicted here",
                directory.display()
            );
        }
        let max_length = u32::try_from(model.config().max_tokens())?;
        let tokenizer = TextTokenizer::open(directory, max_length)?;
        Ok(Self { model, tokenizer, num_threads })
    }

    /// The model.
    pub(crate) fn model(&self) -> &Classifier {
        &self.model
    }

    /// Its tokenizer.
    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Classifies all `texts`. Texts longer than the model can take keep their head, of pairs the longer text is cut.
    pub fn predict(&self, texts: Vec<Text>) -> anyhow::Result<Vec<Prediction>> {
        let mut predictions = Vec::with_capacity(texts.len());
        let mut texts = texts.into_iter();
        loop {
            let part: Vec<Text> = texts.by_ref().take(PART).collect();
            if part.is_empty() {
                return Ok(predictions);
            }
            predictions.extend(self.predict_part(part)?);
        }
    }

    /// Classifies `texts`, all of whose tokens are in memory meanwhile.
    fn predict_part(&self, texts: Vec<Text>) -> anyhow::Result<Vec<Prediction>> {
        let inputs: Vec<Input<'_>> = texts
            .iter()
            .map(|text| Input { text: &text.text, pair: text.text_pair.as_deref() })
            .collect();
        let sequences = self.tokenizer.encode_inputs(&inputs, self.num_threads)?;
        self.check_vocabulary(&sequences)?;
        // Texts of similar length share a batch, so that little of it is padding.
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|index| (sequences.get(*index).map(|s| s.ids.len()), *index));
        let mut scored: Vec<(usize, Vec<f32>)> = Vec::with_capacity(order.len());
        for indices in order.chunks(BATCH) {
            let batch = || indices.iter().filter_map(|index| sequences.get(*index));
            let tokens: Vec<&[u32]> = batch().map(|sequence| sequence.ids.as_slice()).collect();
            let first: Vec<usize> = batch().map(|sequence| sequence.first_segment).collect();
            let tokens = self.model.batch_of_pairs(&tokens, &first)?;
            let logits = tch::no_grad(|| self.model.forward(&tokens, 0.0))?;
            scored.extend(indices.iter().copied().zip(rows(&logits)?));
        }
        scored.sort_by_key(|(index, _)| *index);
        let labels = self.model.labels();
        let all = texts.into_iter().zip(sequences).zip(scored);
        all.map(|((text, tokens), (_, logits))| Prediction::new(text, tokens, logits, labels))
            .collect()
    }

    /// Refuses tokens that the model does not know.
    pub(crate) fn check_vocabulary(&self, sequences: &[Sequence]) -> anyhow::Result<()> {
        let tokens = sequences.iter().flat_map(|sequence| &sequence.ids);
        let largest = tokens.max().copied().unwrap_or(0);
        let vocab_size = self.model.config().vocab_size;
        if i64::from(largest) >= vocab_size {
            bail!(
                "the tokenizer gives the number {largest}, but the model knows {vocab_size} \
                 tokens: the tokenizer belongs to another model"
            );
        }
        Ok(())
    }
}

/// Writes a prediction to `output` as one line, for people or as JSON.
pub fn write_line(
    output: &mut impl Write,
    prediction: &Prediction,
    json: bool,
) -> anyhow::Result<ControlFlow<()>> {
    let line = if json { serde_json::to_string(prediction)? } else { prediction.to_line() };
    unless_unread(writeln!(output, "{line}"))
}

/// Whoever reads the predictions may leave when it has seen enough.
pub fn unless_unread(written: std::io::Result<()>) -> anyhow::Result<ControlFlow<()>> {
    match written {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write the predictions"),
    }
}

/// `[B, C]` to `B` lists.
fn rows(logits: &Tensor) -> anyhow::Result<Vec<Vec<f32>>> {
    let num_classes = usize::try_from(logits.size2()?.1)?;
    let flat =
        logits.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    let flat = Vec::<f32>::try_from(&flat)?;
    Ok(flat.chunks(num_classes.max(1)).map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(logits: Vec<f32>) -> anyhow::Result<Prediction> {
        let labels = ["negative", "positive"].map(ToOwned::to_owned);
        let tokens = Sequence { ids: vec![2, 7, 3], first_segment: 3 };
        Prediction::new(Text::from("a\n".to_owned()), tokens, logits, &labels)
    }

    #[test]
    fn the_best_score_names_the_class() {
        let prediction = prediction(vec![0.0, 3.0f32.ln()]).unwrap();
        assert_eq!(prediction.label, "positive");
        assert!((prediction.probability - 0.75).abs() < 1e-6);
        let mut written = Vec::new();
        assert!(write_line(&mut written, &prediction, true).unwrap().is_continue());
        let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(json["logits"].as_array().unwrap().len(), 2);
        assert!((json["probabilities"][0].as_f64().unwrap() - 0.25).abs() < 1e-6);
        assert_eq!((&json["text"], &json["token_ids"]), (&"a\n".into(), &vec![2, 7, 3].into()));
        assert!(json.get("text_pair").is_none());
        assert_eq!(written.split(|byte| *byte == b'\n').count(), 2);
    }

    #[test]
    fn of_equal_scores_the_first_class_counts_as_in_evaluations() {
        assert_eq!(prediction(vec![0.25, 0.25]).unwrap().label, "negative");
    }

    #[test]
    fn scores_that_are_not_finite_are_an_error() {
        assert!(prediction(vec![0.0, f32::NAN]).is_err());
        assert!(prediction(Vec::new()).is_err());
        assert!(prediction(vec![0.0, 1.0, 2.0]).is_err());
    }
}
