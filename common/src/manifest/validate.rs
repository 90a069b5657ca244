//! Rules that look at several sections at once. [`Manifest::parse`] runs them after the sections
//! have been read, so every value is already legal by itself.

use std::path::Path;

use super::assignment::Assignment;
use super::document::{self, Node, NodeKind};
use super::pruner::PrunerSettings;
use super::reader::{Field, Issues, ManifestError};
use super::searcher::{SamplerSettings, SearcherSettings};
use super::section::read_manifest;
use super::settings::{HyperparameterSpec, written};
use super::source::{Holdout, LabelRule, Source, SourceFormat};
use super::space::{Domain, SearchSpace, grid_points};
use super::{Budget, ClassWeights, HubName, Manifest, ScheduleShape, Truncation};
use crate::count::{counted, counted_are};

/// Largest grid accepted.
const GRID_MAX: u64 = 1_000_000;

/// Where a rule complains: the document and the list of issues.
pub(super) struct Rules<'a> {
    root: &'a Field<'a>,
}

impl Manifest {
    /// Reads and checks a manifest. All mistakes are reported together.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let issues = Issues::default();
        let manifest = read(text, &issues);
        match manifest {
            Some(manifest) if issues.is_empty() => Ok(manifest),
            _ => Err(issues.into_error()),
        }
    }

    /// Makes relative paths absolute, starting at `base`. A pretrained model that is not there and
    /// can be one of a hub keeps its name.
    pub fn rebase(&mut self, base: &Path) {
        let absolute = |path: &mut String| {
            if Path::new(path).is_relative() {
                *path = base.join(&*path).display().to_string();
            }
        };
        if HubName::unless_there(&self.model.pretrained, base).is_none() {
            absolute(&mut self.model.pretrained);
        }
        let on_this_machine = |path: &&mut String| !Source::is_url(path);
        self.data.train.paths.iter_mut().filter(on_this_machine).for_each(absolute);
        for holdout in [&mut self.data.validation, &mut self.data.test] {
            if let Holdout::Source(source) = holdout {
                source.paths.iter_mut().filter(on_this_machine).for_each(absolute);
            }
        }
    }

    /// The files and directories of this machine that the manifest names, each with its path in the
    /// manifest. URLs are looked up where they are read; of patterns [`Manifest::unmatched`] tells. A
    /// model of a hub is none of them; [`Manifest::rebase`] tells it from a directory.
    pub fn inputs(&self) -> Vec<(&'static str, &str)> {
        let mut inputs = Vec::new();
        if self.model.hub_name().is_none() {
            inputs.push(("model.pretrained", self.model.pretrained.as_str()));
        }
        for (name, source) in self.sources() {
            let paths = source.paths.iter();
            let named = paths.filter(|path| !Source::is_url(path) && !Source::is_pattern(path));
            inputs.extend(named.map(|path| (name, path.as_str())));
        }
        inputs
    }

    /// Where each split's rows come from that has files of its own, with the path in the manifest.
    pub(super) fn sources(&self) -> Vec<(&'static str, &Source)> {
        let sources = [
            ("data.train.path", Some(&self.data.train)),
            ("data.validation.path", source_of(&self.data.validation)),
            ("data.test.path", source_of(&self.data.test)),
        ];
        sources.into_iter().filter_map(|(name, source)| Some((name, source?))).collect()
    }
}

fn read(text: &str, issues: &Issues) -> Option<Manifest> {
    let node = match document::parse(text) {
        Ok(Some(node)) => node,
        Ok(None) => Node { line: 1, kind: NodeKind::Mapping(Vec::new()) },
        Err(malformed) => {
            issues.add(malformed.line, "", malformed.message);
            return None;
        }
    };
    let root = Field::root(&node, issues);
    let mut manifest = read_manifest(&root)?;
    let rules = Rules { root: &root };
    rules.check_columns(&manifest);
    rules.check_objective(&manifest);
    rules.check_goal(&manifest);
    rules.check_holdouts(&manifest);
    rules.check_batches(&manifest);
    rules.check_pruner(&manifest);
    rules.check_searcher(&mut manifest);
    rules.check_population(&manifest);
    rules.check_training(&manifest);
    rules.check_categories(&manifest);
    Some(manifest)
}

