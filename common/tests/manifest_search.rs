//! The searcher's part of manifests: what is filled in when little is written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use muster_common::goal::Constraint;
use muster_common::manifest::{
    Budget, Change, Domain, HalvingSettings, Manifest, ParameterValue, PatienceSettings,
    PercentileSettings, PopulationSettings, PrunerSettings, Scale, SearcherSettings, edited,
    grid_points,
};
use muster_common::objective::{Mode, Objective, ObjectiveMetric};

const TEXT: &str = "version: 1
name: e
model: {pretrained: m}
data:
  train: {path: d.csv}
  validation: {fraction: 0.1}
  text: text
  label: {column: label}
hyperparameters: {dropout: {min: 0, max: 0.1}}
budget: {steps: 81}
";

fn read(text: &str, rest: &str) -> SearcherSettings {
    let text = format!("{text}searcher: {{metric: accuracy, {rest}}}\n");
    Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}")).searcher.unwrap()
}

fn searcher(rest: &str) -> SearcherSettings {
    read(TEXT, rest)
}

#[test]
fn pruners_have_their_defaults() {
    let min_budget = Budget::Steps(1);
    let pruner = |text: &str| searcher(&format!("max_trials: 5, pruner: {{{text}}}")).pruner;
    let halving = |reduction_factor| HalvingSettings { reduction_factor, min_budget };
    let rest = "min_budget: {steps: 1}";
    assert_eq!(pruner(&format!("type: asha, {rest}")), PrunerSettings::Asha(halving(4)));
    let stopping = pruner(&format!("type: asha_stopping, {rest}"));
    assert_eq!(stopping, PrunerSettings::AshaStopping(halving(4)));
    let hyperband = pruner(&format!("type: hyperband, {rest}"));
    assert_eq!(hyperband, PrunerSettings::Hyperband(halving(3)));
    let every = Budget::Steps(10);
    let percentile = |percentile, min_budget, startup_trials| {
        let settings = PercentileSettings { percentile, every, min_budget, startup_trials };
        PrunerSettings::Percentile(settings)
    };
    assert_eq!(pruner("type: median, every: {steps: 10}"), percentile(50.0, every, 5));
    let text = "type: percentile, percentile: 25, every: {steps: 10}, min_budget: {steps: 30}";
    let found = pruner(&format!("{text}, startup_trials: 2"));
    assert_eq!(found, percentile(25.0, Budget::Steps(30), 2));
    let patience = PatienceSettings { patience: 3, min_change: 0.0, every };
    let found = pruner("type: patience, patience: 3, every: {steps: 10}");
    assert_eq!(found, PrunerSettings::Patience(patience));
    let population = PopulationSettings {
        every,
        min_budget: every,
        quantile: 0.25,
        resample_probability: 0.25,
        factors: vec![0.8, 1.2],
    };
    let found = pruner("type: population, every: {steps: 10}");
    assert_eq!(found, PrunerSettings::Population(population));
    assert_eq!(searcher("max_trials: 5, target: 0.9").target, Some(0.9));
}

#[test]
fn whole_numbers_are_tried_in_steps() {
    let domain = |range: &str| {
        let space = format!("{{global_batch_size: {{{range}}}}}");
        let text = TEXT.replace("{dropout: {min: 0, max: 0.1}}", &space)
            + "searcher: {metric: accuracy, max_trials: 5}\n";
        let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let found = manifest.hyperparameters["global_batch_size"].clone();
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Domain>(&json).unwrap(), found);
        found
    };
    let stepped = |scale| Domain::IntSteps { min: 8, max: 60, step: 8, scale };
    assert_eq!(domain("min: 8, max: 60, step: 8"), stepped(Scale::Linear));
    assert_eq!(domain("min: 8, max: 60, step: 8, scale: log"), stepped(Scale::Log));
    let plain = Domain::Int { min: 8, max: 60, scale: Scale::Linear };
    assert_eq!(domain("min: 8, max: 60, step: 1"), plain);
    // A grid ends at the last step that is no larger than `max`.
    let grid = "{global_batch_size: {min: 8, max: 60, step: 8}, dropout: {values: [0, 0.1]}}";
    let text = TEXT.replace("{dropout: {min: 0, max: 0.1}}", grid);
    assert_eq!(read(&text, "sampler: grid").max_trials, 14);
}

#[test]
fn constraints_are_read() {
    let constraints =
        |text: &str| searcher(&format!("max_trials: 5, constraints: [{text}]")).constraints;
    let found = constraints("{metric: loss, max: 0.6}, {metric: auc, min: 0.5, max: 0.9}");
    let bound = |metric, min, max| Constraint { metric, min, max };
    let loss = bound(ObjectiveMetric::Loss, None, Some(0.6));
    assert_eq!(found, [loss, bound(ObjectiveMetric::Auc, Some(0.5), Some(0.9))]);
    assert_eq!(constraints("{metric: mcc, min: -0.5, max: null}")[0].max, None);
}

