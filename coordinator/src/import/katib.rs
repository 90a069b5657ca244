//! Katib's Experiment (`kubeflow.org/v1beta1`). Its numbers are quoted.

use muster_common::objective::Mode;

use super::domain::{Domain, whole};
use super::draft::{Draft, Pruning};
use super::reader::{Place, Reader};

const REASONS: [(&str, &str); 7] = [
    ("trialTemplate", "Muster trains the models it knows; there is no program to start"),
    ("metricsCollectorSpec", "workers report their metrics themselves"),
    ("maxFailedTrialCount", "a failed trial is tried again by the rule of its failure's class"),
    ("resumePolicy", "every experiment can be resumed"),
    ("nasConfig", "Muster does not search for architectures"),
    ("experimentType", "there is one type of experiment"),
    ("fromVolume", "the setting `store` of the coordinator says where everything goes"),
];

/// Trials of a generation of `pbt`, where the file has no number.
const MEMBERS: f64 = 40.0;
/// The share of them that is replaced.
const QUANTILE: f64 = 0.2;
/// Generations, where the file has no number of trials.
const GENERATIONS: u64 = 5;

pub(super) fn read(reader: &Reader<'_>, draft: &mut Draft) {
    let root = reader.root();
    for key in ["apiVersion", "kind"] {
        let _said = root.take_text(key);
    }
    if let Some(metadata) = root.get("metadata") {
        draft.name = metadata
            .take_text("name")
            .or(metadata.take_text("generateName"))
            .map(ToOwned::to_owned);
        if let Some(namespace) = metadata.get("namespace") {
            namespace.leave_out("a coordinator has one list of experiments");
        }
    }
    if let Some(status) = root.get("status") {
        status.leave_out("what another system has done so far is not taken over");
    }
    draft.is_search = true;
    "random".clone_into(&mut draft.sampler);
    let Some(spec) = root.get("spec") else { return };
    for (key, reason) in REASONS {
        if let Some(place) = spec.get(key) {
            place.leave_out(reason);
        }
    }
    if let Some(objective) = spec.get("objective") {
        read_objective(&objective, draft);
    }
    draft.max_concurrent =
        spec.take_whole("parallelTrialCount").filter(|most| (1..=1_000_000).contains(most));
    if let Some(trials) = spec.take_whole("maxTrialCount").filter(|trials| *trials > 0) {
        draft.max_trials = Some((trials.min(1_000_000), "spec.maxTrialCount".to_owned()));
    }
    for place in spec.get("parameters").iter().flat_map(Place::items) {
        let name = place.take_text("name").unwrap_or_default();
        draft.put(name, &place, read_domain(&place));
    }
    if let Some(algorithm) = spec.get("algorithm") {
        read_algorithm(&algorithm, draft);
    }
    if let Some(early) = spec.get("earlyStopping") {
        read_early(&early, draft);
    }
}

fn read_objective(objective: &Place<'_>, draft: &mut Draft) {
    let mode = match objective.take_text("type") {
        Some("maximize") => Mode::Max,
        _ => Mode::Min,
    };
    draft.put_metric(objective.get("objectiveMetricName").as_ref(), Some(mode));
    if draft.metric.is_some() {
        draft.target = objective.take_number("goal");
    } else if let Some(goal) = objective.get("goal") {
        goal.leave_out("it is of a metric that Muster does not measure");
    }
    if let Some(more) = objective.get("additionalMetricNames") {
        more.leave_out("all metrics are recorded");
    }
    if let Some(strategies) = objective.get("metricStrategies") {
        strategies.leave_out("the result at the last rung counts, and the best of a trial is kept");
    }
}

fn read_domain(place: &Place<'_>) -> Result<Domain, String> {
    let space = place.get("feasibleSpace").ok_or("it has no `feasibleSpace`")?;
    let is_int = place.take_text("parameterType") == Some("int");
    if let Some(list) = space.get("list") {
        return Domain::of_list(&list.used());
    }
    let bounds = space.take_number("min").zip(space.take_number("max"));
    let (min, max) = bounds.ok_or("it has no `min` and `max`")?;
    let is_log = match space.take_text("distribution") {
        None | Some("uniform") => false,
        Some("logUniform") => true,
        Some(other) => return Err(format!("Muster has no distribution `{other}`")),
    };
    let step = space.take_number("step").or((is_int && !is_log).then_some(1.0));
    Ok(match step {
        // No second step fits.
        Some(step) if step > max - min && min <= max => Domain::Constant(min),
        step => Domain::range(min, max, is_log, step),
    })
}

fn setting<'a>(algorithm: &Place<'a>, name: &str) -> Option<Place<'a>> {
    let settings = algorithm.get("algorithmSettings")?;
    let named = |item: &Place<'_>| item.get("name").and_then(|name| name.text()) == Some(name);
    settings.items().into_iter().find(named)
}

