//! What the full-screen view shows and what its user has chosen. Pure: keys and news in, a new state out.

use std::collections::{BTreeMap, VecDeque};

use muster_common::id::{ExperimentId, TrialId};

use super::filter::Filter;
use crate::view::{ExperimentView, SlotView, TrialView};

/// Log lines that are kept.
const LOG_LINES_MAX: usize = 2000;

/// A part of the screen that keys can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Experiments,
    Trials,
    Curve,
    Slots,
    Log,
}

impl Pane {
    pub(super) const ALL: [Self; 5] =
        [Self::Experiments, Self::Trials, Self::Curve, Self::Slots, Self::Log];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Experiments => "Experiments",
            Self::Trials => "Trials",
            Self::Curve => "Curve",
            Self::Slots => "Slots",
            Self::Log => "Log",
        }
    }

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0)
    }
}

/// Values of one metric of a trial, by step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) metric: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Something new from the coordinator.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// Every experiment.
    Experiments(Vec<ExperimentView>),
    /// The chosen one, more often.
    Experiment(Box<ExperimentView>),
    /// Every slot.
    Slots(Vec<SlotView>),
    /// Everything that a trial has measured.
    Curves(TrialId, Vec<Series>),
    /// The log of an experiment is read from here on.
    LogBegins(ExperimentId),
    /// Further log lines of an experiment.
    Lines(ExperimentId, Vec<String>),
    /// It answers.
    Reached,
    /// It does not, and why.
    Lost(String),
}

/// What has to be asked for beyond the list of experiments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) experiment: Option<ExperimentId>,
    /// The trials whose curves are drawn.
    pub(super) trials: Vec<TrialId>,
}

/// The state.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The coordinator's address.
    pub(super) address: String,
    /// Newest first.
    pub(super) experiments: Vec<ExperimentView>,
    /// Absent until something was heard.
    slots: Option<Vec<SlotView>>,
    pub(super) curves: BTreeMap<TrialId, Vec<Series>>,
    /// Lines of the chosen experiment, oldest first.
    pub(super) log: VecDeque<String>,
    /// Why nothing new comes.
    pub(super) trouble: Option<String>,
    pub(super) pane: Pane,
    /// The pane has the whole screen.
    pub(super) is_zoomed: bool,
    pub(super) shows_help: bool,
    /// The log shows the chosen trial only.
    pub(super) only_trial: bool,
    /// Lines between the end of the log and the last one shown; 0: it follows.
    pub(super) scrolled_back: usize,
    pub(super) slot: usize,
    pub(super) filter: Filter,
    experiment: Option<ExperimentId>,
    trial: Option<TrialId>,
    metric: Option<String>,
}

impl State {
    /// Before anything was heard; `wanted` is chosen as soon as it is there.
    pub(super) fn new(address: String, wanted: Option<ExperimentId>) -> Self {
        let pane = if wanted.is_some() { Pane::Trials } else { Pane::Experiments };
        Self {
            address,
            experiments: Vec::new(),
            slots: None,
            curves: BTreeMap::new(),
            log: VecDeque::new(),
            trouble: None,
            pane,
            is_zoomed: false,
            shows_help: false,
            only_trial: false,
            scrolled_back: 0,
            slot: 0,
            filter: Filter::default(),
            experiment: wanted,
            trial: None,
            metric: None,
        }
    }

    /// Takes in what is new.
    pub(super) fn receive(&mut self, news: News) {
        match news {
            News::Experiments(mut views) => {
                views.reverse();
                self.experiments = views;
                if self.experiment.is_none() {
                    self.experiment = self.experiments.first().map(|view| view.id.clone());
                }
            }
            News::Experiment(view) => {
                match self.experiments.iter_mut().find(|known| known.id == view.id) {
                    Some(known) => *known = *view,
                    None => self.experiments.insert(0, *view),
                }
            }
            News::Slots(slots) => {
                self.slot = self.slot.min(slots.len().saturating_sub(1));
                self.slots = Some(slots);
            }
            News::Curves(trial, series) => {
                self.curves.insert(trial, series);
            }
            News::LogBegins(experiment) => {
                if self.experiment.as_ref() == Some(&experiment) {
                    self.log.clear();
                    self.scrolled_back = 0;
                }
            }
            News::Lines(experiment, lines) => {
                if self.experiment.as_ref() == Some(&experiment) {
                    self.add_lines(lines);
                }
            }
            News::Reached => self.trouble = None,
            News::Lost(why) => self.trouble = Some(why),
        }
        let wish = self.wish();
        self.curves.retain(|trial, _| wish.trials.contains(trial));
    }

