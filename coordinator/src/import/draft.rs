//! The manifest being made, and its text.

use std::fmt::Write as _;

use muster_common::id::{NAME_BYTES_MAX, ProjectName};
use muster_common::manifest::HyperparameterSpec;
use muster_common::objective::{Mode, ObjectiveMetric};

use super::domain::{Domain, shown};
use super::names;
use super::reader::{Place, Reader};
use super::{Dialect, Known, Remark};

/// How long a trial trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Length {
    pub(super) unit: &'static str,
    pub(super) amount: f64,
}

impl Length {
    /// A length that a budget may have.
    pub(super) fn legal(unit: &'static str, amount: f64) -> Option<Self> {
        match unit {
            "epochs" => (1e-6..=1e6).contains(&amount).then_some(Self { unit, amount }),
            _ => (1.0..=1e12).contains(&amount).then_some(Self { unit, amount: amount.floor() }),
        }
    }
}

/// How trials are stopped early.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pruning {
    /// With rungs from a share of the budget on, each `factor` times the one before.
    Halving { kind: &'static str, factor: u64, min_budget: f64, path: String },
    /// With a comparison after each unit of the budget, from `start` on.
    Median { startup_trials: u64, start: f64, path: String },
    /// Not stopped: the last of a population go on from the first, after each generation.
    Population {
        members: u64,
        /// How often the budget of the file is trained, one generation after the other.
        generations: u64,
        quantile: f64,
        resample_probability: f64,
        path: String,
    },
}

impl Pruning {
    fn path(&self) -> &str {
        match self {
            Self::Halving { path, .. }
            | Self::Median { path, .. }
            | Self::Population { path, .. } => path,
        }
    }
}

/// A searched or constant hyperparameter, and where it was read.
#[derive(Debug, Clone)]
pub(super) struct Searched {
    pub(super) spec: &'static HyperparameterSpec,
    pub(super) domain: Domain,
    pub(super) path: String,
    text: String,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    /// Whose share of the slots it uses.
    pub(super) project: Option<ProjectName>,
    pub(super) seed: Option<u64>,
    pub(super) space: Vec<Searched>,
    /// Whether there is a search at all.
    pub(super) is_search: bool,
    pub(super) metric: Option<ObjectiveMetric>,
    pub(super) mode: Option<Mode>,
    pub(super) sampler: String,
    pub(super) max_trials: Option<(u64, String)>,
    pub(super) max_concurrent: Option<u64>,
    pub(super) target: Option<f64>,
    pub(super) pruning: Option<Pruning>,
    pub(super) budget: Option<Length>,
    pub(super) slots: Option<u64>,
    pub(super) max_slots: Option<u64>,
    pub(super) max_restarts: Option<u64>,
    pub(super) every_steps: Option<u64>,
    pub(super) assumed: Vec<Remark>,
}

impl Draft {
    pub(super) fn assume(&mut self, path: &str, reason: impl Into<String>) {
        self.assumed.push(Remark { line: 0, path: path.to_owned(), reason: reason.into() });
    }

    /// Takes what names the experiment, and leaves out what has no place here, each with the reason.
    pub(super) fn take_head(&mut self, root: &Place<'_>, reasons: &[(&str, &str)]) {
        for (key, reason) in reasons {
            if let Some(place) = root.get(key) {
                place.leave_out(*reason);
            }
        }
        self.name = root.take_text("name").map(ToOwned::to_owned);
        self.project = root.take_text("project").and_then(ProjectName::of_user);
        self.description = root.take_text("description").map(ToOwned::to_owned);
    }

    /// Takes a hyperparameter under its foreign name, or says why not.
    pub(super) fn put(&mut self, name: &str, place: &Place<'_>, domain: Result<Domain, String>) {
        if names::is_epochs(name) {
            return self.put_epochs(place, domain);
        }
        let Some(spec) = names::hyperparameter(name) else {
            return place.leave_out("no hyperparameter of Muster is meant by it");
        };
        let written = domain.and_then(|domain| domain.text(spec).map(|text| (domain, text)));
        let (domain, text) = match written {
            Ok(written) => written,
            Err(reason) => return place.leave_out(reason),
        };
        if let Some(other) = self.space.iter().find(|other| other.spec.name == spec.name) {
            let reason = format!("{} is {} already", other.path, spec.name);
            return place.leave_out(reason);
        }
        place.used_if_scalar();
        self.space.push(Searched { spec, domain, path: place.path.clone(), text });
    }

