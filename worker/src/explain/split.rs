//! All texts of a file: whether importance can be believed on the whole, what layers look at and know, and where the
//! model is wrong and sure of it.

use std::path::Path;

use anyhow::Context;
use tch::{Kind, Tensor};

use super::attention::HeadSummary;
use super::curve::{Curve, Faithfulness, descending};
use super::explainer::{Explainer, Question};
use super::probe::{ProbeAccuracy, probe};
use super::record::{MeanCurves, Method, SplitExplanation, TextExplanation};
use crate::data::{LabeledText, TableColumns, class_of, read_table};
use crate::model::{ModelError, duplicate};
use crate::predict::{Prediction, Text};

/// Texts that layers are looked at with, at most: states of all layers are kept.
const ANALYZED_MAX: usize = 1000;

/// How much is done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitOptions {
    /// Its columns.
    pub columns: TableColumns,
    /// Texts whose words' importance is measured, at most.
    pub attributed_max: usize,
    /// Mistakes that are shown, at most.
    pub mistakes_max: usize,
}

/// A text and its class.
struct Example {
    text: Text,
    class: Option<usize>,
}

/// What the model says about a text.
struct Answer {
    class: usize,
    probability: f64,
}

/// Explains the texts of `path`.
pub(super) fn explain_split(
    explainer: &Explainer,
    path: &Path,
    options: &SplitOptions,
) -> anyhow::Result<SplitExplanation> {
    let file = path.display().to_string();
    let examples = examples(explainer, read_table(path, &options.columns)?)?;
    if examples.is_empty() {
        anyhow::bail!("{file} has no texts");
    }
    let answers = answers(explainer, &examples)?;
    tracing::info!("{} texts of {file} are predicted", examples.len());
    let analysis = Analysis::of(explainer, &examples)?;
    let attributed = attributed(explainer, &examples, options.attributed_max)?;
    let (curves, completeness_error) = curves(&attributed);
    Ok(SplitExplanation {
        file,
        num_texts: examples.len(),
        accuracy: accuracy(&examples, &answers),
        majority: majority(&examples),
        num_attributed: attributed.len(),
        curves,
        completeness_error,
        num_analyzed: analysis.num_texts,
        heads: analysis.heads,
        probes: analysis.probes,
        mistakes: mistakes(explainer, &examples, &answers, options.mistakes_max)?,
    })
}

fn examples(explainer: &Explainer, rows: Vec<LabeledText>) -> anyhow::Result<Vec<Example>> {
    let example = |row: LabeledText| {
        let class = row.label.as_deref().map(|label| class_of(explainer.classes(), label));
        let class = class.transpose().map_err(anyhow::Error::msg).context(row.place)?;
        Ok(Example { text: Text { text: row.text, text_pair: row.text_pair }, class })
    };
    rows.into_iter().map(example).collect()
}

fn answers(explainer: &Explainer, examples: &[Example]) -> anyhow::Result<Vec<Answer>> {
    let texts = examples.iter().map(|example| example.text.clone()).collect();
    let answer = |prediction: Prediction| {
        let class = descending(&prediction.probabilities).first().copied().unwrap_or(0);
        Answer { class, probability: prediction.probability }
    };
    Ok(explainer.predictor().predict(texts)?.into_iter().map(answer).collect())
}

fn accuracy(examples: &[Example], answers: &[Answer]) -> Option<f64> {
    let labeled = || {
        let pairs = examples.iter().zip(answers);
        pairs.filter_map(|(example, answer)| Some((example.class?, answer.class)))
    };
    let count = labeled().count();
    let right = labeled().filter(|(truth, found)| truth == found).count();
    (count > 0).then(|| right as f64 / count as f64)
}

fn majority(examples: &[Example]) -> Option<f64> {
    let classes: Vec<usize> = examples.iter().filter_map(|example| example.class).collect();
    let count = |class: &usize| classes.iter().filter(|other| *other == class).count();
    let num_classes = classes.iter().max()? + 1;
    let most = (0..num_classes).map(|class| count(&class)).max()?;
    Some(most as f64 / classes.len() as f64)
}

/// At most `max` of `count` numbers, evenly spread.
fn spread(count: usize, max: usize) -> Vec<usize> {
    let taken = count.min(max);
    (0..taken).map(|at| at * count / taken).collect()
}

/// Importance in some of the texts, by all methods, without layers.
fn attributed(
    explainer: &Explainer,
    examples: &[Example],
    max: usize,
) -> anyhow::Result<Vec<TextExplanation>> {
    /// Texts between two messages.
    const SAID_EVERY: usize = 20;
    let question = Question { class: None, layers: false };
    let chosen = spread(examples.len(), max);
    let mut found = Vec::with_capacity(chosen.len());
    for example in chosen.iter().filter_map(|index| examples.get(*index)) {
        found.push(explainer.explain(&example.text, example.class, question)?);
        if found.len() % SAID_EVERY == 0 {
            tracing::info!("importance in {} of {} texts is measured", found.len(), chosen.len());
        }
    }
    Ok(found)
}

