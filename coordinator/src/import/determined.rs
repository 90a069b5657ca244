//! Determined's experiment configuration (`docs/reference/experiment-config-reference` of version 0.38, and
//! the lengths in `max_length` of earlier ones).

use muster_common::manifest::{HyperparameterKind, HyperparameterSpec};
use muster_common::objective::Mode;

use super::domain::{Domain, whole};
use super::draft::{Draft, Length, Pruning};
use super::names;
use super::reader::{Place, Reader};

/// What Muster does in another way or not at all.
const REASONS: [(&str, &str); 16] = [
    ("entrypoint", "Muster trains the models it knows; there is no program to start"),
    ("labels", "Muster has no labels; `description` holds text"),
    ("workspace", "a coordinator has one list of experiments"),
    ("environment", "workers are started where their environment is"),
    ("bind_mounts", "workers see the files of their machine"),
    ("data", "see `data` in the manifest"),
    ("checkpoint_storage", "the setting `store` of the coordinator says where everything goes"),
    ("checkpoint_policy", "the best checkpoint and the newest are kept: `checkpoint.keep_last`"),
    ("min_validation_period", "trials are evaluated at rungs, and by `training.evaluate_every`"),
    ("perform_initial_validation", "untrained models are not evaluated"),
    ("records_per_epoch", "the data is counted"),
    ("scheduling_unit", "nothing is scheduled by batches"),
    ("log_policies", "failures have classes, see Failures in configs/README.md"),
    ("profiling", "workers do not profile"),
    ("slurm", "there is no Slurm"),
    ("pbs", "there is no PBS"),
];

/// Counters of training that Determined's users report, with their unit here.
const UNITS: [(&str, &str); 6] = [
    ("batches", "steps"),
    ("steps", "steps"),
    ("epochs", "epochs"),
    ("epoch", "epochs"),
    ("records", "examples"),
    ("steps_completed", "steps"),
];

/// What `type` says of a hyperparameter.
const TYPES: [&str; 5] = ["const", "categorical", "int", "double", "log"];

pub(super) fn read(reader: &Reader<'_>, draft: &mut Draft) {
    let root = reader.root();
    draft.take_head(&root, &REASONS);
    draft.max_restarts = root.take_whole("max_restarts").map(|restarts| restarts.min(1000));
    if let Some(reproducibility) = root.get("reproducibility") {
        draft.seed = reproducibility.take_whole("experiment_seed");
    }
    if let Some(resources) = root.get("resources") {
        draft.slots = resources.take_whole("slots_per_trial").filter(|slots| *slots <= 1024);
        let least = draft.slots.unwrap_or(1);
        draft.max_slots =
            resources.take_whole("max_slots").filter(|most| (least..=1024).contains(most));
        if let Some(priority) = resources.get("priority") {
            priority.leave_out("there a lower number goes first, in `resources.priority` a higher");
        }
    }
    if let Some(period) = root.get("min_checkpoint_period") {
        match period.take_whole("batches") {
            Some(batches) if (1..=1_000_000_000_000).contains(&batches) => {
                draft.every_steps = Some(batches);
            }
            _ => period.leave_out("`checkpoint.every_steps` is in steps"),
        }
    }
    let searcher = root.get("searcher");
    let name = searcher.as_ref().and_then(|searcher| searcher.get("name"));
    let is_grid = name.as_ref().and_then(Place::text) == Some("grid");
    if let Some(searcher) = &searcher {
        read_searcher(searcher, draft);
    }
    if let Some(space) = root.get("hyperparameters") {
        read_space(&space, draft, is_grid);
    }
    if let Some(searcher) = &searcher {
        read_halving(searcher, draft);
    }
}

