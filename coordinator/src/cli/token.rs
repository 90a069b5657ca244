//! `muster token`: works on the state directory, so it needs no coordinator, and a token is no means to get more.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use muster_common::access::Access;
use muster_common::time::Timestamp;
use serde_json::{Value, json};

use super::args::{StateArguments, TokenCommand};
use super::exit::{Exit, Misuse};
use crate::access::address_of;
use crate::access::checker::span;
use crate::access::token_book::{NewToken, TokenBook, TokenEntry};
use crate::settings::{Settings, SettingsFlags};

/// An expiry that is none.
#[derive(Debug, thiserror::Error)]
#[error("--expires {text}: write 90d, 12h, 30m, 45s or never")]
pub(super) struct ExpiryError {
    text: String,
}

pub(super) fn token(command: TokenCommand) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    match command {
        TokenCommand::Create { name, scope, expires, output, url, place } => {
            let new = NewToken { name, scope, lifetime: lifetime(&expires)? };
            create(&new, output, url, &place, now)?;
        }
        TokenCommand::Ls { json, place } => ls(&place, json, now)?,
        TokenCommand::Revoke { name, place } => {
            match TokenBook::new(&state(&place)?).revoke(&name, now)? {
                0 => eprintln!("`{name}` could not be used any more"),
                _ => eprintln!("`{name}` is revoked"),
            }
        }
    }
    Ok(Exit::Done)
}

fn state(place: &StateArguments) -> anyhow::Result<PathBuf> {
    let (config, state) = (place.config.clone(), place.state.clone());
    let flags = SettingsFlags { config, state, ..SettingsFlags::default() };
    Ok(Settings::read(&flags, std::env::vars())?.state)
}

fn create(
    new: &NewToken,
    output: Option<PathBuf>,
    url: Option<String>,
    place: &StateArguments,
    now: Timestamp,
) -> anyhow::Result<()> {
    let state = state(place)?;
    let book = TokenBook::new(&state);
    let Some(output) = output else {
        if !state.is_dir() {
            let message = format!(
                "{} is no state directory of a coordinator; name it with --state",
                state.display()
            );
            return Err(Misuse(message).into());
        }
        println!("{}", book.create(new, now)?.reveal());
        eprintln!(
            "this is the only time that it is shown; hand it over in a private file, or as MUSTER_TOKEN"
        );
        return Ok(());
    };
    if output.exists() {
        return Err(
            Misuse(format!("{} is there already; name another file", output.display())).into()
        );
    }
    let known = address_of(&state).with_context(|| {
        format!(
            "no coordinator that asks for tokens was ever started in {}; start `muster serve --tls auto`, or \
             name its directory with --state",
            state.display()
        )
    })?;
    let coordinator = url.unwrap_or(known.coordinator);
    let token = book.create(new, now)?;
    let tag = token.tag();
    let access = Access { coordinator: coordinator.clone(), token: Some(token), ..known };
    if let Err(error) = access.write(&output) {
        // Nobody will ever have it.
        book.revoke(&tag, now)?;
        return Err(error.into());
    }
    eprintln!(
        "{} opens {coordinator}: hand it over, only its owner may read it (MUSTER_ACCESS names it, or it lies in \
         ~/.config/muster/access.json)",
        output.display()
    );
    Ok(())
}

fn ls(place: &StateArguments, as_json: bool, now: Timestamp) -> anyhow::Result<()> {
    let entries = TokenBook::new(&state(place)?).entries()?;
    if as_json {
        println!("{:#}", Value::Array(entries.iter().map(|entry| described(entry, now)).collect()));
        return Ok(());
    }
    if entries.is_empty() {
        eprintln!("no tokens yet; `muster token create --name NAME` makes one");
    }
    for entry in &entries {
        let TokenEntry { tag, name, scope, created_at, .. } = entry;
        let age = span(now.since(*created_at));
        println!("{tag}  {name:<24} {:<7} made {age} ago, {}", scope.name(), standing(entry, now));
    }
    Ok(())
}

/// Nothing of its secret.
fn described(entry: &TokenEntry, now: Timestamp) -> Value {
    json!({
        "tag": entry.tag,
        "name": entry.name,
        "scope": entry.scope.name(),
        "created_at_ms": entry.created_at.0,
        "expires_at_ms": entry.expires_at.map(|at| at.0),
        "revoked_at_ms": entry.revoked_at.map(|at| at.0),
        "valid": entry.is_valid(now),
    })
}

fn standing(entry: &TokenEntry, now: Timestamp) -> String {
    match (entry.revoked_at, entry.expires_at) {
        (Some(at), _) => format!("revoked {} ago", span(now.since(at))),
        (None, Some(at)) if at <= now => format!("expired {} ago", span(now.since(at))),
        (None, Some(at)) => format!("good for {}", span(at.since(now))),
        (None, None) => "good until it is revoked".to_owned(),
    }
}

fn lifetime(text: &str) -> Result<Option<Duration>, ExpiryError> {
    if text == "never" {
        return Ok(None);
    }
    let wrong = || ExpiryError { text: text.to_owned() };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let count: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    let total = count.checked_mul(seconds).filter(|total| (1..=3_153_600_000).contains(total));
    total.map(Duration::from_secs).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token_book::Scope;

    #[test]
    fn a_token_whose_file_cannot_be_written_opens_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let known =
            Access { coordinator: "https://host:7700".to_owned(), fingerprint: None, token: None };
        known.write(&state.join("address.json")).unwrap();
        let blocked = directory.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let new = NewToken { name: "gpus".to_owned(), scope: Scope::Worker, lifetime: None };
        let place = StateArguments { state: Some(state.clone()), config: None };
        let now = Timestamp::now();
        let output = Some(blocked.join("gpus.json"));
        assert!(create(&new, output, None, &place, now).is_err());
        let entries = TokenBook::new(&state).entries().unwrap();
        assert!(entries.len() == 1 && !entries[0].is_valid(now), "{entries:?}");
        let output = Some(directory.path().join("gpus.json"));
        create(&new, output, None, &place, now).unwrap();
    }

    #[test]
    fn a_lifetime_has_a_unit() {
        assert_eq!(lifetime("90d").unwrap(), Some(Duration::from_secs(90 * 86_400)));
        assert_eq!(lifetime("45s").unwrap(), Some(Duration::from_secs(45)));
        assert_eq!(lifetime("never").unwrap(), None);
        for wrong in ["", "90", "d", "0s", "-1d", "1.5h", "99999999999999999999d", "1w", "1dd"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
