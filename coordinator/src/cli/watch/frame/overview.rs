//! The chosen experiment in a few lines.

use muster_common::count::counted;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::super::palette::Palette;
use super::super::state::State;
use crate::cli::number::clock;
use crate::cli::progress::{bar, counts, rungs, settings, state_name};
use crate::view::{ExperimentState, ExperimentView};

/// The block on large screens.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let block = Block::bordered().border_type(BorderType::Plain).border_style(palette.faint());
    let lines = match state.view() {
        Some(view) => lines(view, usize::from(area.width.saturating_sub(3)), palette),
        None => missing(state, palette),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// What small screens show of it: where it is, its trials, its best.
pub(super) fn short<'a>(state: &State, palette: Palette) -> Vec<Line<'a>> {
    let Some(view) = state.view() else { return missing(state, palette) };
    let mut lines = vec![headline(view, palette)];
    lines.push(named("trials", counts(view), palette));
    lines.extend(best(view, palette).into_iter().take(1));
    lines
}

fn missing<'a>(state: &State, palette: Palette) -> Vec<Line<'a>> {
    let text = match (state.experiment(), state.has_heard()) {
        (Some(id), true) => format!(" there is no experiment {id} here"),
        (_, false) => " ...".to_owned(),
        (None, true) => " no experiments yet; `muster submit MANIFEST` makes one".to_owned(),
    };
    vec![Line::from(Span::styled(text, palette.notice()))]
}

fn named<'a>(name: &str, text: String, palette: Palette) -> Line<'a> {
    Line::from(vec![Span::styled(format!(" {name:<8} "), palette.faint()), Span::raw(text)])
}

fn headline<'a>(view: &ExperimentView, palette: Palette) -> Line<'a> {
    let mut parts = vec![
        Span::styled(format!(" {}  ", view.id), Palette::title()),
        Span::styled(state_name(view), palette.experiment(view.state)),
        Span::raw(format!("  {}", clock(view.elapsed_seconds()))),
    ];
    if let Some(left) = view.seconds_left {
        parts.push(Span::raw(format!(", about {} left", clock(left))));
    }
    Line::from(parts)
}

/// At most this many lines say why it waits.
const REASON_LINES: usize = 2;

/// A text in lines of at most `width` characters, cut between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let longest = width.saturating_sub(1 + word.chars().count());
        match lines.last_mut().filter(|line| line.chars().count() <= longest) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn lines<'a>(view: &ExperimentView, width: usize, palette: Palette) -> Vec<Line<'a>> {
    let mut lines = vec![headline(view, palette)];
    if !view.reason.is_empty() {
        let reason = wrapped(&view.reason, width).into_iter().take(REASON_LINES);
        let line = |text: String| Line::from(Span::styled(format!(" {text}"), palette.notice()));
        lines.extend(reason.map(line));
    }
    if view.state == ExperimentState::Preparing {
        let done = f64::from(view.parts_done) / f64::from(view.num_parts.max(1));
        let text = format!("{} part {} of {}", bar(done), view.parts_done, view.num_parts);
        lines.push(named("data", text, palette));
    } else if let Some(data) = &view.data {
        let text = format!(
            "{} train, {} validation, {} test",
            data.num_train, data.num_validation, data.num_test
        );
        lines.push(named("data", text, palette));
    }
    if !view.trials.is_empty() {
        lines.push(named("trials", counts(view), palette));
        lines.push(named("rungs", rungs(view), palette));
    }
    lines.extend(best(view, palette));
    if let Some(last) = view.decisions.last() {
        let about = last.trial.as_ref().map(|trial| format!("t{} ", trial.number));
        lines.push(named("last", about.unwrap_or_default() + &last.text, palette));
    }
    lines
}

/// The best so far, and its hyperparameters.
fn best<'a>(view: &ExperimentView, palette: Palette) -> Vec<Line<'a>> {
    let Some(best) = &view.best else { return Vec::new() };
    let merit = view.goal.words(&view.goal.merit(&best.validation));
    let first = Line::from(vec![
        Span::styled(format!(" {:<8} ", "best"), palette.faint()),
        Span::styled(format!("t{}  {merit}", best.trial.number), palette.best()),
        Span::raw(format!(" after {}", counted(best.step, "step"))),
    ]);
    let trial = view.trials.iter().find(|trial| trial.id == best.trial);
    let with = trial.map(|trial| settings(&trial.assignment)).filter(|text| !text.is_empty());
    std::iter::once(first).chain(with.map(|text| named("", text, palette))).collect()
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_reasons_take_several_lines() {
        assert_eq!(wrapped("waiting for a slot", 12), ["waiting for", "a slot"]);
        assert_eq!(wrapped("a_word_that_is_long b", 5), ["a_word_that_is_long", "b"]);
        assert_eq!(wrapped("short", 40), ["short"]);
    }
}