fn read_space(space: &Place<'_>, draft: &mut Draft, is_grid: bool) {
    for (name, place) in space.entries() {
        if !place.is_mapping() {
            draft.put(name, &place, Domain::of_scalar(&place));
            continue;
        }
        let kind = place.get("type").and_then(|kind| kind.text());
        let within = known_within(&place);
        match kind.filter(|kind| !is_group(name, &place, kind)) {
            // A mapping without a type is a group of hyperparameters.
            None => read_space(&place, draft, is_grid),
            Some(kind) if within.is_empty() => {
                draft.put(name, &place, read_domain(&place, kind, is_grid));
            }
            Some(_) => {
                let within = within.join("`, `");
                let why = "Muster does not choose between groups";
                place.leave_out(format!("{why}; `{within}` in them is not searched"));
            }
        }
    }
}

/// Whether a mapping with a `type` holds hyperparameters of its own: the type is then that of an optimizer, a schedule
/// or the like.
fn is_group(name: &str, place: &Place<'_>, kind: &str) -> bool {
    let is_number = |spec: &HyperparameterSpec| spec.kind != HyperparameterKind::Category;
    let is_ours = names::hyperparameter(name).is_some_and(is_number) || names::is_epochs(name);
    let holds_more = place.entries().iter().any(|(_, inner)| inner.is_mapping());
    holds_more || (!is_ours && !TYPES.contains(&kind))
}

