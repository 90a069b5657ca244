//! An encoder with the heads it was pretrained with: masked tokens for all families
//! (`BertForMaskedLM`, `DistilBertForMaskedLM`, `RobertaForMaskedLM`), and BERT's next sentence
//! (`BertForNextSentencePrediction`; both together are `BertForPreTraining`).
//!
//! Shapes: `B` sequences, `T` tokens of all of them, `D` hidden, `V` vocabulary, `M` masked
//! positions of a batch.

use muster_common::manifest::TrainingObjective;
use muster_common::model::{CONFIG_FILE, DirectoryError, Dropout, ModelConfig};
use muster_common::seed::Seed;
use tch::{Device, Kind, Reduction, Tensor};

use super::ModelError;
use super::batch::{TokenBatch, check, check_vocabulary, extent};
use super::encoder::Encoder;
use super::family::{Described, NEXT_SENTENCE};
use super::freeze::{Adaptation, Adapted, Frozen, NewModule};
use super::layer::{LayerNorm, Linear, Wanted};
use super::load::Pretrained;
use super::masking::MaskedTokens;
use super::packing::rounded;
use super::parameters::{NamedTensors, ParameterSet, Scope};

/// What a language model learns to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanguageObjective {
    /// The tokens that were masked.
    MaskedTokens,
    /// Whether the second text of a pair follows the first; BERT only.
    NextSentence,
    /// Both at once; BERT only.
    Both,
}

/// Target value of rows beyond the masked positions; no token has it.
const IGNORED: i64 = -100;

impl LanguageObjective {
    /// What a manifest means; `None`: it is no language model that learns that.
    pub fn of(objective: TrainingObjective) -> Option<Self> {
        match objective {
            TrainingObjective::Classification => None,
            TrainingObjective::MaskedLm => Some(Self::MaskedTokens),
            TrainingObjective::NextSentence => Some(Self::NextSentence),
            TrainingObjective::Pretraining => Some(Self::Both),
        }
    }

    /// Whether tokens are hidden and guessed.
    pub fn masks(self) -> bool {
        self != Self::NextSentence
    }

    /// Whether pairs of texts are told apart.
    pub fn pairs(self) -> bool {
        self != Self::MaskedTokens
    }

    /// The part of transformers' class name that says so.
    fn task(self) -> &'static str {
        match self {
            Self::MaskedTokens => "MaskedLM",
            Self::NextSentence => "NextSentencePrediction",
            Self::Both => "PreTraining",
        }
    }
}

/// One example of a language model.
#[derive(Debug, Clone, Copy)]
pub struct LanguageExample<'a> {
    /// Tokens with some of them masked; with none where only the next sentence is to be guessed.
    pub masked: &'a MaskedTokens,
    /// So many of the first tokens are in the first segment, the rest in the second.
    pub first_segment: usize,
    /// Whether the second text follows the first; read where the next sentence is to be guessed.
    pub follows: bool,
}

/// Examples as tensors.
#[derive(Debug)]
pub struct LanguageBatch {
    tokens: TokenBatch,
    /// Tokens to guess, `M`.
    num_masked: usize,
    /// Rows of these tokens, `[R]`, 64-bit; as `M` hardly ever is the same, rows are rounded up like
    /// those of all tokens.
    positions: Tensor,
    /// The tokens that stood there, `[R]`, 64-bit; [`IGNORED`] in rows that were added.
    originals: Tensor,
    /// 0 where the second text follows the first, else 1; `[B]`, 64-bit.
    strangers: Tensor,
}

/// A sum of losses, and over how many it goes: parts of a batch are added before they are divided.
#[derive(Debug)]
pub struct LossSum {
    /// Cross-entropy in nats, 0-d.
    pub sum: Tensor,
    /// Guesses it sums over.
    pub count: u64,
}