    fn put_epochs(&mut self, place: &Place<'_>, domain: Result<Domain, String>) {
        let domain = match domain {
            Ok(domain) if (1e-6..=1e6).contains(&domain.max()) => domain,
            Ok(Domain::Words(_)) => return place.leave_out("it is no number of epochs"),
            Ok(domain) => {
                return place.leave_out(format!("{} epochs are no budget", shown(domain.max())));
            }
            Err(reason) => return place.leave_out(reason),
        };
        if self.budget.is_some() {
            return place.leave_out("the length of the training is known otherwise");
        }
        self.budget = Some(Length { unit: "epochs", amount: domain.max() });
        if domain.is_searched() {
            place.leave_out("the budget is one for all trials: it is the most epochs of these");
        } else {
            place.used_if_scalar();
        }
    }

    pub(super) fn put_metric(&mut self, place: Option<&Place<'_>>, mode: Option<Mode>) {
        self.mode = mode;
        let name = place.and_then(Place::text);
        self.metric = name.and_then(names::metric);
        match (place, self.metric) {
            (Some(place), Some(_)) => drop(place.clone().used()),
            (Some(place), None) => {
                place
                    .leave_out("Muster does not measure it; see `searcher.metric` in the manifest");
            }
            (None, _) => {}
        }
    }

    /// Resolves what depends on several keys; what does not fit together is left out.
    pub(super) fn settle(&mut self, reader: &Reader<'_>) {
        if self.budget.is_none() {
            self.budget = Some(Length { unit: "epochs", amount: 3.0 });
            self.assume("budget", "the file does not say how long a trial trains: 3 epochs");
        }
        self.settle_schedule(reader);
        let (smallest_batch, largest_batch) = self.batches();
        if let Some(budget) = &mut self.budget
            && budget.unit == "examples"
            && budget.amount < largest_batch
        {
            budget.amount = largest_batch;
            self.assume("budget", "a trial trains for one batch at least");
        }
        if self.slots.is_some_and(|slots| slots as f64 > smallest_batch) {
            self.slots = None;
            reader.leave_out("resources.slots_per_trial", "a batch has fewer examples than slots");
        }
        if !self.is_search {
            for searched in &self.space {
                if searched.domain.is_searched() {
                    let reason = "a single trial has no range to choose from";
                    reader.leave_out(&searched.path, reason);
                }
            }
            self.space.retain(|searched| !searched.domain.is_searched());
        } else if !self.space.iter().any(|searched| searched.domain.is_searched()) {
            self.is_search = false;
            self.assume("searcher", "nothing that Muster knows is searched: there is one trial");
            if let Some((_, path)) = self.max_trials.take() {
                reader.leave_out(&path, "there is one trial");
            }
            self.leave_out_pruning(reader, "there is one trial");
        }
        if self.is_search {
            self.settle_search(reader);
        }
    }

    /// A polynomial ends at a learning rate that is lower than those it begins at.
    fn settle_schedule(&mut self, reader: &Reader<'_>) {
        const END: f64 = 1e-7;
        let rate = self.space.iter().find(|searched| searched.spec.name == "learning_rate");
        let lowest = rate.map_or(f64::INFINITY, |rate| rate.domain.min());
        let falls = |searched: &Searched| {
            searched.spec.name == "schedule" && searched.text.contains("polynomial")
        };
        if lowest > END {
            return;
        }
        if let Some(place) = self.space.iter().position(falls) {
            let schedule = self.space.remove(place);
            let reason = "a polynomial ends at 1e-7, and the learning rate is lower";
            reader.leave_out(&schedule.path, reason);
        }
    }

    fn settle_search(&mut self, reader: &Reader<'_>) {
        self.settle_population(reader);
        let continuous = |searched: &Searched| searched.domain.is_continuous(searched.spec);
        let num_points: f64 =
            self.space.iter().map(|searched| searched.domain.num_points()).product();
        if self.sampler == "grid" && (self.space.iter().any(continuous) || num_points > 1e6) {
            "sobol".clone_into(&mut self.sampler);
            let why = "a grid does not go through continuous ranges, nor through a million points: `sobol`";
            self.assume("searcher.sampler", why);
        }
        if self.sampler == "grid" {
            if let Some((_, path)) = self.max_trials.take() {
                reader.leave_out(&path, "a grid tries all its points");
            }
        } else if self.max_trials.is_none() {
            self.max_trials = Some((16, String::new()));
            self.assume("searcher.max_trials", "the file has no number of trials: 16");
        }
        if self.metric.is_none() {
            let metric = match self.mode {
                Some(Mode::Max) => ObjectiveMetric::Accuracy,
                _ => ObjectiveMetric::Loss,
            };
            self.metric = Some(metric);
            let reason =
                format!("the file names no metric that Muster measures: `{}`", metric.name());
            self.assume("searcher.metric", reason);
            // A goal of another metric says nothing about this one.
            self.target = None;
            self.mode = None;
        }
        self.settle_pruning(reader);
    }

