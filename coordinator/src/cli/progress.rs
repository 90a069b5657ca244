//! Live progress: a block that redraws itself on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use muster_common::count::counted;
use muster_common::manifest::Assignment;

use super::number::{clock, fit};
use crate::view::{ExperimentState, ExperimentView, TrialStateName, TrialView};

/// Pause between two status lines where nothing can be redrawn.
const PLAIN_EVERY: Duration = Duration::from_secs(15);
/// Width when the terminal does not say.
const WIDTH: usize = 100;
/// Trials drawn with a bar of their own.
const BARS_MAX: usize = 8;
const BAR_WIDTH: usize = 16;

/// Draws views one after the other.
pub(super) struct Progress {
    is_terminal: bool,
    drawn_lines: usize,
    decisions_shown: usize,
    plain_at: Option<Instant>,
}

impl Progress {
    /// A block that redraws itself where there is a terminal, lines elsewhere.
    pub(super) fn new() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    /// Lines everywhere.
    pub(super) fn plain() -> Self {
        Self::of(false)
    }

    fn of(is_terminal: bool) -> Self {
        Self { is_terminal, drawn_lines: 0, decisions_shown: 0, plain_at: None }
    }

    /// Shows a view.
    pub(super) fn draw(&mut self, view: &ExperimentView) {
        if self.is_terminal { self.redraw(view) } else { self.say(view) }
    }

    /// Leaves the last block where it is; what follows is written below.
    pub(super) fn finish(&mut self) {
        self.drawn_lines = 0;
    }

    fn redraw(&mut self, view: &ExperimentView) {
        let (width, height) = crossterm::terminal::size()
            .map_or((WIDTH, 24), |(width, height)| (usize::from(width), usize::from(height)));
        let mut lines = block(view);
        lines.truncate(height.saturating_sub(1).max(1));
        let mut text = String::new();
        if self.drawn_lines > 0 {
            text += &format!("\x1b[{}A", self.drawn_lines);
        }
        for line in &lines {
            text += &format!("\r\x1b[2K{}\n", fit(line, width.saturating_sub(1)));
        }
        text += "\x1b[J";
        self.drawn_lines = lines.len();
        emit(&text);
    }

    fn say(&mut self, view: &ExperimentView) {
        let mut text = String::new();
        for decision in view.decisions.iter().skip(self.decisions_shown) {
            let at = clock(decision.at.since(view.created_at).as_secs_f64());
            let about = decision
                .trial
                .as_ref()
                .map_or_else(|| view.id.to_string(), |trial| format!("t{}", trial.number));
            text += &format!("{at:>7}  {about:<4} {}\n", decision.text);
        }
        self.decisions_shown = view.decisions.len();
        let now = Instant::now();
        if self.plain_at.is_none_or(|at| now.duration_since(at) >= PLAIN_EVERY) {
            self.plain_at = Some(now);
            text += &format!("{:>7}  {}\n", clock(view.elapsed_seconds()), headline(view));
        }
        emit(&text);
    }
}

fn emit(text: &str) {
    // Progress that cannot be shown must not end the work.
    let mut stderr = std::io::stderr().lock();
    let _unseen = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

pub(super) fn state_name(view: &ExperimentView) -> &'static str {
    if view.paused && !view.state.is_ended() { "paused" } else { view.state.name() }
}

/// One line: what is going on.
fn headline(view: &ExperimentView) -> String {
    let mut text = format!("{}  {}", view.id, state_name(view));
    if !view.reason.is_empty() {
        text += &format!("  {}", view.reason);
    }
    match view.state {
        ExperimentState::Preparing => {
            text += &format!("  data, part {} of {}", view.parts_done, view.num_parts);
        }
        ExperimentState::Searching => {
            text += &format!("  {}", counts(view));
            text += &format!("  {:.0} examples/s", view.examples_per_second);
        }
        _ => {}
    }
    if let Some(left) = view.seconds_left {
        text += &format!("  about {} left", clock(left));
    }
    text
}

