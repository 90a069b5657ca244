//! Searches on a table of recorded learning curves (`curves.json`): which accuracy samplers find after
//! so many trials, and how many steps a pruner spends until it has one.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use muster_common::manifest::{
    Assignment, Domain, ParameterValue, SamplerSettings, Scale, SearchSpace,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};
use muster_common::seed::Seed;
use muster_coordinator::sweep::sampler::{Observation, Proposal, propose};
use serde_json::{Value, json};

use super::search::sampler;
use super::{Flags, one_slot};

const ACCURACY: Objective = Objective { metric: ObjectiveMetric::Accuracy, mode: Mode::Max };

/// Recorded trials.
struct Table {
    every: u64,
    steps: u64,
    points: Vec<Assignment>,
    /// Accuracy after each `every` steps.
    curves: Vec<Vec<f64>>,
}

impl Table {
    fn read(flags: &Flags) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(flags.path("file")?)?;
        let listed: Value = serde_json::from_str(&text)?;
        let whole = |name: &str| listed[name].as_u64().with_context(|| format!("no {name}"));
        let (every, steps) = (whole("every_steps")?, whole("steps")?);
        let mut table = Self { every, steps, points: Vec::new(), curves: Vec::new() };
        for trial in listed["trials"].as_array().context("no trials")? {
            // One that diverged is worth nothing where it has no score.
            let mut curve: Vec<f64> = serde_json::from_value(trial["accuracy"].clone())?;
            curve.resize(usize::try_from(steps / every)?, 0.0);
            let named = trial["hyperparameters"].as_object().context("no hyperparameters")?;
            let value = |value: &Value| match value.as_i64() {
                Some(whole) => ParameterValue::Int(whole),
                None => ParameterValue::Float(value.as_f64().unwrap_or(f64::NAN)),
            };
            table.points.push(named.iter().map(|(name, v)| (name.clone(), value(v))).collect());
            table.curves.push(curve);
        }
        Ok(table)
    }

    fn last(&self, index: usize) -> f64 {
        self.curves[index].last().copied().unwrap_or(0.0)
    }

    fn best(&self) -> f64 {
        (0..self.curves.len()).map(|index| self.last(index)).fold(0.0, f64::max)
    }

    fn at(&self, index: usize, step: u64) -> f64 {
        let place = usize::try_from(step / self.every).unwrap_or(0).saturating_sub(1);
        self.curves[index].get(place).copied().unwrap_or(0.0)
    }
}

/// The space of `curves.py`.
fn space() -> SearchSpace {
    let float = |min, max, scale| Domain::Float { min, max, scale };
    let batches = Domain::Values([8, 16, 32].map(ParameterValue::Int).to_vec());
    let domains = [
        ("learning_rate", float(1e-6, 1e-2, Scale::Log)),
        ("global_batch_size", batches),
        ("dropout", float(0.0, 0.5, Scale::Linear)),
        ("weight_decay", float(1e-4, 0.3, Scale::Log)),
        ("warmup_ratio", float(0.0, 0.3, Scale::Linear)),
    ];
    domains.into_iter().map(|(name, domain)| (name.to_owned(), domain)).collect()
}

/// Squared distance of two points, each side of the space having length 1.
fn distance(space: &SearchSpace, a: &Assignment, b: &Assignment) -> f64 {
    let side = |(name, domain): (&String, &Domain)| -> f64 {
        let (Some(a), Some(b)) = (a.get(name), b.get(name)) else { return 1.0 };
        let (a, b) = (a.as_f64(), b.as_f64());
        match domain {
            Domain::Float { min, max, scale: Scale::Log } => (a / b).ln() / (max / min).ln(),
            Domain::Float { min, max, .. } => (a - b) / (max - min),
            _ => (a / b).log2() / 2.0,
        }
    };
    space.iter().map(side).map(|side| side * side).sum()
}

