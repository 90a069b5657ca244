//! What a searcher wants: `metric` with `mode`, or several `objectives`, and `constraints`.

use super::reader::{Field, Section};
use super::searcher::SearcherSettings;
use super::section::{optional, optional_or};
use super::settings::written;
use super::validate::Rules;
use super::{Manifest, PrunerSettings, SamplerSettings};
use crate::goal::{Constraint, Goal, OBJECTIVES_MAX};
use crate::objective::{Mode, Objective, ObjectiveMetric};

/// Where a metric stands in a manifest, key by key.
type Path = Vec<String>;

/// Reads these keys of the searcher's section.
pub(super) fn read_goal(section: &Section<'_>) -> Option<Goal> {
    let objectives = match section.get("objectives") {
        Some(field) => {
            for own in [section.get("metric"), section.get("mode")].into_iter().flatten() {
                own.refuse_mend("stands beside `objectives`", "remove it, or `objectives`");
            }
            read_objectives(&field)
        }
        None => read_objective(section).map(|objective| vec![objective]),
    };
    let constraints =
        optional_or(section.get("constraints"), Vec::new(), |field| read_constraints(&field));
    let mut objectives = objectives?.into_iter();
    let objective = objectives.next()?;
    let (others, constraints) = (objectives.collect(), constraints?);
    Some(Goal { others, constraints, ..objective.into() })
}

/// Two or more.
fn read_objectives(field: &Field<'_>) -> Option<Vec<Objective>> {
    let read = |item: &Field<'_>| {
        let section = item.section()?;
        let objective = read_objective(&section);
        section.finish();
        objective
    };
    let objectives = read_metrics(field, read, |objective| objective.metric, "remove one")?;
    match objectives.len() {
        1 => field.refuse_mend("there is one only", "write `metric` instead, or another objective"),
        num if num > OBJECTIVES_MAX => {
            let message = format!("{num} objectives are more than {OBJECTIVES_MAX}");
            field.refuse_mend(message, "leave some out, or bound them under `constraints`");
        }
        _ => return Some(objectives),
    }
    None
}

/// `metric` and `mode`.
fn read_objective(section: &Section<'_>) -> Option<Objective> {
    let metric = section.require("metric", "accuracy").and_then(|field| read_metric(&field));
    let mode = optional(section.get("mode"), |field| {
        field.choice(&[("max", Mode::Max), ("min", Mode::Min)]).map(Some)
    });
    let metric = metric?;
    Some(Objective { metric, mode: mode?.unwrap_or(metric.natural_mode()) })
}

fn read_metric(field: &Field<'_>) -> Option<ObjectiveMetric> {
    field.choice(&ObjectiveMetric::ALL.map(|metric| (metric.name(), metric)))
}