    /// A file's trials are generations, and its number of trials is that of all of them.
    fn settle_population(&mut self, reader: &Reader<'_>) {
        let Some(Pruning::Population { members, generations, path, .. }) = &self.pruning else {
            return;
        };
        let (members, generations, path) = (*members, *generations, path.clone());
        let changes = |searched: &Searched| {
            searched.domain.is_searched() && HyperparameterSpec::can_change(searched.spec.name)
        };
        if !self.space.iter().any(changes) {
            let reason = "nothing that is searched can change while a trial of Muster trains";
            return self.leave_out_pruning(reader, reason);
        }
        self.settle_half(reader);
        let one = self.budget.unwrap_or(Length { unit: "epochs", amount: 3.0 });
        let all = Length::legal(one.unit, one.amount * generations as f64);
        let fits = (2..=999).contains(&generations) && (2..=1_000_000).contains(&members);
        let Some(all) = all.filter(|_| fits) else {
            let reason = "a population needs 2 members or more, and 2 to 999 generations";
            return self.leave_out_pruning(reader, reason);
        };
        self.budget = Some(all);
        self.max_trials = Some((members, path));
        let each = written_length(one);
        let reason = format!("a trial of Katib is one generation, {each}: {generations} of them");
        self.assume("budget", reason);
    }

    /// Half precision remembers what a member of a population would have to change.
    fn settle_half(&mut self, reader: &Reader<'_>) {
        let decays = |searched: &Searched| {
            searched.spec.name == "layer_decay" && searched.domain.is_searched()
        };
        let is_half = |searched: &Searched| {
            let mut words = searched.text.split(|c: char| !c.is_ascii_alphanumeric());
            searched.spec.name == "precision" && words.any(|word| word == "float16")
        };
        if !self.space.iter().any(decays) {
            return;
        }
        if let Some(place) = self.space.iter().position(is_half) {
            let precision = self.space.remove(place);
            let reason =
                "with float16 a member of a population cannot go on with another layer_decay";
            reader.leave_out(&precision.path, reason);
        }
    }

    /// Leaves out what no trial is long enough for.
    fn settle_pruning(&mut self, reader: &Reader<'_>) {
        let amount = self.budget.map_or(0.0, |budget| budget.amount);
        let (_, largest_batch) = self.batches();
        let of_examples = self.budget.is_some_and(|budget| budget.unit == "examples");
        if let Some(Pruning::Halving { min_budget, .. }) = &mut self.pruning
            && of_examples
        {
            // A rung of examples is at least one step.
            *min_budget = min_budget.max(largest_batch);
        }
        let misfit = match &self.pruning {
            Some(Pruning::Halving { factor, min_budget, .. }) => {
                !(2..=1000).contains(factor)
                    || *min_budget < 1e-6
                    || min_budget * *factor as f64 > amount
            }
            Some(Pruning::Median { start, startup_trials, .. }) => {
                *start < 1.0 || *start >= amount || amount > 1000.0 || *startup_trials == 0
            }
            Some(Pruning::Population { .. }) | None => false,
        };
        if misfit {
            let budget = self.budget.map(written_length).unwrap_or_default();
            let reason = format!("trials of {budget} are too short for it to compare any");
            self.leave_out_pruning(reader, &reason);
        }
    }

    /// The smallest and the largest number of examples of a step.
    fn batches(&self) -> (f64, f64) {
        let batch = self.space.iter().find(|searched| searched.spec.name == "global_batch_size");
        batch.map_or((32.0, 32.0), |batch| (batch.domain.min(), batch.domain.max()))
    }

    fn leave_out_pruning(&mut self, reader: &Reader<'_>, reason: &str) {
        self.assumed.retain(|remark| remark.path != "searcher.pruner");
        if let Some(pruning) = self.pruning.take().filter(|pruning| !pruning.path().is_empty()) {
            reader.leave_out(pruning.path(), reason);
        }
    }

    /// The manifest.
    pub(super) fn text(&self, dialect: Dialect, known: &Known, left_out: &[Remark]) -> String {
        let mut text = format!("# Made from {dialect} by `muster import`.\n");
        for (title, remarks) in
            [("Not carried over", left_out), ("Assumed, please check", &self.assumed)]
        {
            if !remarks.is_empty() {
                text += &format!("#\n# {title}:\n");
                for remark in remarks {
                    text += &format!("#   {}\n", one_line(&remark.to_string()));
                }
            }
        }
        // Writing to a string does not fail.
        let _written = self.write_body(&mut text, known);
        text
    }

