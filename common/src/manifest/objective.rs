//! What a model learns to do, and which keys of a manifest that makes use of.

use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::goal::metrics_of;
use super::reader::Field;
use super::section::optional_or;
use super::settings::lookup;
use super::space::Domain;
use super::training::number_within;
use super::validate::Rules;
use super::{ClassWeights, Manifest, SamplerSettings, TrainingObjective, Truncation};
use crate::objective::ObjectiveMetric;

/// How tokens are hidden (Devlin et al. 2019, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaskingSettings {
    /// Probability, 0 to 1, that a token (or a word) is to be guessed.
    pub rate: f64,
    /// Share of these that become the mask token.
    pub mask_share: f64,
    /// Share of these that become a random token; the rest stay as they are.
    pub random_share: f64,
    /// Words are hidden with all their pieces or not at all.
    pub whole_words: bool,
}

impl Default for MaskingSettings {
    /// 15 % are to be guessed; of these 80 % masked, 10 % random, 10 % as they are.
    fn default() -> Self {
        Self { rate: 0.15, mask_share: 0.8, random_share: 0.1, whole_words: false }
    }
}

impl TrainingObjective {
    /// Whether tokens are hidden and guessed.
    pub fn masks(self) -> bool {
        matches!(self, Self::MaskedLm | Self::Pretraining)
    }

    /// Whether pairs of sentences are told apart.
    pub fn pairs_sentences(self) -> bool {
        matches!(self, Self::NextSentence | Self::Pretraining)
    }

    /// Whether evaluations have this metric.
    pub fn measures(self, metric: ObjectiveMetric) -> bool {
        match self {
            Self::Classification => !metric.needs_masks(),
            Self::MaskedLm => !metric.needs_classes(),
            Self::NextSentence => !metric.needs_masks() && !metric.needs_order(),
            Self::Pretraining => !metric.needs_order(),
        }
    }

    /// What the best trial is told by where nothing is searched.
    pub fn natural_metric(self) -> ObjectiveMetric {
        if self.masks() { ObjectiveMetric::Loss } else { ObjectiveMetric::Accuracy }
    }
}

pub(super) fn read_masking(field: &Field<'_>) -> Option<MaskingSettings> {
    let section = field.section()?;
    let plain = MaskingSettings::default();
    let share = |key: &'static str, default: f64, min: f64| {
        optional_or(section.get(key), default, |field| number_within(&field, min, 1.0))
    };
    // What is never hidden cannot be learned.
    let rate = share("rate", plain.rate, 0.001);
    let mask_share = share("mask_share", plain.mask_share, 0.0);
    let random_share = share("random_share", plain.random_share, 0.0);
    let whole_words = optional_or(section.get("whole_words"), false, |field| field.truth());
    section.finish();
    let (mask_share, random_share) = (mask_share?, random_share?);
    // Shares are decimal fractions: 0.9 and 0.1 may be a little more than 1.
    if mask_share + random_share > 1.0 + 1e-9 {
        let mend = "lower one: what is left over stays as it is";
        field.refuse_mend("mask_share and random_share are more than 1 together", mend);
        return None;
    }
    Some(MaskingSettings { rate: rate?, mask_share, random_share, whole_words: whole_words? })
}

impl Rules<'_> {
    /// What belongs to one objective and not to the one at hand.
    pub(super) fn check_objective(&self, manifest: &Manifest) {
        self.check_metrics(manifest);
        if manifest.training.masking.is_some() && !manifest.objective.masks() {
            self.refuse_unused(manifest.objective, &["training", "masking"]);
        }
        if manifest.objective == TrainingObjective::Classification {
            return;
        }
        self.check_classes(manifest);
        match manifest.objective {
            TrainingObjective::MaskedLm => self.check_pieces(manifest),
            _ if manifest.model.truncation != Truncation::Head => {
                let message = "pairs of sentences are always cut longest first";
                self.refuse(&["model", "truncation"], message, "remove it");
            }
            _ => {}
        }
    }

    fn refuse_unused(&self, objective: TrainingObjective, path: &[&str]) {
        let message = format!("the objective `{}` makes no use of it", objective.name());
        self.refuse(path, message, "remove it");
    }

    /// Metrics that evaluations will not have.
    fn check_metrics(&self, manifest: &Manifest) {
        let objective = manifest.objective;
        let mut named = manifest.searcher.as_ref().map(metrics_of).unwrap_or_default();
        let watched = manifest.training.early_stopping.and_then(|stopping| stopping.metric);
        let path = ["training", "early_stopping", "metric"].map(ToOwned::to_owned).to_vec();
        named.extend(watched.map(|metric| (path, metric)));
        for (path, metric) in named.into_iter().filter(|(_, metric)| !objective.measures(*metric)) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let measured = ObjectiveMetric::ALL.into_iter().filter(|m| objective.measures(*m));
            let known: Vec<&str> = measured.map(ObjectiveMetric::name).collect();
            let (metric, objective) = (metric.name(), objective.name());
            let message = format!("the objective `{objective}` is not measured by `{metric}`");
            self.refuse(&path, message, &format!("write one of {}", known.join(", ")));
        }
    }

    /// Settings of classes that somebody has named.
    fn check_classes(&self, manifest: &Manifest) {
        let objective = manifest.objective;
        if manifest.training.class_weights != ClassWeights::Equal {
            self.refuse_unused(objective, &["training", "class_weights"]);
        }
        if !manifest.categories("class_weights").is_empty() {
            self.refuse_unused(objective, &["hyperparameters", "class_weights"]);
        }
        if manifest.evaluation.ordered.is_some() {
            self.refuse_unused(objective, &["evaluation", "ordered"]);
        }
        let smoothing = lookup(&manifest.hyperparameters, &Assignment::new(), "label_smoothing");
        let searched = manifest.hyperparameters.get("label_smoothing");
        if searched.is_some_and(Domain::is_searched)
            || smoothing.is_some_and(|smoothing| smoothing > 0.0)
            || is_listed(manifest, "label_smoothing")
        {
            self.refuse_unused(objective, &["hyperparameters", "label_smoothing"]);
        }
    }

    /// Texts that are cut into pieces.
    fn check_pieces(&self, manifest: &Manifest) {
        if manifest.model.truncation != Truncation::Head {
            let message = "for `masked_lm` long texts are cut into pieces, and nothing is left out";
            self.refuse(&["model", "truncation"], message, "remove it");
        }
        let length = manifest.hyperparameters.get("max_length");
        if is_listed(manifest, "max_length") || length.is_some_and(Domain::is_searched) {
            let message = "for `masked_lm` the length decides how many examples there are";
            let path = &["hyperparameters", "max_length"];
            self.refuse(path, message, "write one value: trials must see the same data");
        }
        if manifest.data.text_pair.is_some() {
            let message = "the objective `masked_lm` reads one text per example";
            self.refuse(&["data", "text_pair"], message, "remove it");
        }
    }
}

/// Whether the points of a list name a hyperparameter.
fn is_listed(manifest: &Manifest, name: &str) -> bool {
    manifest.searcher.as_ref().is_some_and(|searcher| match &searcher.sampler {
        SamplerSettings::List(points) => points.iter().any(|point| point.contains_key(name)),
        _ => false,
    })
}
