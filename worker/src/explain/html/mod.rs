//! Explanations as one page: no other file, no other host, readable by day and by night, and without a mouse.
//! Its colours are those of all pages; how it looks and draws is in `page.css` and `page.js`, which are put into the
//! page. Attention is drawn by the latter, everything else is there without it.

mod chart;
mod heat;

use std::fmt::Write as _;

use muster_common::colours::COLOURS;
use muster_common::count::counted;

use super::curve::Faithfulness;
use super::record::{Importance, LayerRecord, Report, SplitExplanation, TextExplanation};
use super::words::Word;
use chart::{Line, line_chart};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Signs of the title that are taken from the text.
const TITLE_CHARS: usize = 60;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut body = String::new();
    let model = &report.model;
    let settings = &report.settings;
    let _ = write!(
        body,
        "<header><h1>Why {} says what it says</h1><p>{}, {} of {}, classes {}. Integrals have {} points; \
         an absent word is {}.</p></header>",
        escape(&model.name),
        escape(&model.family),
        counted(model.num_layers, "layer"),
        counted(model.num_heads, "head"),
        escape(&model.classes.join(", ")),
        settings.steps,
        match settings.baseline {
            super::Baseline::Pad => "a padding token",
            super::Baseline::Mask => "a mask token",
            super::Baseline::Zero => "an embedding of zeros",
        },
    );
    body.push_str(LEGEND);
    if let Some(split) = &report.split {
        body.push_str(&split_section(split));
    }
    for (number, text) in report.texts.iter().enumerate() {
        body.push_str(&text_section(text, number));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{COLOURS}{STYLE}</style></head>\
         <body><main>{body}</main><script>{SCRIPT}</script></body></html>\n",
        escape(&format!("{} explained", model.name)),
    )
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"word for strong\" style=\"--v:1\">underlined blue</span> \
    speaks for the class, <span class=\"word against strong\" style=\"--v:1\">dotted orange</span> against it; the \
    stronger, the more. Methods disagree: believe one as far as its curves are better than those of a random \
    order.</p>";

/// Words are underlined from this share of the strongest on.
const UNDERLINED_FROM: f64 = 0.5;

fn text_section(text: &TextExplanation, number: usize) -> String {
    let mut out = String::new();
    let _ = write!(out, "<section><h2>{}</h2>{}", escape(&shortened(&text.text)), verdict(text));
    out.push_str("<h3>Words</h3>");
    for importance in &text.importance {
        out.push_str(&method(text, importance));
    }
    if let Some(random) = &text.random {
        let curves = text.importance.iter().filter_map(|importance| {
            Some((importance.method.title(), importance.faithfulness.as_ref()?))
        });
        out.push_str(&curves_of(&curves.chain([("random", random)]).collect::<Vec<_>>()));
    }
    if let Some(layers) = &text.layers {
        out.push_str(&layers_part(text, layers, number));
    }
    out.push_str("</section>");
    out
}

/// Bars of the classes, and whether the answer is right.
fn verdict(text: &TextExplanation) -> String {
    let mut out = "<ul class=\"classes\">".to_owned();
    for class in &text.classes {
        let chosen = if class.name == text.predicted { " class=\"chosen\"" } else { "" };
        let _ = write!(
            out,
            "<li{chosen}><span>{name}</span><meter min=\"0\" max=\"1\" value=\"{share:.4}\" \
             aria-label=\"{name}\"></meter><span>{share:.4}</span></li>",
            name = escape(&class.name),
            share = class.probability,
        );
    }
    out.push_str("</ul>");
    if let Some(label) = &text.label {
        let judged = if *label == text.predicted { "right" } else { "wrong" };
        let _ =
            write!(out, "<p>The answer is {judged}: the label is <b>{}</b>.</p>", escape(label));
    }
    out
}

fn method(text: &TextExplanation, importance: &Importance) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<h4>{}, for <b>{}</b></h4>{}",
        importance.method.title(),
        escape(&text.explained),
        painted(text, &importance.words),
    );
    let mut parts = Vec::new();
    if let Some(whole) = &importance.completeness {
        parts.push(format!(
            "sum {:+.4}, score of the text {:+.4}, of the baseline {:+.4}: completeness error {:+.5} ({:.2} %)",
            whole.sum,
            whole.score,
            whole.baseline_score,
            whole.error,
            100.0 * whole.relative(),
        ));
    }
    if let (Some(own), Some(random)) = (&importance.faithfulness, &text.random) {
        parts.push(format!(
            "area of deletion {:.3} (random {:.3}), of insertion {:.3} (random {:.3})",
            own.deletion.area, random.deletion.area, own.insertion.area, random.insertion.area,
        ));
    }
    let _ = write!(out, "<p class=\"note\">{}</p>", parts.join("; "));
    out
}

