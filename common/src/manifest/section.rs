//! Document to manifest, one function per section. A function returns `None` only after it has
//! recorded an issue.

use super::budget::Budget;
use super::category::{Category, fixed};
use super::continuation::read_continuation;
use super::data::read_data;
use super::goal::read_goal;
use super::limits::{Limits, read_limits};
use super::pruner::{PrunerSettings, read_pruner};
use super::reader::{Field, closest};
use super::resources::read_resources;
use super::sampler::read_sampler;
use super::searcher::{SamplerSettings, SearcherSettings};
use super::settings::{HYPERPARAMETERS, HyperparameterKind, HyperparameterSpec, written};
use super::space::{Domain, ParameterValue, Scale, SearchSpace};
use super::synonym::home;
use super::training::{EvaluationSettings, TrainingSettings, read_evaluation, read_training};
use super::truncation::{Truncation, read_truncation};
use super::{
    CheckpointSettings, MANIFEST_VERSION, Manifest, ModelSettings, Resources, TrainingObjective,
};
use crate::goal::Goal;
use crate::id::ExperimentId;
use crate::seed::Seed;

/// Largest number of steps, examples or epochs accepted: far above any training, far below 2^53.
pub(super) const BUDGET_MAX: u64 = 1_000_000_000_000;
/// Most values of a range that is tried in steps.
const STEPS_MAX: f64 = 1e6;
/// Fewest and most epochs accepted. Their ratio bounds the number of rungs.
pub(super) const EPOCHS_MIN: f64 = 1e-6;
pub(super) const EPOCHS_MAX: f64 = 1e6;
/// Longest sequence accepted, in tokens; the model's own limit is checked where its config is read.
pub(super) const LENGTH_MAX: u32 = 8192;

pub(super) fn read_manifest(root: &Field<'_>) -> Option<Manifest> {
    let section = root.section()?;
    let version = section
        .require("version", &MANIFEST_VERSION.to_string())
        .and_then(|field| read_version(&field));
    let name = section.require("name", "my-sweep").and_then(|field| {
        let text = field.text()?;
        text.parse().map_err(|error| field.refuse(format!("{error}"))).ok()
    });
    let description = optional(section.get("description"), |field| {
        field.text().map(|text| Some(text.to_owned()))
    });
    let project = optional(section.get("project"), |field| {
        let text = field.text()?;
        text.parse().map_err(|error| field.refuse(format!("{error}"))).ok().map(Some)
    });
    let seed = optional_or(section.get("seed"), 1, |field| field.whole(0, u64::MAX));
    let model = section.require("model", "{pretrained: DIRECTORY}").and_then(|f| read_model(&f));
    let objective = optional_or(section.get("objective"), TrainingObjective::default(), |field| {
        field.choice(&TrainingObjective::NAMES)
    });
    let data = section
        .require("data", "{train: ..., validation: ..., text: ..., label: ...}")
        .and_then(|field| read_data(&field, objective?));
    let hyperparameters =
        optional_or(section.get("hyperparameters"), SearchSpace::new(), |field| read_space(&field));
    let searcher = optional(section.get("searcher"), |field| read_searcher(&field).map(Some));
    let budget = section.require("budget", "{epochs: 3}").and_then(|field| read_budget(&field));
    let continue_from =
        optional(section.get("continue_from"), |field| read_continuation(&field).map(Some));
    let checkpoint = optional_or(section.get("checkpoint"), default_checkpoint(), |field| {
        read_checkpoint(&field)
    });
    let resources =
        optional_or(section.get("resources"), Resources::default(), |field| read_resources(&field));
    let limits = optional_or(section.get("limits"), Limits::default(), |field| read_limits(&field));
    let max_restarts =
        optional_or(section.get("max_restarts"), 3, |field| field.whole_u32(0, 1000));
    let training = optional_or(section.get("training"), TrainingSettings::default(), |field| {
        read_training(&field)
    });
    let evaluation = optional_or(section.get("evaluation"), EvaluationSettings::default(), |f| {
        read_evaluation(&f)
    });
    section.finish();
    version?;
    Some(Manifest {
        name: name?,
        description: description?,
        project: project?,
        seed: Seed(seed?),
        model: model?,
        objective: objective?,
        data: data?,
        hyperparameters: hyperparameters?,
        searcher: searcher?,
        budget: budget?,
        continue_from: continue_from?,
        checkpoint: checkpoint?,
        resources: resources?,
        limits: limits?,
        max_restarts: max_restarts?,
        training: training?,
        evaluation: evaluation?,
    })
}

