//! The `sampler` of a searcher.

use super::reader::{Field, Section};
use super::searcher::{SamplerSettings, TpeSettings};
use super::section::{optional_or, read_space};
use super::space::{Assignment, Domain};

/// A name, or a mapping with `type` and what the type knows.
pub(super) fn read_sampler(field: &Field<'_>) -> Option<SamplerSettings> {
    let tpe = SamplerSettings::Tpe(TpeSettings::default());
    let kinds = [
        ("random", SamplerSettings::Random),
        ("grid", SamplerSettings::Grid),
        ("sobol", SamplerSettings::Sobol),
        ("tpe", tpe),
        ("list", SamplerSettings::List(Vec::new())),
    ];
    if !field.is_mapping() {
        let kind = field.choice(&kinds)?;
        if matches!(kind, SamplerSettings::List(_)) {
            let mend = "write {type: list, points: [{learning_rate: 2e-5}, ...]}";
            field.refuse_mend("a list has points", mend);
            return None;
        }
        return Some(kind);
    }
    let section = field.section()?;
    let kind = section.require("type", "tpe").and_then(|field| field.choice(&kinds));
    let kind = match kind {
        Some(SamplerSettings::Tpe(default)) => read_tpe(&section, default),
        Some(SamplerSettings::List(_)) => {
            let points = section.require("points", "[{learning_rate: 2e-5}]");
            points.and_then(|field| read_points(&field)).map(SamplerSettings::List)
        }
        other => other,
    };
    section.finish();
    kind
}

fn read_tpe(section: &Section<'_>, default: TpeSettings) -> Option<SamplerSettings> {
    let startup = default.startup_trials;
    let startup_trials =
        optional_or(section.get("startup_trials"), startup, |f| f.whole_u32(1, 1_000_000));
    let candidates =
        optional_or(section.get("candidates"), default.candidates, |f| f.whole_u32(1, 10_000));
    let multivariate =
        optional_or(section.get("multivariate"), default.multivariate, |f| f.truth());
    let (startup_trials, candidates) = (startup_trials?, candidates?);
    Some(SamplerSettings::Tpe(TpeSettings {
        startup_trials,
        candidates,
        multivariate: multivariate?,
    }))
}

/// Points of a list: values by hyperparameter.
fn read_points(field: &Field<'_>) -> Option<Vec<Assignment>> {
    let items = field.items()?;
    if items.is_empty() {
        field.refuse("the list is empty");
        return None;
    }
    let read = |item: &Field<'_>| -> Option<Assignment> {
        let space = read_space(item)?;
        let mut point = Assignment::new();
        for (name, domain) in space {
            let Domain::Constant(value) = domain else {
                item.refuse_mend(format!("`{name}` is no single value"), "write one value");
                return None;
            };
            point.insert(name, value);
        }
        Some(point)
    };
    let points: Vec<Option<Assignment>> = items.iter().map(read).collect();
    points.into_iter().collect()
}