/// Trials by state, for people.
pub(super) fn counts(view: &ExperimentView) -> String {
    let shown = TrialStateName::ALL.into_iter().filter_map(|state| {
        let count = view.count(state);
        (count > 0).then(|| format!("{count} {}", state.name()))
    });
    let to_come = (view.max_trials as usize).saturating_sub(view.trials.len());
    let rest = (to_come > 0 && !view.state.is_ended()).then(|| format!("{to_come} to come"));
    shown.chain(rest).collect::<Vec<_>>().join(", ")
}

/// The whole block.
fn block(view: &ExperimentView) -> Vec<String> {
    let mut lines = Vec::new();
    let left = match view.seconds_left {
        Some(left) => format!(", about {} left", clock(left)),
        None => String::new(),
    };
    lines.push(format!(
        "{}  {}  {}{left}   {}, {:.0} examples/s",
        view.id,
        state_name(view),
        clock(view.elapsed_seconds()),
        counted(view.num_workers, "worker"),
        view.examples_per_second
    ));
    if !view.reason.is_empty() {
        lines.push(format!("  {}", view.reason));
    }
    if view.state == ExperimentState::Preparing {
        let done = f64::from(view.parts_done) / f64::from(view.num_parts.max(1));
        lines.push(format!(
            "  data     {} part {} of {}: tokenizing, activations of frozen layers",
            bar(done),
            view.parts_done,
            view.num_parts
        ));
    }
    if let Some(data) = &view.data {
        lines.push(format!(
            "  data     {} train, {} validation, {} test",
            data.num_train, data.num_validation, data.num_test
        ));
    }
    if !view.trials.is_empty() {
        lines.push(format!("  trials   {}", counts(view)));
        lines.push(format!("  rungs    {}", rungs(view)));
    }
    if let Some(best) = &view.best {
        let trial = view.trials.iter().find(|trial| trial.id == best.trial);
        lines.push(format!(
            "  best     t{}  {} after {}  {}",
            best.trial.number,
            view.goal.words(&view.goal.merit(&best.validation)),
            counted(best.step, "step"),
            trial.map_or_else(String::new, |trial| settings(&trial.assignment))
        ));
    }
    let running = view.trials.iter().filter(|trial| trial.state == TrialStateName::Running);
    lines.extend(running.take(BARS_MAX).map(running_line));
    let recent = view.decisions.iter().rev().find(|decision| decision.trial.is_some());
    if let Some((decision, trial)) = recent.and_then(|d| d.trial.as_ref().map(|trial| (d, trial))) {
        lines.push(format!("  last     t{} {}", trial.number, decision.text));
    }
    lines
}

fn running_line(trial: &TrialView) -> String {
    let done = trial.step as f64 / trial.target_step.max(1) as f64;
    let loss = trial.last_loss.map_or_else(String::new, |loss| format!("  loss {loss:.3}"));
    let slots = match trial.ranks.len() {
        0 | 1 => String::new(),
        count => format!("  {count} slots"),
    };
    format!(
        "  t{:<7} {} step {} of {}{loss}{slots}  {:.0} examples/s  {}",
        trial.id.number,
        bar(done),
        trial.step,
        trial.target_step,
        trial.examples_per_second,
        settings(&trial.assignment)
    )
}

/// Results per rung, lowest first: how the field narrows.
pub(super) fn rungs(view: &ExperimentView) -> String {
    let passed =
        |rung: usize| view.trials.iter().filter(|trial| trial.rungs_passed as usize > rung).count();
    let shown =
        view.rungs.iter().enumerate().map(|(rung, name)| format!("{name}: {}", passed(rung)));
    shown.collect::<Vec<_>>().join("   ")
}

/// Hyperparameters on one line.
pub(super) fn settings(assignment: &Assignment) -> String {
    let shown = assignment.iter().map(|(name, value)| format!("{name} {value}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// A bar for a share of 0 to 1.
pub(super) fn bar(done: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 0 to 1 of a few characters"
    )]
    let full = (done.clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR_WIDTH.saturating_sub(full)))
}