#[test]
fn objectives_are_read_and_can_be_set() {
    let text = TEXT.to_owned()
        + "searcher: {objectives: [{metric: accuracy}, {metric: loss}, {metric: mcc, mode: min}], max_trials: 5}\n";
    let read = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}")).searcher.unwrap();
    let objective = |metric, mode| Objective { metric, mode };
    assert_eq!(
        read.goal().objectives().collect::<Vec<_>>(),
        [
            objective(ObjectiveMetric::Accuracy, Mode::Max),
            objective(ObjectiveMetric::Loss, Mode::Min),
            objective(ObjectiveMetric::Mcc, Mode::Min),
        ]
    );
    let json = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<SearcherSettings>(&json).unwrap(), read);
    // As `muster fork --set` does it.
    let one = TEXT.to_owned() + "searcher: {metric: accuracy, max_trials: 5}\n";
    let changes = [
        "searcher.metric=null",
        "searcher.objectives=[{metric: accuracy}, {metric: loss}, {metric: mcc, mode: min}]",
    ];
    let changes: Vec<Change> = changes.iter().map(|text| Change::parse(text).unwrap()).collect();
    let changed = edited(&one, &changes).unwrap();
    assert_eq!(Manifest::parse(&changed).unwrap().searcher.unwrap(), read);
}

#[test]
fn a_round_of_hyperband_knows_its_size() {
    let pruner = "pruner: {type: hyperband, min_budget: {steps: 1}}";
    // 81 + 34 + 15 + 8 + 5, as in the paper's table 1.
    assert_eq!(searcher(pruner).max_trials, 143);
    assert_eq!(searcher(&format!("max_trials: 200, {pruner}")).max_trials, 200);
    // What knows its size by itself keeps it.
    let text = "dropout: {min: 0, max: 0.1}";
    let grid = TEXT.replace(text, "dropout: {values: [0, 0.1]}");
    let found = read(&grid, &format!("sampler: grid, {pruner}")).max_trials;
    assert_eq!(found, 2);
}

/// As it was journaled before there were targets and pruners of other kinds.
#[test]
fn an_old_journal_is_read() {
    let old = r#"{"objective":{"metric":"accuracy","mode":"max"},"max_trials":8,
        "max_concurrent":null,"sampler":"random",
        "pruner":{"asha":{"reduction_factor":2,"min_budget":{"examples":2560}}}}"#;
    let read: SearcherSettings = serde_json::from_str(old).unwrap();
    assert_eq!(read.target, None);
    assert_eq!((read.others.len(), read.constraints.len()), (0, 0));
    let written = serde_json::to_value(&read).unwrap();
    assert!(written.get("others").is_none() && written.get("constraints").is_none());
    let halving = HalvingSettings { reduction_factor: 2, min_budget: Budget::Examples(2560) };
    assert_eq!(read.pruner, PrunerSettings::Asha(halving));
}

/// One of the ready manifests.
fn configuration(file: &Path) -> Manifest {
    let text = std::fs::read_to_string(file).unwrap();
    Manifest::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Where they lie.
fn configurations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

#[test]
fn every_ready_configuration_is_legal_and_called_as_its_file() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(configurations()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let stem = path.file_stem().unwrap().to_str().unwrap().replace('_', "-");
            assert_eq!(configuration(&path).name.to_string(), stem);
            names.push(stem);
        }
    }
    names.sort();
    let of_tasks = ["amazon", "classic-asha", "classic-grid", "imdb", "imdb-distilbert", "sst2"];
    assert!(of_tasks.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
}

#[test]
fn the_classic_sweeps_are_216_points_of_one_space() {
    let grid = configuration(&configurations().join("classic_grid.yaml"));
    let asha = configuration(&configurations().join("classic_asha.yaml"));
    assert_eq!(grid.hyperparameters, asha.hyperparameters);
    assert_eq!(grid_points(&grid.hyperparameters).count(), 216);
    let searchers = [&grid, &asha].map(|manifest| manifest.searcher.as_ref().unwrap());
    assert_eq!(searchers.map(|searcher| searcher.max_trials), [216, 216]);
    let (model, data, training) = (&grid.model, &grid.data, &grid.training);
    assert_eq!((model, data, training), (&asha.model, &asha.data, &asha.training));
    assert_eq!(grid.budget, asha.budget);

    // At the first comparison a training in the largest batches is behind the shortest warmup, and one in the
    // smallest behind the longest.
    let PrunerSettings::Asha(settings) = &searchers[1].pruner else { panic!("it is ASHA") };
    let extremes = |name: &str| {
        let whole = |value| match value {
            ParameterValue::Int(value) => u64::try_from(value).unwrap(),
            other => panic!("{name}: {other}"),
        };
        let values = asha.hyperparameters[name].enumerate().unwrap();
        let values: Vec<u64> = values.into_iter().map(whole).collect();
        (*values.iter().min().unwrap(), *values.iter().max().unwrap())
    };
    let (batches, warmups) = (extremes("global_batch_size"), extremes("warmup_steps"));
    let steps = |batch| settings.min_budget.steps(batch, 22_500);
    assert!(steps(batches.1) > warmups.0 && steps(batches.0) > warmups.1);
}
