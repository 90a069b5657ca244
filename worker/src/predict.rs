//! Classifying texts with a model directory, as exported or as other tools write it.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::data::TextTokenizer;
use crate::model::Classifier;

/// Texts per forward.
const BATCH: usize = 32;

/// What the model says about one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The text, as given.
    pub text: String,
    /// Name of the most probable class.
    pub label: String,
    /// Its probability, 0 to 1.
    pub probability: f64,
    /// Raw scores, one per class in the order of their numbers.
    pub logits: Vec<f32>,
}

impl Prediction {
    /// One line for people: class, probability, text; tab separated.
    pub fn to_line(&self) -> String {
        format!("{}\t{:.4}\t{}", self.label, self.probability, self.text)
    }

    /// One JSON object without line breaks, with the keys `text`, `label`, `probability` and, if
    /// `logits` holds, `logits`.
    pub fn to_json(&self, logits: bool) -> String {
        let Self { text, label, probability, .. } = self;
        let mut object = json!({"text": text, "label": label, "probability": probability});
        if logits && let Some(fields) = object.as_object_mut() {
            fields.insert("logits".to_owned(), json!(self.logits));
        }
        object.to_string()
    }
}

/// Classifies texts with the model in a Hugging Face directory, on the CPU. Results come in the
/// order of the texts. Texts longer than the model can take keep their head.
pub fn predict(directory: &Path, texts: Vec<String>) -> anyhow::Result<Vec<Prediction>> {
    let model = Classifier::from_directory(directory, Device::Cpu)
        .with_context(|| format!("no model in {}", directory.display()))?;
    let max_length = u32::try_from(model.config().max_tokens())?;
    let tokenizer = TextTokenizer::open(directory, max_length)?;
    let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokens = tokenizer.encode(&borrowed, num_threads)?;
    check_vocabulary(&tokens, model.config().vocab_size)?;

    // Texts of similar length share a batch, so that little of it is padding.
    let mut sequences: Vec<(usize, Vec<u32>)> = tokens.into_iter().enumerate().collect();
    sequences.sort_by_key(|(index, tokens)| (tokens.len(), *index));
    let mut scored: Vec<(usize, Vec<f32>)> = Vec::with_capacity(sequences.len());
    for batch in sequences.chunks(BATCH) {
        let (indices, tokens): (Vec<usize>, Vec<Vec<u32>>) = batch.iter().cloned().unzip();
        scored.extend(indices.into_iter().zip(rows(&model.logits(&tokens)?)?));
    }
    scored.sort_by_key(|(index, _)| *index);
    let name = |(text, (_, logits))| prediction(text, logits, model.labels());
    texts.into_iter().zip(scored).map(name).collect()
}

fn check_vocabulary(tokens: &[Vec<u32>], vocab_size: i64) -> anyhow::Result<()> {
    let largest = tokens.iter().flatten().max().copied().unwrap_or(0);
    if i64::from(largest) >= vocab_size {
        bail!(
            "the tokenizer gives the number {largest}, but the model knows {vocab_size} tokens: \
             the tokenizer belongs to another model"
        );
    }
    Ok(())
}

/// `[B, C]` to `B` lists.
fn rows(logits: &Tensor) -> anyhow::Result<Vec<Vec<f32>>> {
    let num_classes = usize::try_from(logits.size2()?.1)?;
    let flat = logits.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    let flat = Vec::<f32>::try_from(&flat)?;
    Ok(flat.chunks(num_classes.max(1)).map(<[f32]>::to_vec).collect())
}

fn prediction(text: String, logits: Vec<f32>, labels: &[String]) -> anyhow::Result<Prediction> {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let (class, score) = best.context("the model has no classes")?;
    if !logits.iter().all(|logit| logit.is_finite()) {
        bail!("the scores are not finite: the weights are damaged");
    }
    let total: f64 = logits.iter().map(|logit| f64::from(logit - score).exp()).sum();
    let label = labels.get(class).context("the model has more scores than class names")?;
    Ok(Prediction { text, label: label.clone(), probability: 1.0 / total, logits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["negative", "positive"].map(ToOwned::to_owned).to_vec()
    }

    #[test]
    fn the_best_score_names_the_class() {
        let prediction = prediction("a\n".to_owned(), vec![0.0, 3.0f32.ln()], &labels()).unwrap();
        assert_eq!(prediction.label, "positive");
        assert!((prediction.probability - 0.75).abs() < 1e-6);
        let json: serde_json::Value = serde_json::from_str(&prediction.to_json(true)).unwrap();
        assert_eq!(json["logits"].as_array().unwrap().len(), 2);
        assert_eq!(json["text"], "a\n");
        assert!(!prediction.to_json(false).contains("logits"));
        assert!(!prediction.to_json(true).contains('\n'));
    }

    #[test]
    fn scores_that_are_not_finite_are_an_error() {
        assert!(prediction(String::new(), vec![0.0, f32::NAN], &labels()).is_err());
        assert!(prediction(String::new(), Vec::new(), &labels()).is_err());
        assert!(prediction(String::new(), vec![0.0, 1.0, 2.0], &labels()).is_err());
    }
}