impl Rules<'_> {
    pub(super) fn refuse(&self, path: &[&str], message: impl Into<String>, mend: &str) {
        self.root.refuse_below(path, message, mend);
    }

    /// Whether the document has something at `path`.
    pub(super) fn is_written(&self, path: &[&str]) -> bool {
        self.root.has_below(path)
    }

    /// The columns that are read stand in every list of columns, and differ.
    fn check_columns(&self, manifest: &Manifest) {
        let data = &manifest.data;
        let label = data.label.as_ref().map(LabelRule::column);
        let used = [
            ("text", Some(data.text.as_str())),
            ("text_pair", data.text_pair.as_deref()),
            ("label", label),
        ];
        let wanted: Vec<(&str, &str)> =
            used.into_iter().filter_map(|(use_, name)| Some((use_, name?))).collect();
        if label == Some(data.text.as_str()) {
            let message = format!("`{}` is the column of the label too", data.text);
            self.refuse(&["data", "text"], message, "name the column that holds the text");
        }
        if let Some(pair) = data.text_pair.as_deref()
            && (pair == data.text || label == Some(pair))
        {
            let message = format!("`{pair}` is read as something else already");
            self.refuse(&["data", "text_pair"], message, "name the column of the second text");
        }
        let sources = [
            ("train", Some(&data.train)),
            ("validation", source_of(&data.validation)),
            ("test", source_of(&data.test)),
        ];
        for (split, source) in sources {
            let Some(format) = source.map(|source| &source.format) else { continue };
            let (columns, key, mend) = match format {
                SourceFormat::Delimited { columns: Some(columns), .. } => {
                    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                    (columns, "columns", "list every column of the file, in its order")
                }
                SourceFormat::Text => (vec!["text"], "path", "this format has the column `text`"),
                SourceFormat::AclImdb => {
                    let mend = "this format has the columns `text` and `label`";
                    (vec!["text", "label"], "path", mend)
                }
                _ => continue,
            };
            for (use_, name) in &wanted {
                if !columns.contains(name) {
                    let message = format!("the column of the {use_}, `{name}`, is none of them");
                    self.refuse(&["data", split, key], message, mend);
                }
            }
        }
        if data.text_pair.is_some() && manifest.model.truncation != Truncation::Head {
            let message = "pairs of texts are always cut longest first";
            self.refuse(&["model", "truncation"], message, "remove it, or `data.text_pair`");
        }
    }

    fn check_holdouts(&self, manifest: &Manifest) {
        let share = |holdout: &Holdout| match holdout {
            Holdout::Fraction(share) => *share,
            _ => 0.0,
        };
        let held = share(&manifest.data.validation) + share(&manifest.data.test);
        if held >= 1.0 {
            let message = "validation and test together hold out all of the data";
            self.refuse(&["data"], message, "lower one: something must be left to train on");
        }
    }

    fn check_batches(&self, manifest: &Manifest) {
        let bounds = |name| domain_bounds(manifest, name);
        let (_, global_max) = bounds("global_batch_size");
        let (micro_min, _) = bounds("micro_batch_size");
        if micro_min > global_max {
            let message =
                format!("micro-batches of {micro_min} never fit in batches of {global_max}");
            let mend = "lower micro_batch_size, or remove it";
            self.refuse(&["hyperparameters", "micro_batch_size"], message, mend);
        }
        let (global_min, _) = bounds("global_batch_size");
        let ranks = manifest.resources.slots.max();
        if f64::from(ranks) > global_min {
            let message = format!("batches of {global_min} leave some of {ranks} ranks nothing");
            let mend = "lower slots or raise global_batch_size";
            self.refuse(&["resources", "slots"], message, mend);
        }
        if let Budget::Examples(examples) = manifest.budget
            && (examples as f64) < global_max
        {
            let message =
                format!("{} less than one step of {global_max}", counted_are(examples, "example"));
            self.refuse(&["budget"], message, "raise the budget or lower global_batch_size");
        }
    }

    fn check_training(&self, manifest: &Manifest) {
        let training = &manifest.training;
        let ends = manifest.trainings().into_iter().find_map(|training| match training.schedule {
            ScheduleShape::Polynomial { end_learning_rate, .. } => Some(end_learning_rate),
            _ => None,
        });
        if let Some(end) = ends {
            let (lowest, _) = domain_bounds(manifest, "learning_rate");
            if end >= lowest {
                let (end, lowest) = (written(end), written(lowest));
                let message = format!("it ends at {end}, but learning_rate is {lowest} at least");
                let (section, mend) = match training.schedule {
                    ScheduleShape::Polynomial { .. } => {
                        ("training", "lower end_learning_rate: the schedule falls")
                    }
                    _ => (
                        "hyperparameters",
                        "add `training.schedule: {type: polynomial, end_learning_rate: 0}`",
                    ),
                };
                self.refuse(&[section, "schedule"], message, mend);
            }
        }
        let ClassWeights::Given(weights) = &training.class_weights else { return };
        let names: Vec<&String> = match &manifest.data.label {
            None | Some(LabelRule::Class { names: None, .. }) => return,
            Some(LabelRule::Class { names: Some(names), .. }) => names.iter().collect(),
            Some(LabelRule::Ranges { ranges, .. }) => {
                ranges.iter().map(|range| &range.name).collect()
            }
        };
        for name in weights.keys().filter(|name| !names.contains(name)) {
            let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            let message = format!("there is no such class; known: {}", known.join(", "));
            self.refuse(
                &["training", "class_weights", name],
                message,
                "name the classes of `data.label`",
            );
        }
        for name in names.iter().filter(|name| !weights.contains_key(name.as_str())) {
            let message = format!("class `{name}` has no weight");
            let mend = "give every class one, 1 where nothing changes";
            self.refuse(&["training", "class_weights"], message, mend);
        }
    }

    fn check_searcher(&self, manifest: &mut Manifest) {
        self.check_conditions(&manifest.hyperparameters);
        let searched: Vec<&String> = manifest
            .hyperparameters
            .iter()
            .filter(|(_, domain)| domain.is_searched())
            .map(|(name, _)| name)
            .collect();
        let Some(searcher) = &mut manifest.searcher else {
            if let Some(name) = searched.first() {
                let message = "has several values, but there is no `searcher`";
                let mend = "add a `searcher` section or write one value";
                self.refuse(&["hyperparameters", name], message, mend);
            }
            return;
        };
        self.count_brackets(searcher, manifest.budget);
        self.check_model(searcher);
        match &searcher.sampler {
            sampler if !sampler.knows_size() && searched.is_empty() && searcher.max_trials > 1 => {
                let message = "no hyperparameter has several values: all trials would be the same";
                self.refuse(
                    &["searcher"],
                    message,
                    "give one {min: ..., max: ...} or {values: [...]}",
                );
            }
            SamplerSettings::Grid => {
                let Some(size) = self.grid_size(&manifest.hyperparameters) else { return };
                self.check_count(searcher, size, "the grid has");
            }
            SamplerSettings::List(points) => {
                let points = points.clone();
                self.check_points(&manifest.hyperparameters, &points);
                self.check_count(searcher, extent(&points), "the list has");
            }
            _ => {}
        }
    }

    /// What only some samplers can use.
    fn check_model(&self, searcher: &SearcherSettings) {
        if matches!(searcher.sampler, SamplerSettings::Bohb(_))
            && !matches!(searcher.pruner, PrunerSettings::Hyperband(_))
        {
            let message = "`bohb` goes with the brackets of Hyperband";
            let mend = "write `pruner: {type: hyperband, ...}`, or `sampler: tpe`";
            self.refuse(&["searcher", "sampler"], message, mend);
        }
        if !searcher.warm_start.is_empty() && !searcher.sampler.learns() {
            let message = format!("`{}` learns nothing from results", searcher.sampler.name());
            let mend = "remove it, or choose `tpe`, `bohb`, `gp` or `cmaes`";
            self.refuse(&["searcher", "warm_start"], message, mend);
        }
    }

    /// What a hyperparameter depends on is there, has the values, and does not depend on it.
    fn check_conditions(&self, space: &SearchSpace) {
        for (name, domain) in space {
            let Some((other, values)) = domain.condition() else { continue };
            let path = &["hyperparameters", name, "when"];
            let Some(parent) = space.get(other) else {
                let message = format!("`{other}` has no values in this manifest");
                self.refuse(path, message, "give it some under `hyperparameters`");
                continue;
            };
            let Some(known) = parent.plain().enumerate() else {
                let message = format!("`{other}` is a range of real numbers");
                self.refuse(path, message, "list its values, or give it a `step`");
                continue;
            };
            if let Some(value) = values.iter().find(|value| !known.contains(value)) {
                let message = format!("`{other}` is never {value}");
                self.refuse(path, message, "name values that it has");
            }
            let mut seen = vec![name.as_str()];
            let mut next = Some(other);
            while let Some(current) = next {
                if seen.contains(&current) {
                    let message = format!("depends on itself through `{other}`");
                    self.refuse(path, message, "remove one of the conditions");
                    break;
                }
                seen.push(current);
                next = space.get(current).and_then(Domain::condition).map(|(name, _)| name);
            }
        }
    }

    /// Points of the grid over a space; `None`: there are too many, which has been said.
    fn grid_size(&self, space: &SearchSpace) -> Option<u32> {
        let mut size = 1u64;
        for (name, domain) in space {
            let Some(count) = domain.num_values() else {
                let message = "a grid cannot enumerate all real numbers of a range";
                let mend = "write {values: [...]}, a `step`, or `sampler: random`";
                self.refuse(&["hyperparameters", name], message, mend);
                return None;
            };
            size = size.saturating_mul(count);
        }
        if size <= GRID_MAX && space.values().any(|domain| domain.condition().is_some()) {
            size = grid_points(space).count() as u64;
        }
        let whole = u32::try_from(size).ok().filter(|_| size <= GRID_MAX);
        if whole.is_none() {
            let message = format!("the grid has more than {GRID_MAX} points");
            self.refuse(&["searcher", "sampler"], message, "use `sampler: random`");
        }
        whole
    }

    /// Fills in the number of trials of what knows its size, and refuses more.
    fn check_count(&self, searcher: &mut SearcherSettings, size: u32, what: &str) {
        if searcher.max_trials == 0 {
            searcher.max_trials = size;
        }
        if searcher.max_trials > size {
            let message = format!("{what} only {}", counted(size, "point"));
            self.refuse(&["searcher", "max_trials"], message, "remove it to try them all");
        }
    }

    /// All points of a list name the same hyperparameters, none of which is given elsewhere.
    fn check_points(&self, space: &SearchSpace, points: &[Assignment]) {
        let path = &["searcher", "sampler", "points"];
        let names = |point: &Assignment| point.keys().cloned().collect::<Vec<_>>();
        let Some(first) = points.first().map(names) else { return };
        if let Some(index) = points.iter().position(|point| names(point) != first) {
            let message = format!("point {} names other hyperparameters than the first", index + 1);
            self.refuse(path, message, "give every point a value for each of them");
        }
        if let Some(name) = first.iter().find(|name| space.contains_key(*name)) {
            let message = format!("`{name}` stands in the list and in `hyperparameters`");
            self.refuse(path, message, "remove it there");
        }
        if let Some((name, _)) = space.iter().find(|(_, domain)| domain.is_searched()) {
            let message = "has several values, but the points of the list decide";
            self.refuse(&["hyperparameters", name], message, "write one value, or another sampler");
        }
    }
}

