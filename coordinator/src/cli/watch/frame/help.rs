//! The page of keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph};

use super::super::key::KEYS;
use super::super::palette::Palette;

/// Draws it over what is there.
pub(super) fn draw(frame: &mut Frame, area: Rect, palette: Palette) {
    let names = KEYS.iter().map(|(keys, _)| keys.chars().count()).max().unwrap_or(0);
    let lines: Vec<Line> = KEYS
        .iter()
        .map(|(keys, what)| {
            Line::from(vec![
                Span::styled(format!(" {keys:<names$}  "), palette.focus()),
                Span::raw(*what),
            ])
        })
        .collect();
    let longest = KEYS.iter().map(|(_, what)| what.chars().count()).max().unwrap_or(0);
    let width = u16::try_from(names + longest + 6).unwrap_or(u16::MAX);
    let height = u16::try_from(KEYS.len() + 2).unwrap_or(u16::MAX);
    let page = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered()
        .border_type(BorderType::Thick)
        .border_style(palette.focus())
        .title(Span::styled(" Keys ", Palette::title()));
    frame.render_widget(Clear, page);
    frame.render_widget(Paragraph::new(lines).block(block), page);
}
