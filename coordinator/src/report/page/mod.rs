//! A report as one HTML file: style, words, tables, the charting library and what it draws are all in it. Nothing is
//! fetched, so it opens from a disk, without a network, years from now. Without scripts the pictures are missing and
//! everything else is there.

mod colored;
mod course;
mod element;
mod quality;

use muster_common::colours::COLOURS;
use serde_json::json;

use super::{Report, ReportError, Score};
use crate::dashboard::{ECHARTS, ECHARTS_LICENSES};
use element::{duration, escape, number_or_none, percent, words};

const STYLE: &str = include_str!("../client/report.css");
const SCRIPT: &str = include_str!("../client/report.js");

/// The page, UTF-8.
pub fn render(report: &Report) -> Result<String, ReportError> {
    let sections = [
        Some(course::card(report)),
        course::learning(report),
        course::ranking(report),
        course::importance(report),
        quality::scores(report),
        quality::curves(report),
        quality::calibration(report),
        quality::lengths(report),
        quality::comparison(report),
        quality::mistakes(report),
        course::manifest(report),
    ];
    let sections: Vec<(&str, &str, String)> = sections.into_iter().flatten().collect();
    let links = sections.iter().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>"));
    let links = links.collect::<Vec<String>>().concat();
    let content: String =
        sections.iter().map(|(id, title, content)| element::section(id, title, content)).collect();
    let title = escape(report.card.trial.as_ref().unwrap_or(&report.card.experiment));
    let data = drawn(report)?;
    let (library, licenses) = (in_script(&library()), in_script(&ECHARTS_LICENSES.join("\n\n")));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <title>{title}: report</title>\n<style>{COLOURS}{STYLE}</style>\
         <noscript><style>.canvas{{display:none}}</style></noscript></head>\n\
         <body><a class=\"skip\" href=\"#page\">To the report</a>\n<header>{head}\
         <nav aria-label=\"Parts of the report\">{links}</nav></header>\n\
         <main id=\"page\">{content}</main>\n<footer>{foot}</footer>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script type=\"text/plain\" id=\"licenses\">{licenses}</script>\n\
         <script type=\"module\">{library}</script>\n<script type=\"module\">{SCRIPT}</script>\n\
         </body></html>\n",
        head = head(report),
        foot = escape(&format!(
            "Made by Muster {}. Charts by Apache ECharts; its licences are in this file.",
            report.card.muster_version
        )),
    ))
}

/// What the script draws, as JSON; the rest of a report stands in the page as words and would be in it twice.
fn drawn(report: &Report) -> Result<String, ReportError> {
    let of = |score: &Score| {
        let is_drawn = score.confusion.len() <= quality::CLASSES_MAX;
        is_drawn.then(|| json!({"labels": score.labels, "confusion": score.confusion}))
    };
    let behavior = report.behavior.as_ref();
    let drawn = json!({
        "learning": report.learning,
        "importance": report.importance,
        "test": report.test.as_ref().and_then(of),
        "validation": report.validation.as_ref().and_then(of),
        "behavior": behavior.map(|behavior| json!({
            "classes": behavior.classes,
            "calibration": behavior.calibration,
            "lengths": behavior.lengths,
        })),
    });
    let text = serde_json::to_string(&drawn);
    let text = text.map_err(|error| ReportError::Json { reason: error.to_string() })?;
    // In JSON it stands in strings alone, and there it can be written so that it begins no markup.
    Ok(text.replace('<', "\\u003c"))
}

/// Text that ends no script element and begins no comment in one. In strings of scripts it stands for the same, and
/// the library has it nowhere else.
fn in_script(text: &str) -> String {
    text.replace("</", "<\\/").replace("<!--", "<\\!--")
}

/// The library, with what it exports at a place where the other script finds it.
fn library() -> String {
    let Some((code, exports)) = ECHARTS.rsplit_once("export{") else { return ECHARTS.to_owned() };
    let names = exports.trim_end().trim_end_matches("};").trim_end_matches('}').split(',');
    let renamed = names.filter_map(|name| name.split_once(" as "));
    let fields: Vec<String> = renamed.map(|(own, name)| format!("{name}:{own}")).collect();
    format!("{code}globalThis.echarts={{{}}};", fields.join(","))
}

/// Title, state and the figures that people look for first.
fn head(report: &Report) -> String {
    let card = &report.card;
    let title = escape(card.trial.as_ref().unwrap_or(&card.experiment));
    let mut tiles = vec![("State", card.state.clone())];
    let goal = card.goal.first().cloned().unwrap_or_default();
    let goal_words = goal.split_once(' ').map_or(String::new(), |(_, metric)| words(metric));
    if let Some(chosen) = &card.chosen {
        tiles.push(("Best trial", chosen.trial.rsplit('/').next().unwrap_or_default().to_owned()));
        let what = number_or_none(chosen.objective);
        tiles.push(("On the validation split", format!("{goal_words} {what}")));
    }
    if let Some(test) = &report.test {
        if let Some(accuracy) = test.scores.get("accuracy") {
            let ends = test.intervals_95.get("accuracy");
            let sure =
                ends.map(|[low, high]| format!(" ({} to {})", percent(*low), percent(*high)));
            let text = percent(*accuracy) + &sure.unwrap_or_default();
            tiles.push(("Accuracy on the test split, 95 % interval", text));
        } else if let Some(loss) = test.scores.get("loss") {
            tiles.push(("Loss on the test split", element::number(*loss)));
        }
    }
    let num_trials: usize = card.trials.values().sum();
    tiles.push(("Trials", num_trials.to_string()));
    tiles.push(("Wall time", duration(card.wall_seconds)));
    if let Some(hours) = card.slot_hours {
        tiles.push(("Cost", format!("{hours:.2} slot hours")));
    }
    let text = if card.description.is_empty() {
        String::new()
    } else {
        element::paragraph(&card.description)
    };
    format!("<h1>{title}</h1>{text}{}", element::tiles(&tiles))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_by_the_script() {
        let library = library();
        assert!(library.len() > 100_000);
        assert!(library.contains("globalThis.echarts={") && library.contains("init:"));
        assert!(!library.contains("export{"), "a script that exports is no module of a page");
        assert_eq!(in_script("</script><!-- x"), "<\\/script><\\!-- x");
    }
}