fn extent(points: &[Assignment]) -> u32 {
    u32::try_from(points.len()).unwrap_or(u32::MAX)
}

fn source_of(holdout: &Holdout) -> Option<&Source> {
    match holdout {
        Holdout::Source(source) => Some(source),
        _ => None,
    }
}

/// Smallest and largest value a hyperparameter takes in this manifest.
pub(super) fn domain_bounds(manifest: &Manifest, name: &str) -> (f64, f64) {
    let default = HyperparameterSpec::find(name).and_then(|spec| spec.default);
    match manifest.hyperparameters.get(name) {
        None => default.map_or((0.0, 0.0), |default| (default, default)),
        // Where it does not exist, the default counts.
        Some(domain @ Domain::When { .. }) => {
            let (low, high) = bounds_of(domain);
            default.map_or((low, high), |default| (low.min(default), high.max(default)))
        }
        Some(domain) => bounds_of(domain),
    }
}

fn bounds_of(domain: &Domain) -> (f64, f64) {
    match domain {
        Domain::Constant(value) => (value.as_f64(), value.as_f64()),
        Domain::Values(values) => values
            .iter()
            .map(|value| value.as_f64())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            }),
        Domain::Float { min, max, .. } | Domain::Steps { min, max, .. } => (*min, *max),
        Domain::Int { min, max, .. } => (*min as f64, *max as f64),
        // The last step may end before `max`.
        Domain::IntSteps { min, max, step, .. } => (*min as f64, (max - (max - min) % step) as f64),
        Domain::When { domain, .. } => bounds_of(domain),
    }
}