/// The text with a background behind each word; what lies between words is as it was.
fn painted(text: &TextExplanation, values: &[f64]) -> String {
    let strongest = values.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let mut out = String::new();
    for in_pair in [false, true] {
        let source = if in_pair { text.text_pair.as_deref() } else { Some(text.text.as_str()) };
        let Some(source) = source else { continue };
        out.push_str("<p class=\"words\">");
        let mut end = 0;
        let of_text = |(word, _): &(&Word, &f64)| word.in_pair == in_pair;
        for (word, value) in text.words.iter().zip(values).filter(of_text) {
            out.push_str(&escape(source.get(end..word.start).unwrap_or(" ")));
            let (class, share) = signed(*value, strongest);
            let strong = if share >= UNDERLINED_FROM { " strong" } else { "" };
            let _ = write!(
                out,
                "<span class=\"word {class}{strong}\" style=\"--v:{share:.3}\" title=\"{value:+.4}\">{}</span>",
                escape(&word.text),
            );
            end = word.end;
        }
        let rest = source.get(end..).unwrap_or_default();
        // What the model had no room for.
        if rest.trim().is_empty() {
            out.push_str("</p>");
        } else {
            let _ = write!(
                out,
                "<span class=\"unread\" title=\"not read\">{}</span></p>",
                escape(rest)
            );
        }
    }
    out
}

/// Class of the colour, and its strength, 0 to 1.
fn signed(value: f64, strongest: f64) -> (&'static str, f64) {
    (if value >= 0.0 { "for" } else { "against" }, (value.abs() / strongest).min(1.0))
}

fn curves_of(curves: &[(&str, &Faithfulness)]) -> String {
    let lines = |pick: fn(&Faithfulness) -> &super::Curve| -> Vec<Line> {
        let line = |(name, both): &(&str, &Faithfulness)| {
            let curve = pick(both);
            let points = curve.shares.iter().copied().zip(curve.probabilities.iter().copied());
            Line {
                name: format!("{name}, area {:.3}", curve.area),
                points: points.collect(),
                dashed: *name == "random",
            }
        };
        curves.iter().map(line).collect()
    };
    let deletion = line_chart(
        "Deletion: lower is better",
        "share of words taken away, the most important first",
        "probability",
        &lines(|both| &both.deletion),
    );
    let insertion = line_chart(
        "Insertion: higher is better",
        "share of words given, the most important first",
        "probability",
        &lines(|both| &both.insertion),
    );
    format!("<div class=\"pair\">{deletion}{insertion}</div>")
}

fn layers_part(text: &TextExplanation, layers: &LayerRecord, number: usize) -> String {
    let tokens: Vec<String> = text.tokens.iter().map(|token| token.token.clone()).collect();
    let conductance: Vec<(String, Vec<f64>)> = layers
        .conductance
        .iter()
        .map(|layer| {
            let error = 100.0 * layer.completeness.relative();
            (format!("{} ({error:.1} %)", layer_name(layer.layer)), layer.tokens.clone())
        })
        .collect();
    let rollout: Vec<(String, Vec<f64>)> = layers
        .rollout
        .iter()
        .enumerate()
        .map(|(below, row)| (layer_name(below + 1), row.clone()))
        .collect();
    format!(
        "<h3>Layers</h3><h4>Conductance of each layer's output, by token</h4>\
         <p class=\"note\">In brackets: the size of the completeness error.</p>{}\
         <h4>Attention rollout: what the first token has of each token</h4>{}\
         <h4>Heads</h4>{}<h4>Attention</h4>{}",
        heat::table("Conductance of each layer's output, by token", &tokens, &conductance),
        heat::table("Attention rollout, by token", &tokens, &rollout),
        heat::heads(&layers.heads),
        heat::attention(&tokens, &layers.attentions, number),
    )
}

/// 0 is what the first layer reads.
fn layer_name(layer: usize) -> String {
    if layer == 0 { "embeddings".to_owned() } else { format!("layer {layer}") }
}

fn split_section(split: &SplitExplanation) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<section><h2>{}</h2><p>{}",
        escape(&split.file),
        counted(split.num_texts, "text")
    );
    if let (Some(accuracy), Some(majority)) = (split.accuracy, split.majority) {
        let _ = write!(out, ", accuracy {accuracy:.4}; the most frequent class has {majority:.4}");
    }
    let _ = write!(
        out,
        ".</p><h3>Can importance be believed?</h3><p>Means over {}. Median completeness error of integrated \
         gradients: {:.2} %.</p>",
        counted(split.num_attributed, "text"),
        100.0 * split.completeness_error,
    );
    let named = split
        .curves
        .iter()
        .map(|curves| (curves.method.map_or("random", super::Method::title), &curves.faithfulness));
    out.push_str(&curves_of(&named.collect::<Vec<_>>()));
    let _ = write!(out, "<h3>Layers in {}</h3>", counted(split.num_analyzed, "text"));
    if !split.probes.is_empty() {
        out.push_str(&probes(split));
    }
    out.push_str(&heat::heads(&split.heads));
    if !split.mistakes.is_empty() {
        out.push_str("<h3>Most confident mistakes</h3>");
    }
    for text in &split.mistakes {
        let _ = write!(out, "<article>{}", verdict(text));
        if let Some(importance) = text.importance.first() {
            out.push_str(&method(text, importance));
        }
        out.push_str("</article>");
    }
    out.push_str("</section>");
    out
}