/// Scores of a batch; absent is what the model does not learn.
#[derive(Debug)]
pub struct LanguageLogits {
    /// Of every token of the vocabulary, `[R, V]`; the first `M` rows count.
    masked: Option<Tensor>,
    /// Of whether the second text follows (first column) or not, `[B, 2]`.
    pub next_sentence: Option<Tensor>,
    num_masked: i64,
}

impl LanguageLogits {
    /// Scores of every token of the vocabulary at the masked positions, `[M, V]`.
    pub fn masked(&self) -> Result<Option<Tensor>, ModelError> {
        let narrow = |logits: &Tensor| logits.f_narrow(0, 0, self.num_masked);
        Ok(self.masked.as_ref().map(narrow).transpose()?)
    }

    /// The losses, with gradients: sums over the guesses, in 32-bit numbers whatever the scores are.
    pub fn losses(&self, batch: &LanguageBatch) -> Result<LanguageLoss, ModelError> {
        let sum = |logits: &Option<Tensor>, truth: &Tensor, count: usize| {
            logits.as_ref().map(|logits| LossSum::new(logits, truth, count)).transpose()
        };
        Ok(LanguageLoss {
            masked: sum(&self.masked, &batch.originals, batch.num_masked)?,
            next_sentence: sum(&self.next_sentence, &batch.strangers, batch.strangers.numel())?,
        })
    }

    /// How many masked tokens have the highest score, 0-d, 64-bit; not waited for.
    pub fn num_right(&self, batch: &LanguageBatch) -> Result<Option<Tensor>, ModelError> {
        let Some(logits) = &self.masked else { return Ok(None) };
        let right = logits.f_argmax(-1, false)?.f_eq_tensor(&batch.originals)?;
        Ok(Some(right.f_sum(Kind::Int64)?))
    }
}

/// The losses of a batch; absent is what the model does not learn.
#[derive(Debug)]
pub struct LanguageLoss {
    /// Over masked positions.
    pub masked: Option<LossSum>,
    /// Over pairs of texts.
    pub next_sentence: Option<LossSum>,
}

impl LanguageLoss {
    /// The sum of the mean losses, 0-d, as transformers gives it.
    pub fn mean(&self) -> Result<Tensor, ModelError> {
        let parts = [&self.masked, &self.next_sentence].into_iter().flatten();
        let means = parts.map(|part| part.sum.f_div_scalar(part.count.max(1).cast_signed()));
        let mut total = Tensor::from(0.0f32);
        for mean in means {
            total = mean?.f_add(&total.f_to_device(self.device())?)?;
        }
        Ok(total)
    }

    fn device(&self) -> Device {
        let mut parts = [&self.masked, &self.next_sentence].into_iter().flatten();
        parts.next().map_or(Device::Cpu, |part| part.sum.device())
    }
}

/// Encoder and pretraining heads with their parameters.
#[derive(Debug)]
pub struct LanguageModel {
    config: ModelConfig,
    objective: LanguageObjective,
    frozen: Frozen,
    device: Device,
    parameters: ParameterSet,
    encoder: Encoder,
    masked: Option<MaskedHead>,
    next_sentence: Option<NextSentenceHead>,
}

/// Dense, GELU, LayerNorm, decoder. The decoder's weight is that of the word embeddings.
#[derive(Debug)]
struct MaskedHead {
    dense: Linear,
    norm: LayerNorm,
    decoder: Linear,
}

/// Pooler and output, read from the first token.
#[derive(Debug)]
struct NextSentenceHead {
    pooler: Linear,
    output: Linear,
}

