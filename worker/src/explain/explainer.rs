//! A model with its tokenizer, and all questions about one text.

use std::path::Path;

use anyhow::{Context, bail};
use muster_common::evaluation::{Attribution, WordWeight};
use muster_common::seed::Seed;
use tch::{Device, Kind, Tensor};

use super::attention::{HeadSummary, rollout, summarize_heads};
use super::attribution::{gradient_times_input, integrated_gradients, occlusion, single_tokens};
use super::conductance::layer_conductance;
use super::curve::{descending, faithfulness, random_faithfulness};
use super::eager::{Eager, Pass, Reading};
use super::record::{
    Baseline, ClassScore, Importance, LayerRecord, Method, ModelRecord, SettingsRecord,
    TextExplanation, TokenRecord,
};
use super::subject::{Subject, doubles};
use super::words::{Word, merged, words_of};
use crate::data::{Input, Piece, Sequence, class_of};
use crate::model::ModelError;
use crate::predict::{Predictor, Text};

/// Random orders are the same every time.
const SEED: Seed = Seed(8);

/// What is asked about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Number of the class to explain; absent: the predicted one.
    pub class: Option<usize>,
    /// Whether layers and heads are looked at too.
    pub layers: bool,
}

/// Explains a fine-tuned classifier.
#[derive(Debug)]
pub struct Explainer {
    predictor: Predictor,
    eager: Eager,
    absent: Tensor, // [D]
    settings: SettingsRecord,
}

/// A text as the model reads it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) sequence: Sequence,
    pieces: Vec<Option<Piece>>,
    words: Vec<Word>,
}

impl Explainer {
    /// Reads a Hugging Face directory of one of the three families. `num_threads` compute, in all of this process.
    pub fn open(
        directory: &Path,
        num_threads: usize,
        device: Device,
        settings: SettingsRecord,
    ) -> anyhow::Result<Self> {
        if settings.steps == 0 {
            bail!("no integral has 0 steps");
        }
        let predictor = Predictor::open(directory, num_threads, device)?;
        let eager = Eager::of(predictor.model())?;
        let special = predictor.tokenizer().special_tokens();
        let lacks = |token| format!("the tokenizer has no {token} token: choose another baseline");
        let absent = match settings.baseline {
            Baseline::Pad => eager.word(special.pad.with_context(|| lacks("padding"))?)?,
            Baseline::Mask => eager.word(special.mask.with_context(|| lacks("mask"))?)?,
            Baseline::Zero => eager.word(special.cls)?.f_zeros_like()?,
        };
        Ok(Self { predictor, eager, absent, settings })
    }

    /// For answers about many texts.
    pub(super) fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// What the model is, called `name`.
    pub fn model_record(&self, name: &str) -> ModelRecord {
        let config = self.predictor.model().config();
        ModelRecord {
            name: name.to_owned(),
            family: config.family.model_type().to_owned(),
            num_layers: config.num_hidden_layers,
            num_heads: usize::try_from(config.num_attention_heads).unwrap_or(0),
            classes: self.classes().to_vec(),
        }
    }

    /// With what it explains.
    pub fn settings(&self) -> SettingsRecord {
        self.settings
    }

    /// Class names in the order of their numbers.
    pub fn classes(&self) -> &[String] {
        self.predictor.model().labels()
    }

    /// Number of the class that is called so, or has this number.
    pub fn class(&self, name: &str) -> anyhow::Result<usize> {
        class_of(self.classes(), name).map_err(anyhow::Error::msg)
    }

    pub(super) fn read(&self, text: &Text) -> anyhow::Result<Read> {
        let input = Input { text: &text.text, pair: text.text_pair.as_deref() };
        let tokenizer = self.predictor.tokenizer();
        let mut sequences = tokenizer.encode_inputs(&[input], 1)?;
        self.predictor.check_vocabulary(&sequences)?;
        let sequence = sequences.pop().context("the tokenizer gave nothing")?;
        let pieces = tokenizer.pieces(input)?;
        if pieces.len() != sequence.ids.len() {
            bail!("the tokenizer gives other tokens when it says where they stand");
        }
        let words = words_of(input, &pieces);
        Ok(Read { sequence, pieces, words })
    }