/// Absent gives `None` inside `Some`; a mistake gives `None`.
#[expect(clippy::option_option, reason = "the outer one is the convention of this file")]
pub(super) fn optional<'a, T>(
    field: Option<Field<'a>>,
    read: impl FnOnce(Field<'a>) -> Option<Option<T>>,
) -> Option<Option<T>> {
    field.map_or(Some(None), read)
}

pub(super) fn optional_or<'a, T>(
    field: Option<Field<'a>>,
    default: T,
    read: impl FnOnce(Field<'a>) -> Option<T>,
) -> Option<T> {
    field.map_or(Some(default), read)
}

fn read_version(field: &Field<'_>) -> Option<()> {
    let found = field.whole(0, u64::from(u32::MAX))?;
    if found == u64::from(MANIFEST_VERSION) {
        return Some(());
    }
    field.refuse_mend(
        format!("this build reads version {MANIFEST_VERSION}, not {found}"),
        format!(
            "write `version: {MANIFEST_VERSION}` after checking configs/README.md, \
             or use the muster that made the file"
        ),
    );
    None
}

fn read_model(field: &Field<'_>) -> Option<ModelSettings> {
    let section = field.section()?;
    let pretrained = section.require("pretrained", "DIRECTORY").and_then(|field| field.text());
    let max_length =
        optional_or(section.get("max_length"), 128, |field| field.whole_u32(8, LENGTH_MAX));
    let truncation = optional_or(section.get("truncation"), Truncation::Head, |field| {
        read_truncation(&field, LENGTH_MAX)
    });
    let freeze = optional_or(section.get("freeze"), (false, 0, Vec::new()), |field| {
        let section = field.section()?;
        let embeddings = optional_or(section.get("embeddings"), false, |field| field.truth());
        let layers = optional_or(section.get("layers"), 0, |field| field.whole_u32(0, 1000));
        let patterns =
            optional_or(section.get("patterns"), Vec::new(), |field| read_patterns(&field));
        section.finish();
        Some((embeddings?, layers?, patterns?))
    });
    let reinitialize_layers =
        optional_or(section.get("reinitialize_layers"), 0, |field| field.whole_u32(0, 1000));
    section.finish();
    let (freeze_embeddings, freeze_layers, freeze_patterns) = freeze?;
    Some(ModelSettings {
        pretrained: pretrained?.to_owned(),
        max_length: max_length?,
        truncation: truncation?,
        freeze_embeddings,
        freeze_layers,
        freeze_patterns,
        reinitialize_layers: reinitialize_layers?,
    })
}

/// Patterns of parameter names. Whether they fit any is seen when the model is there.
fn read_patterns(field: &Field<'_>) -> Option<Vec<String>> {
    let patterns = read_names(field)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '*' | '?');
    let strange = |pattern: &String| pattern.is_empty() || !pattern.chars().all(legal);
    if let Some(pattern) = patterns.iter().find(|pattern| strange(pattern)) {
        let mend = "write names such as `*.layer.3.*`: letters, digits, `.`, `_`, `*` and `?`";
        field.refuse_mend(format!("`{pattern}` fits no name of a parameter"), mend);
        return None;
    }
    Some(patterns)
}

pub(super) fn read_names(field: &Field<'_>) -> Option<Vec<String>> {
    let items = field.items()?;
    if items.is_empty() {
        field.refuse("the list is empty");
        return None;
    }
    let read: Vec<Option<&str>> = items.iter().map(Field::text).collect();
    let mut legal = true;
    for (index, (item, name)) in items.iter().zip(&read).enumerate() {
        if name.is_some() && read.iter().take(index).any(|other| other == name) {
            item.refuse(format!("{} stands twice", item.describe()));
            legal = false;
        }
    }
    let names: Option<Vec<String>> =
        read.into_iter().map(|name| name.map(ToOwned::to_owned)).collect();
    names.filter(|_| legal)
}

