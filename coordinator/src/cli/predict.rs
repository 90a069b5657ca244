//! `muster predict`: tensors live in the worker program, so a one-shot worker does it.

use std::ffi::OsString;
use std::process::Stdio;

use super::exit::Exit;
use super::model_args::PredictArguments;
use super::one_shot::one_shot;

pub(super) async fn predict(arguments: PredictArguments) -> anyhow::Result<Exit> {
    let mut words: Vec<OsString> = vec!["predict".into()];
    if arguments.json {
        words.push("--json".into());
    }
    if let Some(file) = arguments.file {
        words.extend(["--file".into(), file.into()]);
    }
    words.extend(["--".into(), arguments.model.into()]);
    words.extend(arguments.texts.into_iter().map(OsString::from));
    one_shot(arguments.worker_binary.as_deref(), words, Stdio::inherit()).await
}