impl LanguageModel {
    /// A model to train: frozen parameters share their memory with `pretrained`, the others are
    /// copies. Heads that the pretrained files hold are gone on with, others are drawn from `seed`.
    pub fn to_train(
        pretrained: &Pretrained,
        objective: LanguageObjective,
        adaptation: impl Into<Adaptation>,
        seed: Seed,
        device: Device,
    ) -> Result<Self, ModelError> {
        let config = pretrained.config.clone();
        let refused = |reason: String| {
            let path = pretrained.directory.join(CONFIG_FILE).display().to_string();
            ModelError::from(DirectoryError::Config { path, reason })
        };
        if !config.tie_word_embeddings {
            let reason = "tie_word_embeddings is false; here a decoder shares the word embeddings";
            return Err(refused(reason.to_owned()));
        }
        let mut head = Vec::new();
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let description = config.family.description();
        if objective.masks() {
            let names = &description.masked;
            head.push(NewModule::Linear { name: names.dense, input: hidden, output: hidden });
            head.push(NewModule::LayerNorm { name: names.norm, size: hidden });
            head.push(NewModule::Bias { name: names.bias, size: vocabulary });
        }
        if objective.pairs() {
            let Some(pooler) = description.pooler else {
                let reason = format!(
                    "a {} never learns the next sentence; take a BERT, or write `objective: masked_lm`",
                    config.family.model_type()
                );
                return Err(refused(reason));
            };
            head.push(NewModule::Linear { name: pooler, input: hidden, output: hidden });
            head.push(NewModule::Linear { name: NEXT_SENTENCE, input: hidden, output: 2 });
        }
        let adapted =
            adaptation.into().apply(pretrained, &pretrained.heads, &head, seed, device)?;
        Self::assemble(config, objective, adapted, device)
    }

    fn assemble(
        config: ModelConfig,
        objective: LanguageObjective,
        adapted: Adapted,
        device: Device,
    ) -> Result<Self, ModelError> {
        let Adapted { parameters, frozen } = adapted;
        let encoder = Encoder::load(&config, parameters.all(), frozen)?;
        let root = Scope::root(parameters.all());
        let hidden = config.hidden_size;
        let description = config.family.description();
        let names = &description.masked;
        let masked = if objective.masks() {
            let word = encoder.word_embeddings().shallow_clone();
            Some(MaskedHead {
                dense: Linear::load(&root.child(names.dense), hidden, hidden)?,
                norm: LayerNorm::load(&root.child(names.norm), hidden, config.layer_norm_eps)?,
                decoder: Linear::new(word, root.tensor(names.bias, &[config.vocab_size])?),
            })
        } else {
            None
        };
        let next_sentence = match description.pooler.filter(|_| objective.pairs()) {
            None => None,
            Some(pooler) => Some(NextSentenceHead {
                pooler: Linear::load(&root.child(pooler), hidden, hidden)?,
                output: Linear::load(&root.child(NEXT_SENTENCE), hidden, 2)?,
            }),
        };
        Ok(Self { config, objective, frozen, device, parameters, encoder, masked, next_sentence })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its class in transformers, such as `BertForMaskedLM`.
    pub fn class_name(&self) -> String {
        self.config.family.class_name(self.objective.task())
    }

    /// What it learns to guess.
    pub fn objective(&self) -> LanguageObjective {
        self.objective
    }

    /// What of it, from the bottom up, is not trained.
    pub fn frozen(&self) -> Frozen {
        self.frozen
    }

    /// Where its parameters lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Every parameter by its Hugging Face name, in the order of the names. The decoder's weight is
    /// there once, as the word embeddings.
    pub fn parameters(&self) -> &NamedTensors {
        self.parameters.all()
    }

    /// The parameters that are trained, in the order of their names.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.trained()
    }

    /// Overwrites the trained parameters; `values` must hold exactly those.
    pub fn restore(&mut self, values: &NamedTensors) -> Result<(), ModelError> {
        self.parameters.restore(values)
    }

