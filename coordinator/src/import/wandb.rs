//! W&B's sweep configuration (`guides/sweeps/sweep-config-keys`).

use muster_common::objective::Mode;

use super::domain::{Domain, whole};
use super::draft::{Draft, Pruning};
use super::reader::{Place, Reader};

const REASONS: [(&str, &str); 5] = [
    ("program", "Muster trains the models it knows; there is no program to start"),
    ("command", "Muster trains the models it knows; there is no program to start"),
    ("entity", "a coordinator has one list of experiments"),
    ("controller", "the coordinator controls the search"),
    ("imageuri", "workers are started where their environment is"),
];

pub(super) fn read(reader: &Reader<'_>, draft: &mut Draft) {
    let root = reader.root();
    draft.take_head(&root, &REASONS);
    draft.is_search = true;
    "random".clone_into(&mut draft.sampler);
    match root.take_text("method") {
        Some("grid") => "grid".clone_into(&mut draft.sampler),
        Some("bayes") => "gp".clone_into(&mut draft.sampler),
        Some("random") | None => {}
        Some(_) => {
            if let Some(method) = root.get("method") {
                method.leave_out("the search method is not known; `random` stands for it");
            }
        }
    }
    if let Some(metric) = root.get("metric") {
        let mode = match metric.take_text("goal") {
            Some("maximize") => Mode::Max,
            _ => Mode::Min,
        };
        draft.put_metric(metric.get("name").as_ref(), Some(mode));
        if draft.metric.is_some() {
            draft.target = metric.take_number("target");
        } else if let Some(target) = metric.get("target") {
            target.leave_out("it is of a metric that Muster does not measure");
        }
    }
    if let Some(cap) = root.take_whole("run_cap").filter(|cap| *cap > 0) {
        draft.max_trials = Some((cap.min(1_000_000), "run_cap".to_owned()));
    }
    if let Some(space) = root.get("parameters") {
        read_space(&space, draft);
    }
    if let Some(early) = root.get("early_terminate") {
        read_early(&early, draft);
    }
}

fn read_space(space: &Place<'_>, draft: &mut Draft) {
    for (name, place) in space.entries() {
        match place.get("parameters") {
            // Nested parameters.
            Some(inner) => read_space(&inner, draft),
            None => draft.put(name, &place, read_domain(&place)),
        }
    }
}

fn read_domain(place: &Place<'_>) -> Result<Domain, String> {
    let distribution = place.get("distribution").and_then(|place| place.text());
    // What a value or a list says by itself may be said once more.
    let repeated = |name: &str| {
        if distribution == Some(name) {
            let _repeated = place.take_text("distribution");
        }
    };
    if let Some(value) = place.get("value") {
        repeated("constant");
        return Domain::of_scalar(&value.used());
    }
    if let Some(values) = place.get("values") {
        repeated("categorical");
        if place.get("probabilities").is_some() {
            return Err("Muster draws listed values with equal probability".to_owned());
        }
        return Domain::of_list(&values.used());
    }
    let _said = place.take_text("distribution");
    if distribution.is_some_and(|name| name.ends_with("normal")) {
        return Err("a normal distribution has no ends: Muster's ranges do".to_owned());
    }
    let is_whole = |key: &str| place.get(key).is_some_and(|place| place.is_whole());
    let of_whole = is_whole("min") && is_whole("max");
    let bounds = place.take_number("min").zip(place.take_number("max"));
    let (min, max) = bounds.ok_or("it has no `min` and `max`")?;
    // Between whole bounds W&B draws whole numbers.
    let usual = if of_whole { "int_uniform" } else { "uniform" };
    let distribution = distribution.unwrap_or(usual);
    if distribution.starts_with("q_") {
        let step = place.take_number("q").unwrap_or(1.0);
        return match distribution {
            "q_uniform" => Domain::multiples(min, max, false, step),
            "q_log_uniform_values" => Domain::multiples(min, max, true, step),
            "q_log_uniform" => Domain::multiples(min.exp(), max.exp(), true, step),
            other => Err(format!("Muster has no distribution `{other}`")),
        };
    }
    if let Some(step) = place.get("q") {
        step.leave_out("only distributions that are called `q_...` have steps");
    }
    Ok(match distribution {
        "uniform" => Domain::range(min, max, false, None),
        "int_uniform" => Domain::range(min, max, false, Some(1.0)),
        "log_uniform_values" => Domain::range(min, max, true, None),
        // The bounds are exponents of e.
        "log_uniform" => Domain::range(min.exp(), max.exp(), true, None),
        other => return Err(format!("Muster has no distribution `{other}`")),
    })
}

/// Hyperband of W&B stops for good at iterations of a geometric series, as `asha_stopping` does.
fn read_early(early: &Place<'_>, draft: &mut Draft) {
    if early.get("type").and_then(|kind| kind.text()) != Some("hyperband") {
        return early.leave_out("the method of early stopping is not known");
    }
    let _hyperband = early.take_text("type");
    let factor = early.take_number("eta").map_or(3.0, f64::round).clamp(2.0, 1000.0);
    if let Some(strict) = early.get("strict") {
        strict.leave_out("`asha_stopping` always compares with all results so far");
    }
    let first = early.take_number("min_iter");
    let last = early.take_number("max_iter");
    let depth = early.take_whole("s").unwrap_or(1).clamp(1, 20);
    // Either the first iteration is given, or the last and how often it is divided.
    let exponent = i32::try_from(depth).unwrap_or(1);
    let min_budget = first.or(last.map(|last| last / factor.powi(exponent)));
    let Some(min_budget) = min_budget else {
        return early.leave_out("it has neither `min_iter` nor `max_iter`");
    };
    draft.assume("searcher.pruner", "an iteration of W&B, one logged value, counts as one epoch");
    let path = early.path.clone();
    draft.pruning =
        Some(Pruning::Halving { kind: "asha_stopping", factor: whole(factor), min_budget, path });
}
