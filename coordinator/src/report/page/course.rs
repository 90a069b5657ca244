//! The parts of the page about how the experiment went.

use muster_common::count::counted;
use muster_common::equipment::{Workers, gib};

use super::element::{
    Cell, count, duration, escape, facts, note, number, number_or_none, paragraph, percent,
    picture, table, words,
};
use crate::report::{LearningChart, Report};
use crate::view::Setting;

/// Points of a curve that its table lists.
const ROWS_MAX: usize = 60;
/// Trials whose curve stands in the table.
const TABLE_TRIALS: usize = 8;
/// Machines of one kind that are named.
const HOSTS_NAMED: usize = 6;

pub(super) type Section = Option<(&'static str, &'static str, String)>;

/// What was run, on what, where.
pub(super) fn card(report: &Report) -> (&'static str, &'static str, String) {
    let card = &report.card;
    let hours = card.slot_hours.map_or_else(String::new, |hours| format!("{hours:.3} slot hours"));
    let states = card.trials.iter().map(|(state, count)| format!("{count} {state}"));
    let states: Vec<String> = states.collect();
    let mut text = facts(&[
        ("Experiment", card.experiment.clone()),
        ("Trial", card.trial.clone().unwrap_or_default()),
        ("State", card.state.clone()),
        ("Why", card.reason.clone()),
        ("Objective", card.goal.iter().map(|goal| words(goal)).collect::<Vec<_>>().join(", ")),
        ("Learns", words(&card.training_objective)),
        ("Pretrained model", card.model.clone()),
        ("Longest sequence", format!("{} tokens", card.max_length)),
        ("Seed", card.seed.to_string()),
        ("Trials", states.join(", ")),
        ("Slots of a trial", card.slots_per_trial.clone()),
        ("Wall time", duration(card.wall_seconds)),
        ("Cost", hours),
        ("Files", card.location.clone()),
        ("Report by", format!("Muster {}", card.muster_version)),
    ]);
    text.insert_str(0, "<h3>Run</h3>");
    for warning in &card.warnings {
        text += &format!("<p class=\"warning\">{}</p>\n", escape(warning));
    }
    if !card.hosts.is_empty() {
        let row = |host: &crate::report::card::Host| {
            vec![
                Cell::text(if host.name.is_empty() { "not known" } else { host.name.as_str() }),
                Cell::count(host.num_runs as u64),
                Cell::Number(duration(host.slot_seconds)),
                Cell::text(if host.has_gpu { "GPU" } else { "CPU" }),
            ]
        };
        let rows: Vec<Vec<Cell>> = card.hosts.iter().map(row).collect();
        text += &table("Machines", &["machine", "training runs", "slot time", "measured"], &rows);
        text += &note(
            "Cost and slot time are from the first to the last value that each rank of a training run recorded and \
             that counts; start-up, preparation, the last scoring and steps that were trained again are not in it.",
        );
        text += &equipment(&card.workers);
    }
    text += &data(report);
    if let Some(chosen) = &card.chosen {
        let setting = |(name, value): (&String, &serde_json::Value)| {
            let shown = match value.as_str() {
                Some(word) => Cell::text(word),
                None => Cell::Number(value.as_f64().map_or_else(|| value.to_string(), number)),
            };
            vec![Cell::text(name.as_str()), shown]
        };
        let rows: Vec<Vec<Cell>> = chosen.settings.iter().map(setting).collect();
        text += "<h3>Hyperparameters</h3>";
        let steps = format!("Those of {} at step {}.", chosen.trial, chosen.step);
        text += &paragraph(&steps);
        text += &table("Hyperparameters", &["name", "value"], &rows);
        if !chosen.model.is_empty() {
            text += &facts(&[("Model", chosen.model.clone())]);
        }
    }
    ("card", "Run card", text)
}