/// A list of mappings that name different metrics.
fn read_metrics<T>(
    field: &Field<'_>,
    read: impl Fn(&Field<'_>) -> Option<T>,
    metric_of: impl Fn(&T) -> ObjectiveMetric,
    mend: &str,
) -> Option<Vec<T>> {
    let items = field.items()?;
    if items.is_empty() {
        field.refuse_mend("the list is empty", "remove it");
        return None;
    }
    let found: Vec<Option<T>> = items.iter().map(read).collect();
    let metrics: Vec<Option<ObjectiveMetric>> =
        found.iter().map(|item| item.as_ref().map(&metric_of)).collect();
    let mut is_legal = true;
    for (index, item) in items.iter().enumerate() {
        let metric = metrics.get(index).copied().flatten();
        if let Some(metric) = metric.filter(|_| metrics.iter().take(index).any(|m| *m == metric)) {
            item.refuse_mend(format!("`{}` stands twice", metric.name()), mend);
            is_legal = false;
        }
    }
    found.into_iter().collect::<Option<Vec<T>>>().filter(|_| is_legal)
}

fn read_constraints(field: &Field<'_>) -> Option<Vec<Constraint>> {
    let mend = "write both bounds in one: {metric: ..., min: ..., max: ...}";
    read_metrics(field, read_constraint, |constraint| constraint.metric, mend)
}

/// `{metric: ..., min: ..., max: ...}` with one bound at least that some value keeps.
fn read_constraint(field: &Field<'_>) -> Option<Constraint> {
    let section = field.section()?;
    let metric = section.require("metric", "loss").and_then(|field| read_metric(&field));
    let bound = |key| optional(section.get(key), |field| field.number().map(Some));
    let (min, max) = (bound("min"), bound("max"));
    section.finish();
    let (metric, min, max) = (metric?, min?, max?);
    let (low, high) = metric.range();
    let never = match (min, max) {
        (Some(min), _) if min > high => Some(format!("at least {}", written(min))),
        (_, Some(max)) if max < low => Some(format!("at most {}", written(max))),
        _ => None,
    };
    match (min, max) {
        (None, None) => {
            field.refuse_mend("it bounds nothing", "add `min: ...` or `max: ...`");
            return None;
        }
        (Some(min), Some(max)) if min > max => {
            let message = format!("min {} is above max {}", written(min), written(max));
            field.refuse_mend(message, "swap them, or remove one: no value keeps both");
            return None;
        }
        _ => {}
    }
    if let Some(bounds) = never {
        let (name, range) = (metric.name(), metric.range_words());
        let message = format!("`{name}` is never {bounds}: it is {range}");
        field.refuse_mend(message, "write a bound that results can keep");
        return None;
    }
    Some(Constraint { metric, min, max })
}

/// The metrics that a searcher names, with their places.
pub(super) fn metrics_of(searcher: &SearcherSettings) -> Vec<(Path, ObjectiveMetric)> {
    let path = |keys: &[&str]| keys.iter().copied().map(ToOwned::to_owned).collect::<Path>();
    let mut named = Vec::new();
    for (index, objective) in searcher.goal().objectives().enumerate() {
        let item = format!("[{index}]");
        let place = if searcher.others.is_empty() {
            path(&["searcher", "metric"])
        } else {
            path(&["searcher", "objectives", &item, "metric"])
        };
        named.push((place, objective.metric));
    }
    for (index, constraint) in searcher.constraints.iter().enumerate() {
        let place = path(&["searcher", "constraints", &format!("[{index}]"), "metric"]);
        named.push((place, constraint.metric));
    }
    named
}

impl Rules<'_> {
    /// What knows one objective only.
    fn check_several(&self, searcher: &SearcherSettings) {
        if searcher.target.is_some() {
            let message = "one value says nothing of several objectives";
            let mend = "remove it; `max_trials` and `limits` end the search";
            self.refuse(&["searcher", "target"], message, mend);
        }
        if matches!(searcher.pruner, PrunerSettings::Patience(_)) {
            let message = "`patience` knows when one objective gets better, not several";
            let mend = "write `asha` or `median`, or one `metric`";
            self.refuse(&["searcher", "pruner"], message, mend);
        }
        if matches!(searcher.sampler, SamplerSettings::CmaEs(_)) {
            let message = "`cmaes` moves towards one point, and several objectives have many best";
            self.refuse(&["searcher", "sampler"], message, "write `tpe` or `gp`, or one `metric`");
        }
    }

    /// What does not go together with what is wanted.
    pub(super) fn check_goal(&self, manifest: &Manifest) {
        let Some(searcher) = &manifest.searcher else { return };
        if !searcher.others.is_empty() {
            return self.check_several(searcher);
        }
        let bounds = searcher.constraints.iter().enumerate();
        for (index, bound) in bounds.filter(|(_, bound)| bound.metric == searcher.objective.metric)
        {
            // A target that no result may reach.
            let Some(target) = searcher.target else { continue };
            let is_beyond = match searcher.objective.mode {
                Mode::Max => bound.max.is_some_and(|max| target > max),
                Mode::Min => bound.min.is_some_and(|min| target < min),
            };
            if is_beyond {
                let place = format!("searcher.constraints[{index}]");
                let message = format!("{} breaks {place}", written(target));
                let mend = "change one of the two: only results that keep it end the search";
                self.refuse(&["searcher", "target"], message, mend);
            }
        }
    }
}