pub(super) fn read_budget(field: &Field<'_>) -> Option<Budget> {
    if !field.is_mapping() {
        let message = format!("expected a mapping, found {}", field.describe());
        field.refuse_mend(message, "write for example {epochs: 3}");
        return None;
    }
    let section = field.section()?;
    let steps = section.get("steps");
    let examples = section.get("examples");
    let epochs = section.get("epochs");
    section.finish();
    match (steps, examples, epochs) {
        (Some(field), None, None) => field.whole(1, BUDGET_MAX).map(Budget::Steps),
        (None, Some(field), None) => field.whole(1, BUDGET_MAX).map(Budget::Examples),
        (None, None, Some(field)) => field.number().and_then(|epochs| {
            if (EPOCHS_MIN..=EPOCHS_MAX).contains(&epochs) {
                return Some(Budget::Epochs(epochs));
            }
            let (epochs, min, max) = (written(epochs), written(EPOCHS_MIN), written(EPOCHS_MAX));
            field.refuse(format!("{epochs} lies outside {min} to {max}"));
            None
        }),
        _ => {
            let message = "expected exactly one of `steps`, `examples` and `epochs`";
            field.refuse_mend(message, "write for example {epochs: 3}");
            None
        }
    }
}

fn read_searcher(field: &Field<'_>) -> Option<SearcherSettings> {
    let section = field.section()?;
    let goal = read_goal(&section);
    let sampler =
        optional_or(section.get("sampler"), SamplerSettings::Random, |field| read_sampler(&field));
    let pruner =
        optional_or(section.get("pruner"), PrunerSettings::None, |field| read_pruner(&field));
    // A grid and a list know their size, and so does a round of Hyperband; 0 stands for "all of it"
    // until validation has counted.
    let needs_count = sampler.as_ref().is_some_and(|sampler| !sampler.knows_size())
        && !matches!(pruner, Some(PrunerSettings::Hyperband(_)));
    let max_trials = match section.get("max_trials") {
        None if needs_count => section.require("max_trials", "16").map(|_| 0),
        None => Some(0),
        Some(field) => field.whole_u32(1, 1_000_000),
    };
    let max_concurrent =
        optional(section.get("max_concurrent"), |field| field.whole_u32(1, 1_000_000).map(Some));
    let target = optional(section.get("target"), |field| field.number().map(Some));
    let warm_start =
        optional_or(section.get("warm_start"), Vec::new(), |field| read_experiments(&field));
    section.finish();
    let Goal { objective, others, constraints, .. } = goal?;
    Some(SearcherSettings {
        objective,
        others,
        constraints,
        max_trials: max_trials?,
        max_concurrent: max_concurrent?,
        sampler: sampler?,
        pruner: pruner?,
        target: target?,
        warm_start: warm_start?,
    })
}

fn read_experiments(field: &Field<'_>) -> Option<Vec<ExperimentId>> {
    read_names(field)?;
    let read = |item: &Field<'_>| {
        let text = item.text()?;
        text.parse().map_err(|error| item.refuse(format!("{error}"))).ok()
    };
    let ids: Vec<Option<ExperimentId>> = field.items()?.iter().map(read).collect();
    ids.into_iter().collect()
}

fn default_checkpoint() -> CheckpointSettings {
    CheckpointSettings::DEFAULT
}

fn read_checkpoint(field: &Field<'_>) -> Option<CheckpointSettings> {
    let section = field.section()?;
    let every_steps =
        optional(section.get("every_steps"), |field| field.whole(1, BUDGET_MAX).map(Some));
    let keep_last = optional_or(section.get("keep_last"), 2, |field| field.whole_u32(1, 1_000_000));
    let keep_best = optional_or(section.get("keep_best"), 1, |field| field.whole_u32(1, 1_000_000));
    let keep_every_steps =
        optional(section.get("keep_every_steps"), |field| field.whole(1, BUDGET_MAX).map(Some));
    let shard_mib = CheckpointSettings::DEFAULT.shard_mib;
    let shard_mib =
        optional_or(section.get("shard_mib"), shard_mib, |field| field.whole_u32(0, 1_000_000));
    section.finish();
    Some(CheckpointSettings {
        every_steps: every_steps?,
        keep_last: keep_last?,
        keep_best: keep_best?,
        keep_every_steps: keep_every_steps?,
        shard_mib: shard_mib?,
    })
}

