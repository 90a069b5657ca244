//! The `sampler` of a searcher.

use super::assignment::Assignment;
use super::reader::{Field, Section};
use super::searcher::{CmaEsSettings, GpSettings, SamplerSettings, TpeSettings};
use super::section::{optional, optional_or, read_space};
use super::space::Domain;
use super::training::number_within;

/// A name, or a mapping with `type` and what the type knows.
pub(super) fn read_sampler(field: &Field<'_>) -> Option<SamplerSettings> {
    let kinds = [
        ("random", SamplerSettings::Random),
        ("grid", SamplerSettings::Grid),
        ("sobol", SamplerSettings::Sobol),
        ("tpe", SamplerSettings::Tpe(TpeSettings::default())),
        ("list", SamplerSettings::List(Vec::new())),
        ("bohb", SamplerSettings::Bohb(TpeSettings::bohb())),
        ("gp", SamplerSettings::Gp(GpSettings::default())),
        ("cmaes", SamplerSettings::CmaEs(CmaEsSettings::default())),
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
        Some(SamplerSettings::Tpe(default)) => {
            let multivariate =
                optional_or(section.get("multivariate"), default.multivariate, |f| f.truth());
            let tpe = read_tpe(&section, default, 1);
            tpe.zip(multivariate).map(|(tpe, multivariate)| {
                SamplerSettings::Tpe(TpeSettings { multivariate, ..tpe })
            })
        }
        Some(SamplerSettings::Bohb(default)) => {
            let random_share =
                optional_or(section.get("random_share"), default.random_share, |f| {
                    number_within(&f, 0.0, 1.0)
                });
            let tpe = read_tpe(&section, default, 0);
            tpe.zip(random_share).map(|(tpe, random_share)| {
                SamplerSettings::Bohb(TpeSettings { random_share, ..tpe })
            })
        }
        Some(SamplerSettings::Gp(default)) => read_startup(&section, default.startup_trials, 1)
            .map(|startup_trials| SamplerSettings::Gp(GpSettings { startup_trials })),
        Some(SamplerSettings::CmaEs(default)) => read_cmaes(&section, default),
        Some(SamplerSettings::List(_)) => {
            let points = section.require("points", "[{learning_rate: 2e-5}]");
            points.and_then(|field| read_points(&field)).map(SamplerSettings::List)
        }
        other => other,
    };
    section.finish();
    kind
}

fn read_startup(section: &Section<'_>, default: u32, least: u32) -> Option<u32> {
    optional_or(section.get("startup_trials"), default, |f| f.whole_u32(least, 1_000_000))
}

fn read_tpe(section: &Section<'_>, default: TpeSettings, least: u32) -> Option<TpeSettings> {
    let startup_trials = read_startup(section, default.startup_trials, least);
    let candidates =
        optional_or(section.get("candidates"), default.candidates, |f| f.whole_u32(1, 10_000));
    Some(TpeSettings { startup_trials: startup_trials?, candidates: candidates?, ..default })
}

fn read_cmaes(section: &Section<'_>, default: CmaEsSettings) -> Option<SamplerSettings> {
    let population =
        optional(section.get("population"), |field| field.whole_u32(4, 100_000).map(Some));
    let sigma = optional_or(section.get("sigma"), default.sigma, |f| number_within(&f, 1e-6, 1.0));
    Some(SamplerSettings::CmaEs(CmaEsSettings { population: population?, sigma: sigma? }))
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