    fn add_lines(&mut self, lines: Vec<String>) {
        if self.scrolled_back > 0 {
            // Who reads further up keeps what is read in place.
            let beginning = self.beginning();
            let fresh = lines.iter().filter(|line| self.shows_line(line, &beginning)).count();
            self.scrolled_back += fresh;
        }
        self.log.extend(lines);
        let surplus = self.log.len().saturating_sub(LOG_LINES_MAX);
        self.log.drain(..surplus);
        self.scrolled_back = self.scrolled_back.min(self.lines().len().saturating_sub(1));
    }

    /// What the screen needs.
    pub(super) fn wish(&self) -> Wish {
        let best = self.view().and_then(|view| view.best.as_ref()).map(|best| best.trial.clone());
        let chosen = self.trial().map(|trial| trial.id.clone());
        let mut trials: Vec<TrialId> = chosen.into_iter().collect();
        trials.extend(best.filter(|best| !trials.contains(best)));
        Wish { experiment: self.experiment.clone(), trials }
    }

    /// Something was heard at least once.
    pub(super) fn has_heard(&self) -> bool {
        self.slots.is_some()
    }

    /// Every slot.
    pub(super) fn slots(&self) -> &[SlotView] {
        self.slots.as_deref().unwrap_or_default()
    }

    /// The chosen experiment.
    pub(super) fn view(&self) -> Option<&ExperimentView> {
        let chosen = self.experiment.as_ref()?;
        self.experiments.iter().find(|view| view.id == *chosen)
    }

    /// The id of the chosen experiment, which may not be there yet.
    pub(super) fn experiment(&self) -> Option<&ExperimentId> {
        self.experiment.as_ref()
    }

    /// Experiments that the filter lets through.
    pub(super) fn experiments(&self) -> Vec<&ExperimentView> {
        let shown = |view: &&ExperimentView| {
            self.filter.lets(Pane::Experiments, &format!("{} {}", view.id, view.state.name()))
        };
        self.experiments.iter().filter(shown).collect()
    }

    /// Trials of the chosen experiment that the filter lets through, best first, each with its place.
    pub(super) fn trials(&self) -> Vec<(usize, &TrialView)> {
        let Some(view) = self.view() else { return Vec::new() };
        let ranked = view.ranked().into_iter().enumerate();
        ranked.filter(|(_, trial)| self.filter.lets(Pane::Trials, &words(trial))).collect()
    }

    /// The chosen trial; without a choice one that runs, else the best.
    pub(super) fn trial(&self) -> Option<&TrialView> {
        let view = self.view()?;
        let chosen = self.trial.as_ref();
        let found = chosen.and_then(|id| view.trials.iter().find(|trial| trial.id == *id));
        let running = || view.trials.iter().find(|trial| !trial.ranks.is_empty());
        found.or_else(running).or_else(|| view.ranked().first().copied())
    }

    /// Log lines that are shown, oldest first.
    pub(super) fn lines(&self) -> Vec<&str> {
        let beginning = self.beginning();
        let lines = self.log.iter().map(String::as_str);
        lines.filter(|line| self.shows_line(line, &beginning)).collect()
    }

    /// What the lines of the chosen trial begin with, where only these are shown.
    fn beginning(&self) -> String {
        let trial = self.trial().filter(|_| self.only_trial);
        trial.map_or_else(String::new, |trial| format!("t{} ", trial.id.number))
    }

