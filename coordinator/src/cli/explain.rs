//! `muster explain`: as `muster predict`, done by a one-shot worker.

use std::ffi::OsString;
use std::process::Stdio;

use super::exit::Exit;
use super::model_args::ExplainArguments;
use super::one_shot::{joined, one_shot};

pub(super) async fn explain(arguments: ExplainArguments) -> anyhow::Result<Exit> {
    let (texts, pairs) = (arguments.texts.len(), arguments.pairs.len());
    if pairs > 0 && pairs != texts {
        eprintln!(
            "error: {texts} times --text and {pairs} times --pair: give one for each text, or none"
        );
        return Ok(Exit::Usage);
    }
    let worker = arguments.worker_binary.clone();
    let words = [OsString::from("explain")].into_iter().chain(options(arguments));
    one_shot(worker.as_deref(), words, Stdio::null()).await
}

/// The arguments as the worker takes them. Values are joined to their names: a text may begin with a dash.
fn options(arguments: ExplainArguments) -> Vec<OsString> {
    let mut options = Vec::new();
    let repeated = [("text", arguments.texts), ("pair", arguments.pairs)];
    for (name, values) in repeated {
        options.extend(values.iter().map(|value| joined(name, value.as_ref())));
    }
    let given: [(&str, Option<OsString>); 11] = [
        ("file", arguments.file.map(OsString::from)),
        ("text-column", Some(arguments.text_column.into())),
        ("pair-column", arguments.pair_column.map(OsString::from)),
        ("label-column", arguments.label_column.map(OsString::from)),
        ("limit", Some(arguments.limit.to_string().into())),
        ("mistakes", Some(arguments.mistakes.to_string().into())),
        ("class", arguments.class.map(OsString::from)),
        ("steps", Some(arguments.steps.to_string().into())),
        ("baseline", Some(arguments.baseline.into())),
        ("json", arguments.json.map(OsString::from)),
        ("html", arguments.html.map(OsString::from)),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some(joined(name, &value?)));
    options.extend(given);
    options.push("--".into());
    options.push(arguments.model.into());
    options
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Arguments, Command};
    use super::*;

    fn explained(arguments: &[&str]) -> Vec<OsString> {
        let words = ["muster", "explain"].iter().chain(arguments);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Explain(arguments) => options(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_is_given_reaches_the_worker() {
        let found = explained(&["m", "--text=-a", "--text", "b", "--class", "yes", "--json", "-"]);
        let wanted = [
            "--text=-a",
            "--text=b",
            "--text-column=text",
            "--limit=50",
            "--mistakes=10",
            "--class=yes",
            "--steps=50",
            "--baseline=pad",
            "--json=-",
            "--",
            "m",
        ];
        assert_eq!(found, wanted.map(OsString::from));
        let found = explained(&["m", "--file", "a.csv", "--label-column", "y", "--limit", "3"]);
        assert!(found.contains(&"--label-column=y".into()) && found.contains(&"--limit=3".into()));
    }

    #[test]
    fn something_to_explain_is_needed() {
        for wrong in [
            vec!["m"],
            vec!["m", "--text", "a", "--baseline", "none"],
            vec!["m", "--text", "a", "--steps", "0"],
        ] {
            let words = ["muster", "explain"].into_iter().chain(wrong);
            assert!(Arguments::try_parse_from(words).is_err());
        }
    }
}