fn probes(split: &SplitExplanation) -> String {
    let last = split.probes.len().saturating_sub(1).max(1) as f64;
    let line = |name: &str, pick: fn(&super::ProbeAccuracy) -> f64| Line {
        name: name.to_owned(),
        points: split.probes.iter().map(|probe| (probe.layer as f64 / last, pick(probe))).collect(),
        dashed: false,
    };
    let mut lines = vec![
        line("first token", |probe| probe.first_token),
        line("mean of tokens", |probe| probe.mean_token),
    ];
    if let Some(majority) = split.majority {
        let points = vec![(0.0, majority), (1.0, majority)];
        lines.push(Line { name: "most frequent class".to_owned(), points, dashed: true });
    }
    let mut rows = String::new();
    for probe in &split.probes {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{:.4}</td><td>{:.4}</td></tr>",
            layer_name(probe.layer),
            probe.first_token,
            probe.mean_token,
        );
    }
    format!(
        "{}<details><summary>Show accuracies by layer</summary><table class=\"plain\">\
         <caption>Accuracy of a linear probe by layer</caption><thead><tr><th scope=\"col\">layer</th>\
         <th scope=\"col\">first token</th>\
         <th scope=\"col\">mean of tokens</th></tr></thead><tbody>{rows}</tbody></table></details>",
        line_chart(
            "Accuracy of a linear probe, from the embeddings (left) to the last layer (right)",
            "depth",
            "accuracy",
            &lines,
        ),
    )
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= TITLE_CHARS {
        return text.to_owned();
    }
    let head: String = text.chars().take(TITLE_CHARS).collect();
    format!("{head} ...")
}

/// Text as HTML shows it, in elements and attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::record::TokenRecord;
    use super::super::{Baseline, ClassScore, Method, ModelRecord, SettingsRecord};
    use super::*;

    const TEXT: &str = "</script><b>&'\"";

    fn report() -> Report {
        let word = Word {
            text: TEXT.to_owned(),
            in_pair: false,
            start: 0,
            end: TEXT.len(),
            tokens: vec![1],
        };
        let token =
            |token: &str| TokenRecord { id: 1, token: token.to_owned(), ordinary: token == TEXT };
        let importance = Importance {
            method: Method::Occlusion,
            tokens: vec![0.0, -2.0],
            words: vec![-2.0],
            completeness: None,
            faithfulness: None,
        };
        let layers = LayerRecord {
            conductance: Vec::new(),
            rollout: vec![vec![0.5, 0.5]],
            heads: Vec::new(),
            attentions: vec![vec![vec![vec![0.0, 1.0], vec![0.5, 0.5]]]],
        };
        let text = TextExplanation {
            text: format!("{TEXT} rest"),
            text_pair: None,
            label: Some(TEXT.to_owned()),
            predicted: TEXT.to_owned(),
            explained: TEXT.to_owned(),
            classes: vec![ClassScore { name: TEXT.to_owned(), logit: 1.0, probability: 1.0 }],
            tokens: vec![token("[CLS]"), token(TEXT)],
            words: vec![word],
            importance: vec![importance],
            random: None,
            layers: Some(layers),
        };
        let model = ModelRecord {
            name: TEXT.to_owned(),
            family: "bert".to_owned(),
            num_layers: 1,
            num_heads: 1,
            classes: vec![TEXT.to_owned()],
        };
        let settings = SettingsRecord { steps: 1, baseline: Baseline::Pad };
        Report { format: 1, model, settings, texts: vec![text], split: None }
    }

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        let page = page(&report());
        assert!(!page.contains(TEXT) && !page.contains("<b>&'"));
        // One script, one list of attention, and what was not read is marked.
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(
            page.contains("class=\"unread\"") && page.contains("class=\"word against strong\"")
        );
    }

    #[test]
    fn colours_have_one_place() {
        let names = |text: &'static str, start: &'static str| {
            let is_end = |sign: char| !sign.is_ascii_alphanumeric() && sign != '-';
            let rests = text.split(start).skip(1);
            rests.filter_map(move |rest| rest.split(is_end).next()).collect::<Vec<_>>()
        };
        let defined = names(COLOURS, "\n  --");
        let used = names(STYLE, "var(--").into_iter().filter(|name| *name != "v");
        for name in used.chain(names(SCRIPT, "color(\"")) {
            assert!(defined.contains(&name), "--{name} is no colour");
        }
        let is_digit = |sign: char| sign.is_ascii_hexdigit();
        for part in STYLE.split('#').chain(SCRIPT.split('#')).skip(1) {
            assert!(!part.starts_with(is_digit), "a colour of its own: #{part:.6}");
        }
    }

    #[test]
    fn the_page_asks_nobody() {
        let page = page(&report());
        for word in ["http:", "https:", "src=", "@import", "url(", "fetch("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
