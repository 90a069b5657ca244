//! Population-based training: its settings, and which hyperparameters a trial can change on its way.

use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::budget::Budget;
use super::pruner::PrunerSettings;
use super::reader::{Field, Section};
use super::searcher::SearcherSettings;
use super::section::{optional, optional_or, read_budget};
use super::settings::HyperparameterSpec;
use super::space::{Domain, SearchSpace};
use super::training::{TrainingSettings, number_within};
use super::validate::Rules;
use super::{Manifest, Precision, SamplerSettings};

/// Population-based training (Jaderberg et al. 2017, "Population Based Training of Neural Networks").
/// The population is all trials; each is compared at rungs of equal distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PopulationSettings {
    /// From one comparison to the next.
    pub every: Budget,
    /// The first comparison.
    pub min_budget: Budget,
    /// So large a share at the bottom goes on from checkpoints of as many at the top.
    pub quantile: f64,
    /// Probability that a hyperparameter is drawn anew instead of changed a little.
    pub resample_probability: f64,
    /// A hyperparameter that is changed a little is multiplied by one of these.
    pub factors: Vec<f64>,
}

/// Hyperparameters that mean the same at every step, so that a trial can go on with another value. The
/// others are laid out over the whole budget (batch size, warmup), are in the data (length), or in
/// what the optimizer remembers (decay of its moments).
const CHANGEABLE: [&str; 8] = [
    "learning_rate",
    "micro_batch_size",
    "dropout",
    "weight_decay",
    "layer_decay",
    "label_smoothing",
    "max_grad_norm",
    "adam_epsilon",
];

impl HyperparameterSpec {
    /// Whether a trial can go on with another value of the hyperparameter called `name`.
    pub fn can_change(name: &str) -> bool {
        CHANGEABLE.contains(&name)
    }
}

pub(super) fn read_population(section: &Section<'_>) -> Option<PrunerSettings> {
    let every = section.require("every", "{steps: 100}").and_then(|field| read_budget(&field));
    let min_budget = optional(section.get("min_budget"), |field| read_budget(&field).map(Some));
    let quantile =
        optional_or(section.get("quantile"), 0.25, |field| number_within(&field, 0.01, 0.5));
    let resample_probability = optional_or(section.get("resample_probability"), 0.25, |field| {
        number_within(&field, 0.0, 1.0)
    });
    let factors = optional_or(section.get("factors"), vec![0.8, 1.2], |f| read_factors(&f));
    let every = every?;
    Some(PrunerSettings::Population(PopulationSettings {
        every,
        min_budget: min_budget?.unwrap_or(every),
        quantile: quantile?,
        resample_probability: resample_probability?,
        factors: factors?,
    }))
}

fn read_factors(field: &Field<'_>) -> Option<Vec<f64>> {
    let items = field.items()?;
    if items.is_empty() {
        field.refuse("the list is empty");
        return None;
    }
    let factors: Vec<Option<f64>> =
        items.iter().map(|item| number_within(item, 0.01, 100.0)).collect();
    factors.into_iter().collect()
}

impl Rules<'_> {
    /// What does not go with trials that change their hyperparameters on the way.
    pub(super) fn check_population(&self, manifest: &Manifest) {
        let Some(searcher) = &manifest.searcher else { return };
        if !matches!(searcher.pruner, PrunerSettings::Population(_)) {
            return;
        }
        let changeable = || CHANGEABLE.join(", ");
        let searched = searched_names(&manifest.hyperparameters, searcher);
        if !searched.iter().any(|name| HyperparameterSpec::can_change(name)) {
            let message = "no hyperparameter that is searched can change while a trial trains";
            let mend = format!("search one of {}", changeable());
            self.refuse(&["searcher", "pruner"], message, &mend);
        }
        if matches!(searcher.sampler, SamplerSettings::List(_)) {
            let message = "a list has no ranges in which hyperparameters could change";
            let mend = "write `sampler: random` or `sobol` and ranges under `hyperparameters`";
            self.refuse(&["searcher", "sampler"], message, mend);
        } else if searcher.sampler.learns() {
            let name = searcher.sampler.name();
            let message =
                format!("`{name}` learns from trials that keep their hyperparameters to the end");
            self.refuse(&["searcher", "sampler"], message, "write `random` or `sobol`");
        }
        if searcher.max_trials == 1 {
            let message = "a population of one has nobody to learn from";
            self.refuse(&["searcher", "max_trials"], message, "write 4 or more");
        }
        if manifest.training.early_stopping.is_some() {
            let message = "a member of a population goes on from a better one instead of stopping";
            self.refuse(&["training", "early_stopping"], message, "remove it");
        }
        self.check_kept(&manifest.hyperparameters);
        let is_half = |training: TrainingSettings| training.precision == Precision::Float16;
        if manifest.trainings().into_iter().any(is_half) && searched.contains(&"layer_decay") {
            let message = "with float16 a trial cannot go on with another value";
            let path = &["hyperparameters", "layer_decay"];
            self.refuse(path, message, "write one value, or `precision: bfloat16`");
        }
    }

    /// What cannot change must not come and go with what does.
    fn check_kept(&self, space: &SearchSpace) {
        for (name, domain) in space {
            let Some((other, _)) = domain.condition() else { continue };
            let changes = HyperparameterSpec::can_change(other)
                && space.get(other).is_some_and(Domain::is_searched);
            if changes && !HyperparameterSpec::can_change(name) {
                let message = format!(
                    "`{other}` changes while a trial of a population trains, and `{name}` cannot"
                );
                let mend = "remove the condition, or name a hyperparameter that stays";
                self.refuse(&["hyperparameters", name, "when"], message, mend);
            }
        }
    }
}

fn searched_names<'a>(space: &'a SearchSpace, searcher: &'a SearcherSettings) -> Vec<&'a str> {
    let searched = space.iter().filter(|(_, domain)| domain.is_searched());
    let listed = match &searcher.sampler {
        SamplerSettings::List(points) => points.first(),
        _ => None,
    };
    let listed = listed.into_iter().flat_map(Assignment::keys);
    searched.map(|(name, _)| name.as_str()).chain(listed.map(String::as_str)).collect()
}