    fn write_body(&self, text: &mut String, known: &Known) -> std::fmt::Result {
        let place = |value: &Option<String>, hint: &str| match value {
            Some(value) => quoted(value),
            None => format!(" # FILL IN: {hint}"),
        };
        let name = self.legal_name();
        // What YAML takes for something else than a name.
        let name = if name == "null" { quoted(&name) } else { name };
        writeln!(text, "version: 1\nname: {name}")?;
        if let Some(description) = &self.description {
            writeln!(text, "description: {}", quoted(description))?;
        }
        if let Some(project) = &self.project {
            writeln!(text, "project: {project}")?;
        }
        if let Some(seed) = self.seed {
            writeln!(text, "seed: {seed}")?;
        }
        let model = place(
            &known.model,
            "a directory of a BERT, DistilBERT or RoBERTa, or its name on a hub",
        );
        let data = place(&known.data, "csv, tsv, jsonl or parquet");
        writeln!(text, "model:\n  pretrained: {}", model.trim_start())?;
        writeln!(text, "data:\n  train:\n    path: {}", data.trim_start())?;
        writeln!(text, "  validation: {{fraction: 0.1}} # or a file of its own: {{path: FILE}}")?;
        let column = |value: &Option<String>, default: &str| match value {
            Some(value) => quoted(value),
            None => format!("{default} # the name of the column"),
        };
        writeln!(text, "  text: {}", column(&known.text, "text"))?;
        writeln!(text, "  label:\n    column: {}", column(&known.label, "label"))?;
        if !self.space.is_empty() {
            writeln!(text, "hyperparameters:")?;
            for searched in &self.space {
                let comment = match searched.path.rsplit('.').next() {
                    Some(last) if last == searched.spec.name => String::new(),
                    _ => format!(" # {}", one_line(&searched.path)),
                };
                writeln!(text, "  {}: {}{comment}", searched.spec.name, searched.text)?;
            }
        }
        if self.is_search {
            self.write_searcher(text)?;
        }
        let budget = self.budget.map(written_length).unwrap_or_default();
        writeln!(text, "budget: {budget}")?;
        if let Some(every) = self.every_steps {
            writeln!(text, "checkpoint: {{every_steps: {every}}}")?;
        }
        let slots = self.slots.filter(|slots| *slots > 1).map(|slots| format!("slots: {slots}"));
        let most = self.max_slots.map(|most| format!("max_slots: {most}"));
        let resources: Vec<String> = slots.into_iter().chain(most).collect();
        if !resources.is_empty() {
            writeln!(text, "resources: {{{}}}", resources.join(", "))?;
        }
        match self.max_restarts {
            Some(restarts) => writeln!(text, "max_restarts: {restarts}"),
            None => Ok(()),
        }
    }

    fn write_searcher(&self, text: &mut String) -> std::fmt::Result {
        let metric = self.metric.unwrap_or(ObjectiveMetric::Loss);
        let mode = match self.mode.unwrap_or(metric.natural_mode()) {
            Mode::Max => "max",
            Mode::Min => "min",
        };
        writeln!(text, "searcher:\n  metric: {}\n  mode: {mode}", metric.name())?;
        writeln!(text, "  sampler: {}", self.sampler)?;
        if let Some((trials, _)) = &self.max_trials {
            writeln!(text, "  max_trials: {trials}")?;
        }
        if let Some(concurrent) = self.max_concurrent {
            writeln!(text, "  max_concurrent: {concurrent}")?;
        }
        if let Some(target) = self.target {
            writeln!(text, "  target: {}", shown(target))?;
        }
        let unit = self.budget.map_or("epochs", |budget| budget.unit);
        let length = |amount: f64| written_length(Length { unit, amount });
        match &self.pruning {
            None => Ok(()),
            Some(Pruning::Halving { kind, factor, min_budget, .. }) => writeln!(
                text,
                "  pruner: {{type: {kind}, reduction_factor: {factor}, min_budget: {}}}",
                length(*min_budget)
            ),
            Some(Pruning::Median { startup_trials, start, .. }) => writeln!(
                text,
                "  pruner: {{type: median, every: {}, min_budget: {}, startup_trials: {startup_trials}}}",
                length(1.0),
                length(*start)
            ),
            Some(Pruning::Population { generations, quantile, resample_probability, .. }) => {
                let amount = self.budget.map_or(0.0, |budget| budget.amount);
                writeln!(
                    text,
                    "  pruner: {{type: population, every: {}, quantile: {}, resample_probability: {}}}",
                    length(amount / *generations as f64),
                    shown(*quantile),
                    shown(*resample_probability)
                )
            }
        }
    }

    /// The name with what experiments may be called.
    fn legal_name(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default().to_lowercase();
        let legal = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        let name: String = name.chars().map(legal).collect();
        let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
        let name: String = parts.join("-").chars().take(NAME_BYTES_MAX).collect();
        let name = name.trim_end_matches('-');
        if name.is_empty() { "imported".to_owned() } else { name.to_owned() }
    }
}

fn written_length(length: Length) -> String {
    format!("{{{}: {}}}", length.unit, shown(length.amount))
}

/// Text as a double-quoted scalar, wherever it came from.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            other if other.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