    /// Lays examples down for this model, after checking that it can take them.
    pub fn batch(&self, examples: &[LanguageExample<'_>]) -> Result<LanguageBatch, ModelError> {
        let sequences: Vec<&[u32]> =
            examples.iter().map(|example| example.masked.tokens.as_slice()).collect();
        let first_segments: Vec<usize> =
            examples.iter().map(|example| example.first_segment).collect();
        check(&sequences, Some(&first_segments), &self.config)?;
        // What is hidden is looked up among the scores.
        let hidden = examples.iter().flat_map(|example| &example.masked.originals);
        check_vocabulary(hidden, &self.config)?;
        let skipped = self.config.skipped_token();
        let tokens = TokenBatch::new(&sequences, Some(&first_segments), skipped, self.device)?;
        let frame = &tokens.frame;
        let (mut positions, mut originals) = (Vec::new(), Vec::new());
        for (index, example) in examples.iter().enumerate() {
            let MaskedTokens { tokens, positions: places, originals: old } = example.masked;
            let outside = |place: &u32| *place as usize >= tokens.len();
            if places.len() != old.len() || places.iter().any(outside) {
                return Err(ModelError::Masked);
            }
            let start = frame.start(index);
            positions.extend(places.iter().map(|place| start + i64::from(*place)));
            originals.extend(old.iter().map(|token| i64::from(*token)));
        }
        let strangers: Vec<i64> =
            examples.iter().map(|example| i64::from(!example.follows)).collect();
        let num_masked = positions.len();
        let num_rows = usize::try_from(rounded(extent(num_masked.max(1)))).unwrap_or(num_masked);
        positions.resize(num_rows, 0);
        originals.resize(num_rows, IGNORED);
        let on_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(self.device);
        Ok(LanguageBatch {
            tokens,
            num_masked,
            positions: on_device(&positions)?,
            originals: on_device(&originals)?,
            strangers: on_device(&strangers)?,
        })
    }

    /// The scores of a batch. Only masked positions are projected onto the vocabulary.
    pub fn logits(
        &self,
        batch: &LanguageBatch,
        rates: impl Into<Dropout>,
    ) -> Result<LanguageLogits, ModelError> {
        let wanted = if self.masked.is_some() { Wanted::All } else { Wanted::First };
        let states = self.encoder.forward(&batch.tokens, wanted, rates.into())?;
        let masked = match &self.masked {
            None => None,
            Some(head) => Some(head.forward(&states.f_index_select(0, &batch.positions)?)?),
        };
        let next_sentence = match &self.next_sentence {
            None => None,
            Some(head) if wanted == Wanted::First => Some(head.forward(&states)?),
            Some(head) => Some(head.forward(&batch.tokens.frame.first_by_index(&states)?)?),
        };
        Ok(LanguageLogits { masked, next_sentence, num_masked: extent(batch.num_masked) })
    }

    /// The losses of a batch, with gradients.
    pub fn loss(
        &self,
        batch: &LanguageBatch,
        rates: impl Into<Dropout>,
    ) -> Result<LanguageLoss, ModelError> {
        self.logits(batch, rates)?.losses(batch)
    }
}

impl LossSum {
    /// `logits` is `[N, C]`, `truth` is `[N]`, of which `count` are guesses.
    fn new(logits: &Tensor, truth: &Tensor, count: usize) -> Result<Self, ModelError> {
        let (none, logits) = (None::<Tensor>, logits.f_to_kind(Kind::Float)?);
        let sum = logits.f_cross_entropy_loss(truth, none, Reduction::Sum, IGNORED, 0.0)?;
        Ok(Self { sum, count: count as u64 })
    }
}

impl MaskedHead {
    /// `states` is `[M, D]`. Returns `[M, V]`.
    fn forward(&self, states: &Tensor) -> Result<Tensor, ModelError> {
        let dense = self.dense.forward(states)?.f_gelu("none")?;
        self.decoder.forward(&self.norm.forward(&dense)?)
    }
}

impl NextSentenceHead {
    /// `first` is `[B, D]`. Returns `[B, 2]`.
    fn forward(&self, first: &Tensor) -> Result<Tensor, ModelError> {
        self.output.forward(&self.pooler.forward(first)?.f_tanh()?)
    }
}