/// Regret after each trial. Of the recorded points that were not tried the one nearest to each proposal is tried.
fn trace(table: &Table, sampler: &SamplerSettings, seed: Seed, num_trials: u32) -> Vec<f64> {
    let space = space();
    let mut tried: Vec<usize> = Vec::new();
    for number in 1..=num_trials {
        let history: Vec<Observation<'_>> = tried
            .iter()
            .map(|index| Observation::over(&table.points[*index], vec![table.last(*index)]))
            .collect();
        let proposal =
            Proposal { space: &space, goal: &ACCURACY.into(), seed, number, history: &history };
        let wanted = propose(sampler, &proposal);
        let far = |index: &usize| distance(&space, &wanted, &table.points[*index]);
        let left = (0..table.points.len()).filter(|index| !tried.contains(index));
        let Some(nearest) = left.min_by(|a, b| far(a).total_cmp(&far(b))) else { break };
        tried.push(nearest);
    }
    let larger = |best: &mut f64, index: &usize| {
        *best = best.max(table.last(*index));
        Some(table.best() - *best)
    };
    tried.iter().scan(0.0, larger).collect()
}

/// The engine on one slot with the recorded points in an order of the seed: steps trained until a
/// result at a rung is as good as `target`.
fn compute(table: &Table, pruner: &str, seed: Seed, target: f64) -> anyhow::Result<f64> {
    let mut order: Vec<usize> = (0..table.points.len()).collect();
    seed.draws().shuffle(&mut order);
    let (num_trials, steps) = (order.len(), table.steps);
    let text = format!(
        "version: 1\nname: table\nmodel: {{pretrained: m}}\ndata:\n  train: {{path: d.csv}}\n  \
         validation: {{fraction: 0.1}}\n  text: text\n  label: {{column: label}}\nhyperparameters: \
         {{learning_rate: {{min: 1e-6, max: 1e-2}}}}\nsearcher: {{metric: accuracy, max_trials: \
         {num_trials}, pruner: {pruner}}}\nbudget: {{steps: {steps}}}\n"
    );
    let mut found = None;
    one_slot::search(&text, |task, num_steps| {
        let place = usize::try_from(task.trial.number).ok()?.checked_sub(1)?;
        let accuracy = table.at(*order.get(place)?, task.target_step);
        if accuracy >= target {
            found = Some(num_steps);
            return None;
        }
        Some(one_slot::evaluation(1.0, accuracy))
    })?;
    // It may end without: as if everything had been trained.
    Ok(found.unwrap_or(num_trials as u64 * steps) as f64)
}

/// With `--sampler`, regrets after each of `--trials`; with `--pruner`, steps until an accuracy `--below` the
/// best of the table; each of `--seeds` seeds.
pub(super) fn table(flags: &Flags) -> anyhow::Result<Value> {
    let table = Table::read(flags)?;
    let seeds: u64 = flags.number("seeds", 40)?;
    if let Ok(name) = flags.text("sampler") {
        let (sampler, num_trials) = (sampler(name)?, flags.number("trials", 12)?);
        let traces: Vec<Vec<f64>> =
            (0..seeds).map(|seed| trace(&table, &sampler, Seed(seed), num_trials)).collect();
        return Ok(json!({ "traces": traces }));
    }
    let halving = |kind: &str| {
        let least = table.every;
        format!("{{type: {kind}, reduction_factor: 3, min_budget: {{steps: {least}}}}}")
    };
    let pruner = match flags.text("pruner")? {
        "none" => "{type: none}".to_owned(),
        kind @ ("asha" | "asha_stopping" | "hyperband") => halving(kind),
        "median" => format!("{{type: median, every: {{steps: {}}}}}", table.every),
        other => bail!("no pruner is called {other} here"),
    };
    let target = table.best() - flags.number("below", 0.005)?;
    let found: anyhow::Result<Vec<f64>> =
        (0..seeds).map(|seed| compute(&table, &pruner, Seed(seed), target)).collect();
    let counts: BTreeMap<&str, Value> =
        BTreeMap::from([("steps", json!(found?)), ("target", json!(target))]);
    Ok(json!(counts))
}