pub(super) fn read_space(field: &Field<'_>) -> Option<SearchSpace> {
    let section = field.section()?;
    let mut space = SearchSpace::new();
    let mut legal = true;
    for (name, field) in section.fields() {
        let Some(spec) = HyperparameterSpec::find(name) else {
            refuse_unknown(name, &field);
            legal = false;
            continue;
        };
        match read_domain(&field, spec) {
            Some(domain) => {
                space.insert(name.to_owned(), domain);
            }
            None => legal = false,
        }
    }
    legal.then_some(space)
}

fn refuse_unknown(name: &str, field: &Field<'_>) {
    if let Some((message, mend)) = fixed(name) {
        return field.refuse_mend(message, mend);
    }
    let names = || HYPERPARAMETERS.iter().map(|spec| spec.name);
    let mend = match (closest(name, names()), home(name)) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, Some((section, name))) => format!("write it as `{section}.{name}`"),
        (None, None) => format!("known: {}", names().collect::<Vec<_>>().join(", ")),
    };
    field.refuse_mend("unknown hyperparameter", mend);
}

fn read_value(field: &Field<'_>, spec: &HyperparameterSpec) -> Option<ParameterValue> {
    if field.is_list() {
        field.refuse_mend("expected a value, found a list", "write {values: [...]}");
        return None;
    }
    if spec.kind == HyperparameterKind::Category {
        let words: Vec<(&str, Category)> =
            spec.categories.iter().map(|category| (category.name(), *category)).collect();
        return field.choice(&words).map(ParameterValue::Category);
    }
    let value = match (spec.kind, field.as_whole()) {
        (HyperparameterKind::Int, Some(whole)) => ParameterValue::Int(whole),
        (HyperparameterKind::Int, None) => {
            return field.expected(&format!("a whole number, {}", spec.range()));
        }
        (HyperparameterKind::Float | HyperparameterKind::Category, _) => {
            ParameterValue::Float(field.number()?)
        }
    };
    if !(spec.min..=spec.max).contains(&value.as_f64()) {
        field.refuse(format!("{} lies outside {}", written(value.as_f64()), spec.range()));
        return None;
    }
    Some(value)
}

fn read_values(field: &Field<'_>, spec: &HyperparameterSpec) -> Option<Domain> {
    let items = field.items()?;
    let read: Vec<Option<ParameterValue>> =
        items.iter().map(|item| read_value(item, spec)).collect();
    let mut legal = true;
    for (index, (item, value)) in items.iter().zip(&read).enumerate() {
        if value.is_some() && read.iter().take(index).any(|other| other == value) {
            item.refuse_mend(format!("{} stands twice", item.describe()), "remove one");
            legal = false;
        }
    }
    let values = read.into_iter().collect::<Option<Vec<_>>>().filter(|_| legal)?;
    match values.as_slice() {
        [] => {
            field.refuse("the list is empty");
            None
        }
        [value] => Some(Domain::Constant(*value)),
        _ => Some(Domain::Values(values)),
    }
}

fn read_domain(field: &Field<'_>, spec: &HyperparameterSpec) -> Option<Domain> {
    if !field.is_mapping() {
        return read_value(field, spec).map(Domain::Constant);
    }
    let section = field.section()?;
    let values = section.get("values");
    let (min, max) = (section.get("min"), section.get("max"));
    let step = section.get("step");
    let when = section.get("when");
    let written_scale = section.get("scale");
    let scale = optional_or(written_scale.clone(), Scale::Linear, |field| {
        field.choice(&[("linear", Scale::Linear), ("log", Scale::Log)])
    });
    section.finish();
    let domain = match (values, min, max) {
        (Some(values), None, None) => {
            for (field, what) in [(written_scale, "scale"), (step, "step")] {
                if let Some(field) = field {
                    field.refuse_mend(format!("listed values have no {what}"), "remove it");
                }
            }
            read_values(&values, spec)
        }
        (None, Some(_), Some(_)) if spec.kind == HyperparameterKind::Category => {
            let mend = format!("write {{values: [{}]}}", spec.range());
            field.refuse_mend("words have no range", mend);
            None
        }
        (None, Some(min), Some(max)) => read_range(field, spec, (&min, &max), step, scale),
        _ => {
            let mend = "write a value, {values: [...]} or {min: ..., max: ..., scale: log}";
            field.refuse_mend("expected a value, `values`, or `min` and `max`", mend);
            None
        }
    };
    match when {
        None => domain,
        Some(when) => read_condition(&when, domain?),
    }
}

