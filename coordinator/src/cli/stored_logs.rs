//! `muster logs --store`: what is kept in the object store, without any coordinator.

use std::time::Duration;

use anyhow::bail;
use muster_common::id::{ExperimentId, TrialId};
use muster_common::log_store::LogReader;
use muster_common::storage::{Layout, Store};
use serde_json::{Map, Value, json};

use super::exit::Exit;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Prints the lines of the runs of `subject`, and those of coordinators that name it, by time; with `as_json` each as
/// an object.
pub(super) async fn print(
    store: &str,
    subject: &str,
    follow: bool,
    as_json: bool,
) -> anyhow::Result<Exit> {
    let (experiment, trial) = match subject.parse::<TrialId>() {
        Ok(trial) => (trial.experiment.clone(), Some(trial)),
        Err(_) => (subject.parse::<ExperimentId>()?, None),
    };
    let store = Store::open(store)?;
    let runs = match &trial {
        Some(trial) => Layout::run_logs(&experiment, Some(trial)),
        // Those of its trials, and of the runs before there were any.
        None => Layout::experiment(&experiment),
    };
    let mut runs = LogReader::new(store.clone(), runs);
    let mut coordinators = LogReader::new(store.clone(), Layout::coordinator_logs());
    let mut is_first = true;
    loop {
        let mut lines = runs.read().await?;
        if is_first && lines.is_empty() && !follow {
            bail!("no logs of {subject} in {}", store.url());
        }
        is_first = false;
        let named = coordinators.read().await?.into_iter();
        lines.extend(named.filter(|line| names(line, &experiment, trial.as_ref())));
        // Every line begins with its time.
        lines.sort_by(|a, b| a.split('\t').next().cmp(&b.split('\t').next()));
        let shown = |line: &String| {
            if as_json { described(line) } else { line.replacen('\t', "  ", 2) }
        };
        let lines = lines.iter().map(|line| shown(line) + "\n");
        print!("{}", lines.collect::<String>());
        if !follow {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One line as an object.
fn described(line: &str) -> String {
    let mut columns = line.splitn(3, '\t');
    let mut next = || columns.next().unwrap_or_default();
    json!({ "time": next(), "process": next(), "text": next() }).to_string()
}

/// Whether a line of a coordinator is about the experiment, or about this trial of it.
fn names(line: &str, experiment: &ExperimentId, trial: Option<&TrialId>) -> bool {
    let text = line.splitn(3, '\t').nth(2).unwrap_or_default();
    let fields: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    let (experiment, number) = (experiment.as_str(), trial.map(|trial| trial.number));
    let named = match &fields {
        Some(fields) => {
            fields.get("experiment").and_then(Value::as_str) == Some(experiment)
                && number.is_none_or(|number| {
                    fields.get("trial").and_then(Value::as_u64) == Some(number.into())
                })
        }
        None => match number {
            Some(number) => has_word(text, &format!("experiment={experiment} trial={number}")),
            None => has_word(text, &format!("experiment={experiment}")),
        },
    };
    named || has_word(text, &trial.map_or_else(|| experiment.to_owned(), ToString::to_string))
}

/// Whether `text` has `word` with nothing before and behind it that would make it another name.
fn has_word(text: &str, word: &str) -> bool {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let behind = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(belongs) && !behind.is_some_and(belongs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object_of_its_columns() {
        let line = described("2026-01-02T03:04:05Z\trunner\tstep\t3");
        let line: Value = serde_json::from_str(&line).unwrap();
        let wanted =
            json!({ "time": "2026-01-02T03:04:05Z", "process": "runner", "text": "step\t3" });
        assert_eq!(line, wanted);
    }

    #[test]
    fn lines_are_of_the_trial_they_name() {
        let experiment: ExperimentId = "demo-1".parse().unwrap();
        let trial = TrialId { experiment: experiment.clone(), number: 3 };
        let of_trial = |text: &str| {
            let line = format!("T\tcoordinator\t{text}");
            (names(&line, &experiment, None), names(&line, &experiment, Some(&trial)))
        };
        assert_eq!(of_trial("run{experiment=demo-1 trial=3 run=7 rank=0}: ended"), (true, true));
        assert_eq!(of_trial("run{experiment=demo-1 trial=31 run=7 rank=0}: ended"), (true, false));
        assert_eq!(of_trial("run{experiment=demo-1 run=7 rank=0}: ended"), (true, false));
        assert_eq!(of_trial("run{experiment=demo-12 trial=3 run=7}: ended"), (false, false));
        assert_eq!(of_trial("checkpoint=demo-1/t3 step 5 not deleted"), (true, true));
        assert_eq!(of_trial("checkpoint=demo-1/t33 step 5 not deleted"), (true, false));
        assert_eq!(of_trial("my-demo-1 and demo-1-x"), (false, false));
        let json = r#"{"level":"INFO","experiment":"demo-1","trial":3,"message":"ended"}"#;
        assert_eq!(of_trial(json), (true, true));
        assert_eq!(of_trial(&json.replace(":3", ":4")), (true, false));
    }
}
