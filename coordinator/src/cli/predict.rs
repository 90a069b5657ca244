//! `muster predict`: tensors live in the worker program, so a one-shot worker does it.

use std::ffi::OsString;
use std::process::Stdio;

use super::exit::Exit;
use super::model_args::PredictArguments;
use super::one_shot::{joined, one_shot};

pub(super) async fn predict(arguments: PredictArguments) -> anyhow::Result<Exit> {
    let worker = arguments.worker_binary.clone();
    one_shot(worker.as_deref(), words(arguments), Stdio::inherit()).await
}

/// The arguments as the worker takes them. Values are joined to their names: a column may begin with a dash.
fn words(arguments: PredictArguments) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["predict".into()];
    if arguments.json {
        words.push("--json".into());
    }
    let given: [(&str, Option<OsString>); 5] = [
        ("file", arguments.file.map(OsString::from)),
        ("format", arguments.format.map(OsString::from)),
        ("text-column", arguments.text_column.map(OsString::from)),
        ("pair-column", arguments.pair_column.map(OsString::from)),
        ("output", arguments.output.map(OsString::from)),
    ];
    words.extend(given.into_iter().filter_map(|(name, value)| Some(joined(name, &value?))));
    words.extend(["--".into(), arguments.model.into()]);
    words.extend(arguments.texts.into_iter().map(OsString::from));
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Arguments, Command};
    use super::*;

    fn predicted(arguments: &[&str]) -> Vec<OsString> {
        let all = ["muster", "predict"].iter().chain(arguments);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Predict(arguments) => words(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_is_given_reaches_the_worker() {
        let found = predicted(&["m", "a", "-"]);
        assert_eq!(found, ["predict", "--", "m", "a", "-"].map(OsString::from));
        let found = predicted(&["m", "--file=-", "--format", "csv", "--text", "b", "-o", "c.csv"]);
        let wanted =
            ["predict", "--file=-", "--format=csv", "--text-column=b", "--output=c.csv", "--", "m"];
        assert_eq!(found, wanted.map(OsString::from));
    }

    #[test]
    fn texts_have_no_columns() {
        for wrong in [
            vec!["m", "a", "--file", "b"],
            vec!["m", "a", "--text-column", "b"],
            vec!["m", "--json", "--output", "b.csv"],
            vec!["m", "--format", "xlsx"],
        ] {
            let words = ["muster", "predict"].into_iter().chain(wrong);
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
