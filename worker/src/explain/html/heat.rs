//! Tables whose cells are as strong as their values, and the data of attention maps.

use std::fmt::Write as _;

use serde_json::json;

use super::super::attention::HeadSummary;
use super::{escape, signed};

/// Tokens on a side of an attention map; of longer texts it shows the first.
const MAP_TOKENS: usize = 96;
/// Signs for 64 shades.
const SHADES: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

/// Named rows over columns; colours go from the strongest value of the table, and who does not see them has numbers.
pub(super) fn table(title: &str, columns: &[String], rows: &[(String, Vec<f64>)]) -> String {
    let strongest = rows.iter().flat_map(|(_, values)| values);
    let strongest = strongest.fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let mut out =
        format!("{}<table class=\"heat\">{}<thead><tr><td></td>", scroll(title), caption(title));
    for column in columns {
        let _ = write!(out, "<th scope=\"col\"><span>{}</span></th>", escape(column));
    }
    out.push_str("</tr></thead><tbody>");
    for (name, values) in rows {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        for (value, column) in values.iter().zip(columns) {
            let (class, share) = signed(*value, strongest);
            let _ = write!(
                out,
                "<td class=\"{class}\" style=\"--v:{share:.3}\" title=\"{}: {value:+.4}\">\
                 <span class=\"hidden\">{value:+.4}</span></td>",
                escape(column),
            );
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// The beginning of a part that may be wider than the page, and is moved by keys then.
fn scroll(title: &str) -> String {
    let title = escape(title);
    format!("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">")
}

fn caption(title: &str) -> String {
    format!("<caption>{}</caption>", escape(title))
}

/// What one grid shows: its title, and the value of a head.
type Measure = (&'static str, fn(&HeadSummary) -> f64);

/// Four grids of layers and heads.
pub(super) fn heads(layers: &[Vec<HeadSummary>]) -> String {
    const MEASURES: [Measure; 4] = [
        ("entropy (nats)", |head| head.entropy),
        ("mean distance (tokens)", |head| head.distance),
        ("share on the first token", |head| head.first_share),
        ("share on separators", |head| head.separator_share),
    ];
    let mut out = "<div class=\"grids\">".to_owned();
    for (title, measure) in MEASURES {
        let strongest = layers.iter().flatten().map(measure).fold(f64::MIN_POSITIVE, f64::max);
        let _ = write!(
            out,
            "<figure><figcaption>{title}</figcaption>{}<table class=\"heat grid\">{}<thead class=\"hidden\"><tr>\
             <th scope=\"col\">layer</th>",
            scroll(title),
            caption(title),
        );
        for head in 1..=layers.iter().map(Vec::len).max().unwrap_or(0) {
            let _ = write!(out, "<th scope=\"col\">head {head}</th>");
        }
        out.push_str("</tr></thead><tbody>");
        for (number, heads) in layers.iter().enumerate() {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", number + 1);
            for (head, summary) in heads.iter().enumerate() {
                let value = measure(summary);
                let (class, share) = signed(value, strongest);
                let _ = write!(
                    out,
                    "<td class=\"{class}\" style=\"--v:{share:.3}\" title=\"layer {}, head {}: {value:.3}\">{}</td>",
                    number + 1,
                    head + 1,
                    brief(value),
                );
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div></figure>");
    }
    out.push_str("</div>");
    out
}

/// Two digits or so.
fn brief(value: f64) -> String {
    if value >= 10.0 {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}").trim_start_matches('0').to_owned()
    }
}

/// Data of the maps of every layer and head, and where the page's script draws them. One sign per share, by its
/// root, so that small ones are seen; exact shares are in the JSON.
pub(super) fn attention(tokens: &[String], layers: &[Vec<Vec<Vec<f32>>>], number: usize) -> String {
    let length = tokens.len().min(MAP_TOKENS);
    let mut cells = String::new();
    for head in layers.iter().flatten() {
        for row in head.iter().take(length) {
            cells.extend(row.iter().take(length).map(|share| shade(*share)));
        }
    }
    let shown: Vec<&String> = tokens.iter().take(length).collect();
    let num_heads = layers.first().map_or(0, Vec::len);
    let data = json!({"tokens": shown, "layers": layers.len(), "heads": num_heads, "cells": cells});
    // The end of the element must not stand in a token.
    let data = data.to_string().replace('<', "\\u003c");
    let note = if tokens.len() > length {
        format!("<p class=\"note\">The first {length} of {} tokens.</p>", tokens.len())
    } else {
        String::new()
    };
    format!(
        "<p class=\"note\">Rows ask, columns answer; the stronger the colour, the more. Choose a map to see it with \
         its tokens; arrow keys go from map to map.</p>{note}\
         <script type=\"application/json\" id=\"attention{number}\">{data}</script>\
         <div class=\"maps\" data-source=\"attention{number}\"><noscript>Attention is drawn by a script, which is off \
         here; its numbers are in the JSON.</noscript></div>"
    )
}

fn shade(share: f32) -> char {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 63")]
    let index = (share.clamp(0.0, 1.0).sqrt() * 63.0).round() as usize;
    SHADES.get(index).map_or('A', |sign| char::from(*sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_go_from_nothing_to_all() {
        assert_eq!((shade(0.0), shade(1.0), shade(0.25)), ('A', '-', 'g'));
        assert_eq!(shade(f32::NAN), 'A');
    }

    #[test]
    fn long_texts_show_their_beginning() {
        let tokens: Vec<String> = (0..100).map(|number| format!("t{number}")).collect();
        let row = vec![0.01f32; 100];
        let layers = vec![vec![vec![row; 100]]];
        let map = attention(&tokens, &layers, 3);
        assert!(
            map.contains("first 96 of 100") && map.contains("attention3") && !map.contains("t96")
        );
    }
}