/// A setting's number; the setting counts as used.
fn take_setting(algorithm: &Place<'_>, name: &str) -> Option<f64> {
    let place = setting(algorithm, name)?;
    let value = place.get("value").and_then(|value| value.number())?;
    use_setting(&place);
    Some(value)
}

fn use_setting(place: &Place<'_>) {
    for part in ["name", "value"] {
        let _used = place.take_text(part);
    }
}

fn read_algorithm(algorithm: &Place<'_>, draft: &mut Draft) {
    let name = algorithm.take_text("algorithmName").unwrap_or_default();
    let startup = |kind: &str| match take_setting(algorithm, "n_startup_trials") {
        Some(count) if count >= 1.0 && kind != "cmaes" => {
            format!("{{type: {kind}, startup_trials: {}}}", count.round())
        }
        _ => kind.to_owned(),
    };
    draft.seed = take_setting(algorithm, "random_state").filter(|seed| *seed >= 0.0).map(whole);
    draft.sampler = match name {
        "random" | "hyperband" | "pbt" => "random".to_owned(),
        "grid" | "sobol" => name.to_owned(),
        "tpe" => "{type: tpe, multivariate: false}".to_owned(),
        "multivariate-tpe" => startup("tpe"),
        "bayesianoptimization" => startup("gp"),
        "cmaes" => "cmaes".to_owned(),
        _ => {
            if let Some(place) = algorithm.get("algorithmName") {
                place.leave_out("Muster does not have the method; `random` stands for it");
            }
            "random".to_owned()
        }
    };
    match name {
        "hyperband" => read_hyperband(algorithm, draft),
        "pbt" => read_population(algorithm, draft),
        _ => {}
    }
}

/// Population-based training: a generation there is a set of trials, which train one budget each.
fn read_population(algorithm: &Place<'_>, draft: &mut Draft) {
    if let Some(folder) = setting(algorithm, "suggestion_trial_dir") {
        folder.leave_out("the setting `store` of the coordinator says where checkpoints go");
    }
    let members = take_setting(algorithm, "n_population").map_or(MEMBERS, f64::round);
    let members = whole(members).max(1);
    let quantile = take_setting(algorithm, "truncation_threshold").unwrap_or(QUANTILE);
    let resample = take_setting(algorithm, "resample_probability").unwrap_or(0.0);
    let generations = if let Some((trials, _)) = &draft.max_trials {
        trials.div_ceil(members)
    } else {
        let reason = format!("the file has no number of trials: {GENERATIONS} generations");
        draft.assume("searcher.pruner", reason);
        GENERATIONS
    };
    draft.pruning = Some(Pruning::Population {
        members,
        generations,
        quantile: quantile.clamp(0.01, 0.5),
        resample_probability: resample.clamp(0.0, 1.0),
        path: algorithm.path.clone(),
    });
}

fn read_hyperband(algorithm: &Place<'_>, draft: &mut Draft) {
    let factor = take_setting(algorithm, "eta").map_or(3.0, f64::round).clamp(2.0, 1000.0);
    let most = take_setting(algorithm, "r_l").or(draft.budget.map(|budget| budget.amount));
    if let Some(name) = setting(algorithm, "resource_name") {
        use_setting(&name);
    }
    let Some(most) = most.filter(|most| (factor..=1e6).contains(most)) else {
        return algorithm.leave_out("the resource of Hyperband is not known");
    };
    if draft.budget.is_none() {
        draft.budget = Some(super::draft::Length { unit: "epochs", amount: most });
        draft.assume("budget", "the resource of Hyperband, `r_l`, counts epochs");
    }
    let path = algorithm.path.clone();
    draft.pruning =
        Some(Pruning::Halving { kind: "hyperband", factor: whole(factor), min_budget: 1.0, path });
}

fn read_early(early: &Place<'_>, draft: &mut Draft) {
    if early.get("algorithmName").and_then(|name| name.text()) != Some("medianstop") {
        return early.leave_out("the method of early stopping is not known");
    }
    if draft.pruning.is_some() {
        return early.leave_out("the algorithm compares trials already");
    }
    let _median = early.take_text("algorithmName");
    let trials = take_setting(early, "min_trials_required").map_or(3.0, f64::round);
    let start = take_setting(early, "start_step").map_or(4.0, f64::round);
    draft.assume("searcher.pruner", "a step of Katib, one reported value, counts as one epoch");
    draft.pruning = Some(Pruning::Median {
        startup_trials: whole(trials.clamp(1.0, 1e6)),
        start,
        path: early.path.clone(),
    });
}