/// Mean curves by method and of random orders, and the median of the completeness errors.
fn curves(explained: &[TextExplanation]) -> (Vec<MeanCurves>, f64) {
    let mean = |method: Option<Method>| {
        let all: Vec<&Faithfulness> = explained
            .iter()
            .filter_map(|text| match method {
                None => text.random.as_ref(),
                Some(method) => {
                    let found = text.importance.iter().find(|found| found.method == method);
                    found.and_then(|found| found.faithfulness.as_ref())
                }
            })
            .collect();
        let deletions: Vec<&Curve> = all.iter().map(|both| &both.deletion).collect();
        let insertions: Vec<&Curve> = all.iter().map(|both| &both.insertion).collect();
        let (deletion, insertion) = (Curve::mean(&deletions)?, Curve::mean(&insertions)?);
        Some(MeanCurves { method, faithfulness: Faithfulness { deletion, insertion } })
    };
    let methods = Method::ALL.into_iter().map(Some).chain([None]);
    let mut errors: Vec<f64> = explained
        .iter()
        .flat_map(|text| &text.importance)
        .filter_map(|importance| importance.completeness)
        .map(|completeness| completeness.relative())
        .collect();
    errors.sort_by(f64::total_cmp);
    let median = errors.get(errors.len() / 2).copied().unwrap_or(0.0);
    (methods.filter_map(mean).collect(), median)
}

/// The wrong predictions that the model is surest of.
fn mistakes(
    explainer: &Explainer,
    examples: &[Example],
    answers: &[Answer],
    max: usize,
) -> anyhow::Result<Vec<TextExplanation>> {
    let pairs = examples.iter().zip(answers);
    let is_wrong = |(example, answer): &(&Example, &Answer)| {
        example.class.is_some_and(|class| class != answer.class)
    };
    let mut wrong: Vec<(&Example, &Answer)> = pairs.filter(is_wrong).collect();
    wrong.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    let question = Question { class: None, layers: false };
    let explain = |(example, _): (&Example, &Answer)| {
        explainer.explain(&example.text, example.class, question)
    };
    wrong.into_iter().take(max).map(explain).collect()
}

/// What layers look at and know.
struct Analysis {
    num_texts: usize,
    heads: Vec<Vec<HeadSummary>>,
    probes: Vec<ProbeAccuracy>,
}

impl Analysis {
    fn of(explainer: &Explainer, examples: &[Example]) -> anyhow::Result<Self> {
        let chosen: Vec<&Example> = spread(examples.len(), ANALYZED_MAX)
            .iter()
            .filter_map(|index| examples.get(*index))
            .collect();
        let mut heads: Vec<Vec<Vec<HeadSummary>>> = Vec::with_capacity(chosen.len());
        let mut states: Vec<[Vec<Tensor>; 2]> = Vec::new();
        for example in &chosen {
            let read = explainer.read(&example.text)?;
            let (_, pass) = explainer.pass(&read)?;
            heads.push(explainer.heads(&read, &pass)?);
            states.resize_with(pass.states.len(), Default::default);
            for ([first, mean], state) in states.iter_mut().zip(&pass.states) {
                // A copy: a view would keep the states of all tokens.
                first.push(duplicate(&state.f_select(1, 0)?)?);
                mean.push(state.f_mean_dim(1i64, false, Kind::Float)?);
            }
        }
        let classes: Option<Vec<usize>> = chosen.iter().map(|example| example.class).collect();
        let probes = match classes {
            Some(classes) => probes(&states, &classes, explainer.classes().len())?,
            None => Vec::new(),
        };
        tracing::info!("layers have been looked at with {} texts", chosen.len());
        Ok(Self { num_texts: chosen.len(), heads: mean_heads(&heads), probes })
    }
}

fn probes(
    states: &[[Vec<Tensor>; 2]],
    classes: &[usize],
    num_classes: usize,
) -> Result<Vec<ProbeAccuracy>, ModelError> {
    let accuracy = |states: &Vec<Tensor>| probe(&Tensor::f_cat(states, 0)?, classes, num_classes);
    let of_layer = |(layer, [first, mean]): (usize, &[Vec<Tensor>; 2])| {
        Ok(ProbeAccuracy { layer, first_token: accuracy(first)?, mean_token: accuracy(mean)? })
    };
    states.iter().enumerate().map(of_layer).collect()
}

/// The mean over texts, per layer and head.
fn mean_heads(texts: &[Vec<Vec<HeadSummary>>]) -> Vec<Vec<HeadSummary>> {
    let Some(shape) = texts.first() else { return Vec::new() };
    let mean = |layer: usize, head: usize| {
        let of_text = |text: &Vec<Vec<HeadSummary>>| text.get(layer)?.get(head).copied();
        HeadSummary::mean(texts.iter().filter_map(of_text))
    };
    let layers = shape.iter().enumerate();
    layers.map(|(layer, heads)| (0..heads.len()).map(|head| mean(layer, head)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_spread_over_the_file() {
        assert_eq!(spread(10, 3), [0, 3, 6]);
        assert_eq!(spread(2, 5), [0, 1]);
        assert!(spread(0, 5).is_empty());
    }
}