    /// Everything about the layers' work on a text.
    pub(super) fn pass(&self, read: &Read) -> Result<(Reading, Pass), ModelError> {
        let Sequence { ids, first_segment } = &read.sequence;
        let reading = Reading::new(self.predictor.model(), &[ids.as_slice()], &[*first_segment])?;
        let pass = tch::no_grad(|| self.eager.forward(&self.eager.words(&reading)?, &reading))?;
        Ok((reading, pass))
    }

    /// Per layer and head.
    pub(super) fn heads(
        &self,
        read: &Read,
        pass: &Pass,
    ) -> Result<Vec<Vec<HeadSummary>>, ModelError> {
        let sep = self.predictor.tokenizer().special_tokens().sep;
        let tokens = read.sequence.ids.iter().enumerate();
        let separators: Vec<usize> =
            tokens.filter(|(_, id)| **id == sep).map(|(at, _)| at).collect();
        pass.attentions.iter().map(|attention| summarize_heads(attention, &separators)).collect()
    }

    /// Explains one text; `label` is its true class where that is known.
    pub fn explain(
        &self,
        text: &Text,
        label: Option<usize>,
        question: Question,
    ) -> anyhow::Result<TextExplanation> {
        let read = self.read(text)?;
        let (reading, pass) = self.pass(&read)?;
        let logits = doubles(&pass.logits)?;
        let probabilities = doubles(&pass.logits.f_softmax(-1, Kind::Double)?)?;
        if !logits.iter().all(|logit| logit.is_finite()) {
            bail!("the scores are not finite: the weights are damaged");
        }
        let names = self.classes();
        let name = |class: usize| {
            names.get(class).cloned().context("the model has more scores than class names")
        };
        let predicted = *descending(&logits).first().context("the model has no classes")?;
        let class = question.class.unwrap_or(predicted);
        let ordinary = read.pieces.iter().map(Option::is_some).collect();
        let subject = Subject::new(&self.eager, reading, ordinary, &self.absent, class)?;
        let groups: Vec<Vec<usize>> = read.words.iter().map(|word| word.tokens.clone()).collect();
        let layers =
            if question.layers { Some(self.layers(&read, &pass, &subject)?) } else { None };
        let random = if groups.is_empty() {
            None
        } else {
            Some(random_faithfulness(&subject, &groups, SEED)?)
        };
        let scores = names.iter().zip(&logits).zip(&probabilities);
        Ok(TextExplanation {
            text: text.text.clone(),
            text_pair: text.text_pair.clone(),
            label: label.map(name).transpose()?,
            predicted: name(predicted)?,
            explained: name(class)?,
            classes: scores
                .map(|((name, logit), probability)| ClassScore {
                    name: name.clone(),
                    logit: *logit,
                    probability: *probability,
                })
                .collect(),
            tokens: self.tokens(&read),
            importance: self.importance(&subject, &read.words, &groups)?,
            words: read.words,
            random,
            layers,
        })
    }

    /// Integrated gradients of the predicted class alone: much less work than [`Explainer::explain`].
    pub fn attribute(&self, text: &Text) -> anyhow::Result<Attribution> {
        let read = self.read(text)?;
        let (reading, pass) = self.pass(&read)?;
        let probabilities = doubles(&pass.logits.f_softmax(-1, Kind::Double)?)?;
        let class = *descending(&probabilities).first().context("the model has no classes")?;
        let predicted = self.classes().get(class);
        let predicted = predicted.context("the model has more scores than class names")?;
        let ordinary = read.pieces.iter().map(Option::is_some).collect();
        let subject = Subject::new(&self.eager, reading, ordinary, &self.absent, class)?;
        let (tokens, whole) = integrated_gradients(&subject, self.settings.steps)?;
        let weights = merged(&tokens, &read.words);
        if !weights.iter().all(|weight| weight.is_finite()) {
            bail!("the scores are not finite: the weights are damaged");
        }
        let weighed = read.words.iter().zip(weights).map(|(word, weight)| WordWeight {
            in_pair: word.in_pair,
            start: word.start,
            end: word.end,
            weight,
        });
        Ok(Attribution {
            predicted: predicted.clone(),
            probability: probabilities.get(class).copied().unwrap_or_default(),
            words: weighed.collect(),
            completeness_error: Some(whole.relative()).filter(|error| error.is_finite()),
        })
    }