/// What the machines are, a row for each kind.
fn equipment(kinds: &[Workers]) -> String {
    if kinds.is_empty() {
        return note(
            "What hardware and which versions trained is not known: the workers were of a build that did not keep \
             it, or it could not be read.",
        );
    }
    let row = |workers: &Workers| {
        let kind = &workers.kind;
        let gpu = kind.gpu.as_ref().map_or_else(
            || "-".to_owned(),
            |gpu| format!("{}, {}, driver {}", gpu.name, gib(gpu.memory_bytes), gpu.driver),
        );
        let (shown, more) = workers.hosts.split_at(workers.hosts.len().min(HOSTS_NAMED));
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        vec![
            Cell::text(counted(workers.num_workers, "worker")),
            Cell::text(shown.join(", ") + &more),
            Cell::text(kind.processor.as_str()),
            Cell::count(kind.num_processors.into()),
            Cell::count(kind.threads.into()),
            Cell::Number(gib(kind.memory_bytes)),
            Cell::text(gpu),
            Cell::text(kind.libtorch.as_str()),
            Cell::text(kind.muster.as_str()),
        ]
    };
    let titles = [
        "workers",
        "on",
        "processor",
        "processors",
        "threads of a slot",
        "memory",
        "GPU of a slot",
        "libtorch",
        "Muster",
    ];
    let rows: Vec<Vec<Cell>> = kinds.iter().map(row).collect();
    let mut text = table("What they trained with", &titles, &rows);
    text += &note("Processors and memory are those of the whole machine.");
    text
}

fn data(report: &Report) -> String {
    let Some(data) = &report.card.data else { return String::new() };
    let mut text = "<h3>Data</h3>".to_owned();
    text += &facts(&[
        ("From", data.sources.join(", ")),
        ("Content hash", data.cache.clone()),
        ("Rows read", count(data.rows)),
        ("Training examples", count(data.train)),
        ("Validation examples", count(data.validation)),
        ("Test examples", count(data.test)),
        ("Classes", data.labels.join(", ")),
        ("Mean tokens", data.mean_tokens.map_or_else(String::new, number)),
    ]);
    if !data.removed.is_empty() {
        let row = |(what, count): &(&str, u64)| vec![Cell::text(*what), Cell::count(*count)];
        let rows: Vec<Vec<Cell>> = data.removed.iter().map(row).collect();
        text += &table("Rows with something wrong", &["what", "rows"], &rows);
        text += &note("What became of them is the choice of the manifest, data.hygiene.");
    }
    for remark in &data.remarks {
        text += &note(remark);
    }
    text
}

/// Pictures of what trials measured.
pub(super) fn learning(report: &Report) -> Section {
    if report.learning.is_empty() {
        return None;
    }
    let drawn = report.learning.iter().enumerate();
    let text: String = drawn.map(|(place, chart)| learning_picture(place, chart)).collect();
    Some(("learning", "Learning curves", format!("<div class=\"grid\">{text}</div>")))
}

fn learning_picture(place: usize, chart: &LearningChart) -> String {
    let unit = match chart.unit.as_str() {
        "" | "1" => String::new(),
        unit => format!(" ({unit})"),
    };
    let title = words(&chart.metric) + &unit;
    let mut says = match chart.lines.as_slice() {
        [only] => format!("t{}, ", only.trial),
        [best, ..] => format!("{} trials, the best in front: t{}, ", chart.lines.len(), best.trial),
        [] => String::new(),
    };
    if let Some((step, value)) =
        chart.lines.first().and_then(|line| Some((line.steps.last()?, line.values.last()?)))
    {
        says += &format!("{} at step {step}.", number(*value));
    }
    if chart.num_left_out > 0 {
        says += &format!(" {} more trials are not drawn.", chart.num_left_out);
    }
    let mut rows = Vec::new();
    for line in chart.lines.iter().take(TABLE_TRIALS) {
        let stride = line.steps.len().div_ceil(ROWS_MAX).max(1);
        let points = line.steps.iter().zip(&line.values).enumerate();
        let last = line.steps.len().saturating_sub(1);
        for (_, (step, value)) in points.filter(|(at, _)| at % stride == 0 || *at == last) {
            let trial = Cell::text(format!("t{}", line.trial));
            rows.push(vec![trial, Cell::count(*step), Cell::number(*value)]);
        }
    }
    picture(
        &format!("learning-{place}"),
        &title,
        &says,
        &table(&title, &["trial", "step", &words(&chart.metric)], &rows),
    )
}