/// What lies between two numbers.
fn read_range(
    field: &Field<'_>,
    spec: &HyperparameterSpec,
    (min, max): (&Field<'_>, &Field<'_>),
    step: Option<Field<'_>>,
    scale: Option<Scale>,
) -> Option<Domain> {
    let (low, high) = (read_value(min, spec), read_value(max, spec));
    let (low, high, scale) = (low?, high?, scale?);
    if low.as_f64() >= high.as_f64() {
        let mend = if low == high { "write the one value" } else { "swap them" };
        let (low, high) = (written(low.as_f64()), written(high.as_f64()));
        field.refuse_mend(format!("min {low} is not below max {high}"), mend);
        return None;
    }
    if scale == Scale::Log && low.as_f64() <= 0.0 {
        min.refuse_mend("a log scale starts above 0", "raise min or write `scale: linear`");
        return None;
    }
    match (low, high, step) {
        (ParameterValue::Int(min), ParameterValue::Int(max), Some(step)) => {
            read_whole_step(&step, (min, max), scale)
        }
        (low, high, Some(step)) => read_step(&step, (low.as_f64(), high.as_f64()), scale),
        (ParameterValue::Int(min), ParameterValue::Int(max), None) => {
            Some(Domain::Int { min, max, scale })
        }
        (low, high, None) => Some(Domain::Float { min: low.as_f64(), max: high.as_f64(), scale }),
    }
}

/// A range of whole numbers that is tried in steps.
fn read_whole_step(field: &Field<'_>, (min, max): (i64, i64), scale: Scale) -> Option<Domain> {
    let width = max.abs_diff(min);
    let Some(step) = field.as_whole() else {
        return field.expected(&format!("a whole number, 1 to {width}"));
    };
    if step < 1 || step.unsigned_abs() > width {
        field.refuse(format!("{step} lies outside 1 to the width of the range, {width}"));
        return None;
    }
    if step == 1 {
        return Some(Domain::Int { min, max, scale });
    }
    if (width / step.unsigned_abs()) as f64 > STEPS_MAX {
        field.refuse_mend(format!("more than {STEPS_MAX} steps"), "remove it: all values then");
        return None;
    }
    Some(Domain::IntSteps { min, max, step, scale })
}

/// A range of real numbers that is tried in steps.
fn read_step(field: &Field<'_>, (min, max): (f64, f64), scale: Scale) -> Option<Domain> {
    if scale == Scale::Log {
        field.refuse_mend("equal steps are not even on a log scale", "remove `step` or `scale`");
        return None;
    }
    let step = field.number()?;
    if !(step > 0.0 && step <= max - min) {
        let (step, width) = (written(step), written(max - min));
        field.refuse(format!("{step} lies outside 0 to the width of the range, {width}"));
        return None;
    }
    if (max - min) / step > STEPS_MAX {
        field.refuse_mend(format!("more than {STEPS_MAX} steps"), "remove it: all values then");
        return None;
    }
    Some(Domain::Steps { min, max, step })
}

/// `{NAME: VALUE}` or `{NAME: [VALUE, ...]}`.
fn read_condition(field: &Field<'_>, domain: Domain) -> Option<Domain> {
    let section = field.section()?;
    let mut named: Vec<(&str, Field<'_>)> = section.fields().collect();
    let (Some((name, field_of_name)), true) = (named.pop(), named.is_empty()) else {
        let mend = "write for example {global_batch_size: [16, 32]}";
        field.refuse_mend("expected one hyperparameter with its values", mend);
        return None;
    };
    let Some(spec) = HyperparameterSpec::find(name) else {
        field_of_name.refuse("unknown hyperparameter");
        return None;
    };
    let values: Option<Vec<ParameterValue>> = if field_of_name.is_list() {
        field_of_name.items()?.iter().map(|item| read_value(item, spec)).collect()
    } else {
        read_value(&field_of_name, spec).map(|value| vec![value])
    };
    let (name, values, domain) = (name.to_owned(), values?, Box::new(domain));
    Some(Domain::When { name, values, domain })
}
