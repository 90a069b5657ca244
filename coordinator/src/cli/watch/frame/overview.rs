//! The chosen experiment in a few lines.

use muster_common::count::counted;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::super::palette::Palette;
use super::super::state::State;
use crate::cli::number::{clock, fit};
use crate::cli::progress::{bar, counts, rungs, settings, state_name};
use crate::view::{ExperimentState, ExperimentView};

/// The block on large screens.
pub(super) fn draw(frame: &mut Frame, area: Rect, state: &State, palette: Palette) {
    let block = Block::bordered().border_type(BorderType::Plain).border_style(palette.faint());
    let lines = match state.view() {
        Some(view) => {
            let [width, height] = [area.width.saturating_sub(3), area.height.saturating_sub(2)];
            fitting(view, usize::from(width), usize::from(height), palette)
        }
        None => missing(state, palette),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// What small screens show of it: where it is, its trials, its best.
pub(super) fn short<'a>(state: &State, palette: Palette) -> Vec<Line<'a>> {
    let Some(view) = state.view() else { return missing(state, palette) };
    let mut lines = vec![headline(view, palette)];
    lines.push(named("trials", counts(view), palette));
    lines.extend(best(view, usize::MAX, 1, palette).into_iter().take(1));
    lines
}

/// Long lines take two where the block has room for that; else their end is left out.
fn fitting<'a>(
    view: &ExperimentView,
    width: usize,
    height: usize,
    palette: Palette,
) -> Vec<Line<'a>> {
    let whole = lines(view, width, 2, palette);
    if whole.len() <= height { whole } else { lines(view, width, 1, palette) }
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

/// Characters in front of what [`named`] names.
const NAME_WIDTH: usize = 10;

/// A text of parts in at most so many lines, the first of which is named.
fn named_lines<'a>(
    name: &str,
    parts: &[&str],
    between: &str,
    (width, num_lines): (usize, usize),
    palette: Palette,
) -> Vec<Line<'a>> {
    let width = width.saturating_sub(NAME_WIDTH);
    let mut lines = filled(parts, between, width);
    if lines.len() > num_lines {
        lines.truncate(num_lines);
        if let Some(last) = lines.last_mut() {
            *last = fit(&format!("{last} …"), width);
        }
    }
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(lines).map(|(name, text)| named(name, fit(&text, width), palette)).collect()
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
    filled(&text.split(' ').collect::<Vec<_>>(), " ", width)
}

/// Parts in lines of at most `width` characters, none of them in two.
fn filled(parts: &[&str], between: &str, width: usize) -> Vec<String> {
    let length = |text: &str| text.chars().count();
    let mut lines: Vec<String> = Vec::new();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate() {
        // What stands between it and the next one stays on its line.
        let end = if index < last { between.trim_end() } else { "" };
        let longest = width.saturating_sub(1 + length(part) + length(end));
        match lines.last_mut().filter(|line| length(line) <= longest) {
            Some(line) => *line += &format!(" {part}{end}"),
            None => lines.push(format!("{part}{end}")),
        }
    }
    lines
}

/// Everything; what is long has at most so many lines.
fn lines<'a>(
    view: &ExperimentView,
    width: usize,
    num_lines: usize,
    palette: Palette,
) -> Vec<Line<'a>> {
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
    lines.extend(best(view, width, num_lines, palette));
    if let Some(last) = view.decisions.last() {
        let about = last.trial.as_ref().map(|trial| format!("t{} ", trial.number));
        let text = about.unwrap_or_default() + &last.text;
        let words: Vec<&str> = text.split(' ').collect();
        lines.extend(named_lines("last", &words, " ", (width, num_lines), palette));
    }
    lines
}

/// The best so far, and its hyperparameters in at most so many lines.
fn best<'a>(
    view: &ExperimentView,
    width: usize,
    num_lines: usize,
    palette: Palette,
) -> Vec<Line<'a>> {
    let Some(best) = &view.best else { return Vec::new() };
    let merit = view.goal.words(&view.goal.merit(&best.validation));
    let first = Line::from(vec![
        Span::styled(format!(" {:<8} ", "best"), palette.faint()),
        Span::styled(format!("t{}  {merit}", best.trial.number), palette.best()),
        Span::raw(format!(" after {}", counted(best.step, "step"))),
    ]);
    let trial = view.trials.iter().find(|trial| trial.id == best.trial);
    let with = trial.map(|trial| settings(&trial.assignment)).unwrap_or_default();
    let parts: Vec<&str> = with.split(", ").filter(|part| !part.is_empty()).collect();
    let with = named_lines("", &parts, ", ", (width, num_lines), palette);
    std::iter::once(first).chain(with).collect()
}

#[cfg(test)]
mod tests {
    use super::{Palette, filled, named_lines, wrapped};

    #[test]
    fn settings_are_cut_between_each_other() {
        let parts = ["dropout 0.1", "learning_rate 1e-4", "weight_decay 0.01"];
        let lines = ["dropout 0.1, learning_rate 1e-4,", "weight_decay 0.01"];
        assert_eq!(filled(&parts, ", ", 32), lines);
        let drawn = |num_lines| {
            let lines = named_lines("best", &parts, ", ", (42, num_lines), Palette::None);
            lines.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            drawn(2),
            [" best     dropout 0.1, learning_rate 1e-4,", "          weight_decay 0.01"]
        );
        assert_eq!(drawn(1), [" best     dropout 0.1, learning_rate 1e-4…"]);
    }

    #[test]
    fn long_reasons_take_several_lines() {
        assert_eq!(wrapped("waiting for a slot", 12), ["waiting for", "a slot"]);
        assert_eq!(wrapped("a_word_that_is_long b", 5), ["a_word_that_is_long", "b"]);
        assert_eq!(wrapped("short", 40), ["short"]);
    }
}