/// Names of Muster's hyperparameters within the choices of a category.
fn known_within<'a>(place: &Place<'a>) -> Vec<&'a str> {
    let choices = place.get("vals").map(|values| values.items()).unwrap_or_default();
    let mut found: Vec<&str> = Vec::new();
    for (key, _) in choices.iter().flat_map(Place::entries) {
        if names::hyperparameter(key).is_some() && !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

fn read_domain(place: &Place<'_>, kind: &str, is_grid: bool) -> Result<Domain, String> {
    let _said = place.take_text("type");
    let number = |key: &str| place.take_number(key);
    let bounds = || number("minval").zip(number("maxval")).ok_or("it has no `minval` and `maxval`");
    let domain = match kind {
        "const" => {
            let value = place.get("val").ok_or("it has no `val`")?;
            return Domain::of_scalar(&value.used());
        }
        "categorical" => {
            let values = place.get("vals").ok_or("it has no `vals`")?;
            return Domain::of_list(&values.used());
        }
        "int" | "double" => {
            let (min, max) = bounds()?;
            Domain::range(min, max, false, (kind == "int").then_some(1.0))
        }
        "log" => {
            // The bounds are exponents.
            let (min, max) = bounds()?;
            let base = number("base").unwrap_or(10.0);
            Domain::range(base.powf(min), base.powf(max), true, None)
        }
        _ => return Err(format!("its type `{kind}` is not known")),
    };
    let domain = match place.get("count") {
        Some(_) if is_grid => match place.take_whole("count") {
            Some(count) => domain.spread(count),
            None => domain,
        },
        Some(count) => {
            count.leave_out("only a grid counts the values of a range");
            domain
        }
        None => domain,
    };
    Ok(match (domain, kind) {
        // Whole numbers in between are rounded.
        (Domain::Values(values), "int") => {
            let mut values: Vec<f64> = values.into_iter().map(f64::round).collect();
            values.dedup_by(|a, b| a.to_bits() == b.to_bits());
            Domain::Values(values)
        }
        (domain, _) => domain,
    })
}

fn read_searcher(searcher: &Place<'_>, draft: &mut Draft) {
    let smaller = searcher.take_text("smaller_is_better").map(|text| text != "false");
    let mode = if smaller.unwrap_or(true) { Mode::Min } else { Mode::Max };
    draft.put_metric(searcher.get("metric").as_ref(), Some(mode));
    draft.is_search = true;
    match searcher.take_text("name").unwrap_or_default() {
        "single" => draft.is_search = false,
        "grid" => "grid".clone_into(&mut draft.sampler),
        "random" | "async_halving" | "adaptive_asha" | "adaptive" | "adaptive_simple" => {
            "random".clone_into(&mut draft.sampler);
        }
        _ => {
            "random".clone_into(&mut draft.sampler);
            if let Some(name) = searcher.get("name") {
                name.leave_out("the search method is not known; `random` stands for it");
            }
        }
    }
    if let Some(trials) = searcher.take_whole("max_trials").filter(|trials| *trials > 0) {
        let path = format!("{}.max_trials", searcher.path);
        if draft.is_search {
            draft.max_trials = Some((trials.min(1_000_000), path));
        }
    }
    draft.max_concurrent = searcher
        .take_whole("max_concurrent_trials")
        .filter(|most| (1..=1_000_000).contains(most) && draft.is_search);
    for key in ["source_trial_id", "source_checkpoint_uuid"] {
        if let Some(place) = searcher.get(key) {
            place.leave_out("`model.pretrained` names what is trained on from");
        }
    }
    read_length(searcher, draft);
}

/// `max_length: {UNIT: N}`, or `max_time` in what `time_metric` counts.
fn read_length(searcher: &Place<'_>, draft: &mut Draft) {
    if let Some(length) = searcher.get("max_length") {
        let named = UNITS.iter().find_map(|(name, unit)| {
            length.get(name).and_then(|place| place.number()).map(|amount| (*name, *unit, amount))
        });
        // Without a unit it counts batches.
        let bare = length.number().and_then(|amount| Length::legal("steps", amount));
        let named =
            named.and_then(|(name, unit, amount)| Some((name, Length::legal(unit, amount)?)));
        if let Some((name, budget)) = named {
            let _taken = length.take_number(name);
            draft.budget = Some(budget);
        } else if bare.is_some() {
            drop(length.used());
            draft.budget = bare;
        }
    }
    let counter = searcher.get("time_metric").and_then(|place| place.text());
    let unit = UNITS.iter().find(|(name, _)| Some(*name) == counter).map(|(_, unit)| *unit);
    let time = searcher.get("max_time").and_then(|place| place.number());
    let budget = unit.zip(time).and_then(|(unit, time)| Length::legal(unit, time));
    match (budget, draft.budget) {
        (Some(_), None) => {
            let _taken = (searcher.take_text("time_metric"), searcher.take_number("max_time"));
            draft.budget = budget;
        }
        _ => {
            for key in ["time_metric", "max_time"] {
                if let Some(place) = searcher.get(key) {
                    place.leave_out("Muster counts steps, examples or epochs: see `budget`");
                }
            }
        }
    }
}

/// Rungs: the lowest is `max_length` divided by the divisor once for each rung above it.
fn read_halving(searcher: &Place<'_>, draft: &mut Draft) {
    let name = searcher.get("name").and_then(|place| place.text()).unwrap_or_default();
    if !(name.starts_with("adaptive") || name == "async_halving") {
        return;
    }
    let divisor = searcher.take_number("divisor").map_or(4.0, f64::round).clamp(2.0, 1000.0);
    let key = if name == "async_halving" { "num_rungs" } else { "max_rungs" };
    let rungs = searcher.take_whole(key).unwrap_or(5).clamp(1, 20);
    let stops = searcher.take_text("stop_once") == Some("true");
    match searcher.get("mode") {
        Some(mode) if mode.text() == Some("aggressive") => drop(mode.used()),
        Some(mode) => {
            mode.leave_out("ASHA has one bracket, as `aggressive`; `hyperband` has several");
        }
        None if name.starts_with("adaptive") && rungs > 1 => {
            let reason =
                "without `mode` Determined has several brackets; ASHA has one, `hyperband` several";
            draft.assume("searcher.pruner", reason);
        }
        None => {}
    }
    if let Some(rungs) = searcher.get("bracket_rungs") {
        rungs.leave_out("ASHA has one bracket; `hyperband` has several");
    }
    let budget = draft.budget.unwrap_or(Length { unit: "epochs", amount: 3.0 });
    let exponent = i32::try_from(rungs - 1).unwrap_or(0);
    let mut min_budget = budget.amount / divisor.powi(exponent);
    if budget.unit != "epochs" {
        min_budget = min_budget.floor().max(1.0);
    }
    draft.pruning = (rungs > 1).then(|| Pruning::Halving {
        kind: if stops { "asha_stopping" } else { "asha" },
        factor: whole(divisor),
        min_budget,
        path: format!("{}.name", searcher.path),
    });
}