fn setting(value: Option<Setting>) -> Cell {
    match value {
        Some(Setting::Word(word)) => Cell::text(word),
        Some(Setting::Number(value)) => Cell::number(value),
        None => Cell::Number(number_or_none(None)),
    }
}

/// The trials in their order.
pub(super) fn ranking(report: &Report) -> Section {
    let ranking = &report.ranking;
    if ranking.trials.is_empty() {
        return None;
    }
    let mut titles = vec!["trial".to_owned(), "place".to_owned(), "state".to_owned()];
    titles.extend(ranking.objectives.iter().map(|name| words(name)));
    titles.push("steps".to_owned());
    titles.extend(ranking.parameters.iter().map(|name| words(name)));
    titles.push("why it ended".to_owned());
    let row = |trial: &crate::report::ranking::Row| {
        let place = trial.place.map_or_else(|| "-".to_owned(), |place| place.to_string());
        let mut cells = vec![Cell::text(format!("t{}", trial.trial)), Cell::Number(place)];
        cells.push(Cell::text(trial.state));
        let value = |place: usize| trial.objectives.get(place).copied();
        cells.extend(
            (0..ranking.objectives.len()).map(|at| Cell::Number(number_or_none(value(at)))),
        );
        cells.push(Cell::count(trial.steps));
        let values = ranking.parameters.iter().map(|name| trial.parameters.get(name).copied());
        cells.extend(values.map(setting));
        cells.push(Cell::text(trial.reason.as_str()));
        cells
    };
    let rows: Vec<Vec<Cell>> = ranking.trials.iter().map(row).collect();
    let named: Vec<&str> = titles.iter().map(String::as_str).collect();
    let goals = ranking.objectives.iter().zip(&ranking.modes);
    let goals: Vec<String> = goals.map(|(name, mode)| format!("{mode} {}", words(name))).collect();
    let mut text = paragraph(&format!(
        "{} of {}, the best first, by their best results on the validation split: {}.",
        rows.len(),
        counted(ranking.num_trials, "trial"),
        goals.join(", ")
    ));
    text += &table("Ranking of the trials", &named, &rows);
    let items = |lines: &[String]| -> String {
        let items: Vec<String> =
            lines.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
        items.concat()
    };
    let decided = ranking.trials.iter().filter(|trial| !trial.decisions.is_empty());
    let decided: Vec<String> = decided
        .map(|trial| format!("<h3>t{}</h3><ul>{}</ul>", trial.trial, items(&trial.decisions)))
        .collect();
    if !decided.is_empty() || !ranking.decisions.is_empty() {
        text += "<details><summary>What was decided, with the numbers compared</summary>";
        text += &format!("<ul>{}</ul>{}</details>\n", items(&ranking.decisions), decided.concat());
    }
    Some(("ranking", "Ranking", text))
}

/// Which hyperparameters mattered.
pub(super) fn importance(report: &Report) -> Section {
    let found = report.importance.as_ref()?;
    let first = found.shares.first()?;
    let says = format!(
        "{} explains {} of what single hyperparameters explain of the {}, of {} at step {}.",
        words(&first.parameter),
        percent(first.share),
        words(&found.metric),
        counted(found.num_results, "result"),
        found.step
    );
    let row = |share: &crate::report::cause::Share| {
        vec![Cell::text(words(&share.parameter)), Cell::Number(percent(share.share))]
    };
    let rows: Vec<Vec<Cell>> = found.shares.iter().map(row).collect();
    let behind = table("Importance", &["hyperparameter", "share"], &rows);
    let text = picture("importance", "Share of the variance", &says, &behind)
        + &note(
            "Functional analysis of variance of a forest (Hutter, Hoos, Leyton-Brown 2014); few results say little.",
        );
    Some(("importance", "Importance of hyperparameters", text))
}

/// The manifest as it was submitted.
pub(super) fn manifest(report: &Report) -> Section {
    let text = &report.card.manifest;
    let shown = format!(
        "<details><summary>Show the manifest, {} lines</summary>\
         <pre tabindex=\"0\" role=\"group\" aria-label=\"Manifest\">{}</pre></details>\n",
        text.lines().count(),
        escape(text)
    );
    (!text.is_empty()).then_some(("manifest", "Manifest", shown))
}