    fn shows_line(&self, line: &str, beginning: &str) -> bool {
        line.starts_with(beginning) && self.filter.lets(Pane::Log, line)
    }

    /// Names of what was measured by the trials that are drawn.
    pub(super) fn metrics(&self) -> Vec<&str> {
        let names = self.curves.values().flatten().map(|series| series.metric.as_str());
        let mut names: Vec<&str> = names.collect();
        // What is looked at most comes first.
        let rank = |name: &str| match name {
            "train_loss" => 0,
            name if name.starts_with("validation_") => 1,
            _ => 2,
        };
        names.sort_unstable_by_key(|name| (rank(name), *name));
        names.dedup();
        names
    }

    /// The metric that is drawn: the chosen one; else the objective, once it is a curve; else the training loss.
    pub(super) fn metric(&self) -> String {
        if let Some(chosen) = &self.metric {
            return chosen.clone();
        }
        let objective = self.view().map(|view| view.goal.objective.metric.name());
        let objective = objective.map(|name| format!("validation_{name}"));
        let mut all = self.curves.values().flatten();
        let is_curve =
            |name: &String| all.any(|series| series.metric == *name && series.points.len() > 2);
        objective.filter(is_curve).unwrap_or_else(|| "train_loss".to_owned())
    }

    /// What of a trial is drawn.
    pub(super) fn points(&self, trial: &TrialId) -> &[(f64, f64)] {
        let metric = self.metric();
        let series = self.curves.get(trial).into_iter().flatten();
        let mut found = series.filter(|series| series.metric == metric);
        found.next().map(|series| series.points.as_slice()).unwrap_or_default()
    }

    /// Draws the next metric.
    pub(super) fn next_metric(&mut self) {
        let now = self.metric();
        let names = self.metrics();
        let place = names.iter().position(|name| *name == now).map_or(0, |place| place + 1);
        let next = names.get(place).or_else(|| names.first()).map(|name| (*name).to_owned());
        self.metric = next.or(self.metric.take());
    }

    /// Moves what is chosen in the pane that has the keys; `by` counts rows.
    pub(super) fn step(&mut self, by: isize) {
        match self.pane {
            Pane::Experiments => {
                let ids: Vec<ExperimentId> =
                    self.experiments().iter().map(|view| view.id.clone()).collect();
                let now = ids.iter().position(|id| Some(id) == self.experiment.as_ref());
                if let Some(id) = moved(now, by, ids.len()).and_then(|place| ids.get(place)) {
                    self.choose(id.clone());
                }
            }
            Pane::Trials | Pane::Curve => {
                let ids: Vec<TrialId> =
                    self.trials().iter().map(|(_, trial)| trial.id.clone()).collect();
                let now = self.trial().and_then(|trial| ids.iter().position(|id| *id == trial.id));
                if let Some(id) = moved(now, by, ids.len()).and_then(|place| ids.get(place)) {
                    self.trial = Some(id.clone());
                }
            }
            Pane::Slots => {
                let place = moved(Some(self.slot), by, self.slots().len());
                self.slot = place.unwrap_or(0);
            }
            Pane::Log => {
                let most = self.lines().len().saturating_sub(1);
                self.scrolled_back = self.scrolled_back.saturating_add_signed(-by).min(most);
            }
        }
    }

    fn choose(&mut self, experiment: ExperimentId) {
        if self.experiment.as_ref() != Some(&experiment) {
            self.experiment = Some(experiment);
            self.trial = None;
            self.log.clear();
            self.scrolled_back = 0;
        }
    }
}

/// What a filter looks at.
fn words(trial: &TrialView) -> String {
    let mut text = format!("t{} {} {}", trial.id.number, trial.state.name(), trial.reason);
    for (name, value) in &trial.assignment {
        text += &format!(" {name}={value}");
    }
    text
}

/// A place `by` rows away among `count`; what was not there begins at the first row.
fn moved(now: Option<usize>, by: isize, count: usize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    Some(now.map_or(0, |now| now.saturating_add_signed(by).min(last)))
}