    fn importance(
        &self,
        subject: &Subject<'_>,
        words: &[Word],
        groups: &[Vec<usize>],
    ) -> Result<Vec<Importance>, ModelError> {
        let measure = |method: Method| {
            let (tokens, words, completeness) = match method {
                Method::IntegratedGradients => {
                    let (tokens, whole) = integrated_gradients(subject, self.settings.steps)?;
                    let words = merged(&tokens, words);
                    (tokens, words, Some(whole))
                }
                Method::GradientTimesInput => {
                    let mut tokens = gradient_times_input(subject)?;
                    // Special tokens have embeddings too, but say nothing about the text.
                    for (value, ordinary) in tokens.iter_mut().zip(subject.ordinary()) {
                        *value = if *ordinary { *value } else { 0.0 };
                    }
                    let words = merged(&tokens, words);
                    (tokens, words, None)
                }
                Method::Occlusion => {
                    let alone = single_tokens(subject);
                    let mut tokens = vec![0.0; subject.length()];
                    for (group, value) in alone.iter().zip(occlusion(subject, &alone)?) {
                        if let Some(token) = group.first().and_then(|at| tokens.get_mut(*at)) {
                            *token = value;
                        }
                    }
                    (tokens, occlusion(subject, groups)?, None)
                }
            };
            let faithfulness = if groups.is_empty() {
                None
            } else {
                Some(faithfulness(subject, groups, &descending(&words))?)
            };
            Ok(Importance { method, tokens, words, completeness, faithfulness })
        };
        Method::ALL.into_iter().map(measure).collect()
    }

    fn layers(
        &self,
        read: &Read,
        pass: &Pass,
        subject: &Subject<'_>,
    ) -> Result<LayerRecord, ModelError> {
        Ok(LayerRecord {
            conductance: layer_conductance(subject, self.settings.steps)?,
            rollout: rollout(&pass.attentions)?,
            heads: self.heads(read, pass)?,
            attentions: pass.attentions.iter().map(nested).collect::<Result<_, _>>()?,
        })
    }

    fn tokens(&self, read: &Read) -> Vec<TokenRecord> {
        let vocabulary = self.predictor.tokenizer().backend();
        let tokens = read.sequence.ids.iter().zip(&read.pieces);
        let token = |(id, piece): (&u32, &Option<Piece>)| TokenRecord {
            id: *id,
            token: vocabulary.id_to_token(*id).unwrap_or_else(|| format!("#{id}")),
            ordinary: piece.is_some(),
        };
        tokens.map(token).collect()
    }
}

/// `[1, H, L, L]` as lists.
fn nested(attention: &Tensor) -> Result<Vec<Vec<Vec<f32>>>, ModelError> {
    let (_, heads, length, _) = attention.size4()?;
    let flat = attention.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let flat = Vec::<f32>::try_from(&flat.f_view([-1])?)?;
    let length = usize::try_from(length).unwrap_or(0).max(1);
    let rows: Vec<Vec<f32>> = flat.chunks(length).map(<[f32]>::to_vec).collect();
    let found: Vec<Vec<Vec<f32>>> = rows.chunks(length).map(<[Vec<f32>]>::to_vec).collect();
    debug_assert_eq!(
        found.len(),
        usize::try_from(heads).unwrap_or(0),
        "as many as there are heads"
    );
    Ok(found)
}
