//! What `muster doctor` says of access: who gets in at the coordinator's port, and whether anything about it is over or
//! open to others. It looks at files only, so it needs no coordinator, and makes none of what is missing.

use std::path::PathBuf;
use std::time::Duration;

use muster_common::access::{ACCESS_VARIABLE, AccessError, home_file, read_private};
use muster_common::count::counted;
use muster_common::time::Timestamp;

use super::chain;
use super::doctor::Finding;
use crate::access::certificates::{Source, Validity};
use crate::access::checker::span;
use crate::access::token_book::{BookError, Scope, TokenBook, TokenEntry};
use crate::access::{certificate_source, private_files};
use crate::settings::{Settings, absolute};

/// A certificate of the user's that ends sooner should be seen to now.
const ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);

/// The port; then certificate, tokens and private files, where there are any.
pub(super) fn check_access(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    let state = absolute(&settings.state);
    let mut findings = vec![check_port(settings)];
    let source = certificate_source(settings, &state, Vec::new());
    findings.extend(source.map(|source| check_certificate(&source, now)));
    if settings.asks_for_tokens() {
        findings.push(check_tokens(&TokenBook::new(&state), now));
    }
    let mut files = private_files(&state);
    let variable = |name: &str| std::env::var(name).ok();
    files.extend(variable(ACCESS_VARIABLE).map(PathBuf::from));
    files.extend(home_file(variable).filter(|path| path.is_file()));
    findings.extend(check_files(&files));
    findings
}

/// Who gets in. What may not be open is refused when the settings are read, so nothing is wrong here.
fn check_port(settings: &Settings) -> Finding {
    let encryption = match (&settings.tls_cert, settings.is_encrypted()) {
        (Some(file), _) => format!("TLS with the certificate in {}", file.display()),
        (None, true) => "TLS with a certificate of its own".to_owned(),
        (None, false) => "TLS is off".to_owned(),
    };
    let tokens = if settings.asks_for_tokens() { "asks for tokens" } else { "asks for no token" };
    let who = if settings.listen.ip().is_loopback() {
        "; only this machine reaches it"
    } else if settings.is_open_to_others(settings.listen.ip()) {
        "; whoever reaches it may call or listen in, as insecure = true allows"
    } else {
        ""
    };
    Finding::good("access", format!("{}: {encryption}, {tokens}{who}", settings.listen))
}

fn check_certificate(source: &Source, now: Timestamp) -> Finding {
    let check = "certificate";
    let Validity { since, until } = match source.validity() {
        Ok(Some(validity)) => validity,
        Ok(None) => return Finding::good(check, "the next start of the coordinator makes it"),
        Err(error) => {
            let mend = "look at tls_cert and tls_key in muster.toml: a certificate in PEM, with those that vouch \
                        for it, and its key, which only its owner may read (chmod 600)";
            return Finding::bad(check, chain(&error.into()), mend);
        }
    };
    let left = format!("good for {}", span(until.since(now)));
    match source {
        // It is renewed long before, by a coordinator that runs.
        Source::Own { .. } if until <= now => {
            Finding::good(check, "it has expired; the next start of the coordinator renews it")
        }
        Source::Own { .. } => Finding::good(check, left),
        Source::Files { certificate, .. } => {
            let mend = format!(
                "put a new one into {}, and its key where it was; a coordinator that runs takes it within a minute",
                certificate.display()
            );
            if since > now {
                let detail = format!("it becomes good in {}", span(since.since(now)));
                return Finding::bad(check, detail, "set this machine's clock, or wait");
            }
            if until <= now {
                let detail = format!("it has expired {} ago", span(now.since(until)));
                return Finding::bad(check, detail, mend);
            }
            if until.since(now) < ENDS_SOON {
                return Finding::bad(check, left, mend);
            }
            Finding::good(check, left)
        }
    }
}

fn check_tokens(book: &TokenBook, now: Timestamp) -> Finding {
    let check = "tokens";
    let entries = match book.entries() {
        Ok(entries) => entries,
        Err(error) => {
            let mend = match error {
                BookError::File(_) => {
                    "its owner, who runs the coordinator, has to read it, and nobody else"
                }
                _ => {
                    "bring the file back from a copy, or delete it and make new tokens with `muster token create`"
                }
            };
            return Finding::bad(check, chain(&error.into()), mend);
        }
    };
    let usable: Vec<&TokenEntry> = entries.iter().filter(|entry| entry.is_valid(now)).collect();
    let scopes = [Scope::User, Scope::Read, Scope::Worker].map(|scope| {
        let number = usable.iter().filter(|entry| entry.scope == scope).count();
        format!("{number} {}", scope.name())
    });
    let detail = format!("{} can be used ({})", usable.len(), scopes.join(", "));
    // The coordinator's own have successors in time; others may have been made anew.
    let is_missed = |entry: &&TokenEntry| {
        let is_over = entry.revoked_at.is_none() && entry.has_expired(now);
        is_over
            && !entry.name.starts_with('_')
            && !usable.iter().any(|usable| usable.name == entry.name)
    };
    let expired: Vec<&str> =
        entries.iter().filter(is_missed).map(|entry| entry.name.as_str()).collect();
    if expired.is_empty() {
        return Finding::good(check, detail);
    }
    let detail = format!("{detail}; {} expired: {}", expired.len(), expired.join(", "));
    let mend =
        "`muster token create --name NAME` makes another one, where it is still needed".to_owned();
    // That was its purpose, and nobody gets in who should not.
    Finding { check, ok: true, detail, mend }
}

/// Whether only their owner may read files with secrets; nothing where there are none.
fn check_files(files: &[PathBuf]) -> Option<Finding> {
    let check = "private files";
    let (mut open, mut troubles) = (Vec::new(), Vec::new());
    for path in files {
        match read_private(path) {
            Ok(_) => {}
            Err(AccessError::Open { path, mode }) => {
                troubles.push(format!("others may read {} (mode {mode:04o})", path.display()));
                open.push(path.display().to_string());
            }
            Err(error) => troubles.push(chain(&error.into())),
        }
    }
    if files.is_empty() {
        return None;
    }
    if troubles.is_empty() {
        let detail = format!("{}, for their owner only", counted(files.len(), "file"));
        return Some(Finding::good(check, detail));
    }
    let mend = if open.is_empty() {
        "start the coordinator, and this, as the user whose files they are".to_owned()
    } else {
        format!("chmod 600 {}; what may have been read should be revoked", open.join(" "))
    };
    Some(Finding::bad(check, troubles.join("; "), mend))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::access::Guard;
    use crate::access::token_book::NewToken;
    use crate::settings::SettingsFlags;

    const DAY: Duration = Duration::from_secs(86_400);

    fn settings(state: &Path, pairs: &[(&str, &str)]) -> Settings {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags = SettingsFlags { state: Some(state.to_owned()), ..SettingsFlags::default() };
        Settings::load(&flags, pairs).unwrap()
    }

    fn finding(findings: Vec<Finding>, check: &str) -> Finding {
        findings.into_iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn nothing_is_made_by_looking_and_what_was_made_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let settings =
            settings(&state, &[("MUSTER_LISTEN", "0.0.0.0:7700"), ("MUSTER_TLS", "auto")]);
        let now = Timestamp::now();
        let findings = check_access(&settings, now);
        assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
        assert!(finding(findings, "certificate").detail.contains("next start"));
        assert!(!state.exists());

        Guard::open(&settings, &state, settings.listen).unwrap();
        let book = TokenBook::new(&state);
        let new = |name: &str, lifetime| NewToken {
            name: name.to_owned(),
            scope: Scope::Worker,
            lifetime,
        };
        book.create(&new("gpu", Some(DAY)), now).unwrap();
        let later = now.after(2 * DAY);
        let certificate = finding(check_access(&settings, now.after(DAY / 2)), "certificate");
        assert_eq!(certificate.detail, "good for 89 days");
        let tokens = |at| finding(check_access(&settings, at), "tokens");
        assert_eq!(tokens(now).detail, "2 can be used (1 user, 0 read, 1 worker)");
        assert_eq!(
            tokens(later).detail,
            "1 can be used (1 user, 0 read, 0 worker); 1 expired: gpu"
        );
        assert!(tokens(later).ok && tokens(later).mend.contains("token create"));
        book.create(&new("gpu", None), later).unwrap();
        assert_eq!(tokens(later).mend, "", "another one took its place");

        let owner = state.join("access.json");
        fs::set_permissions(&owner, fs::Permissions::from_mode(0o640)).unwrap();
        let files = check_files(&private_files(&state)).unwrap();
        assert!(!files.ok && files.mend.contains(&owner.display().to_string()), "{files:?}");
        assert!(
            files.detail.contains("mode 0640") && files.mend.starts_with("chmod 600"),
            "{files:?}"
        );
        fs::set_permissions(&owner, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(check_files(&private_files(&state)).unwrap().ok);
        fs::write(state.join("tokens.json"), "{").unwrap();
        assert!(!tokens(now).ok);
    }

    #[test]
    fn a_certificate_of_the_user_that_ends_soon_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c.pem", "c.key"].map(|name| directory.path().join(name));
        let mut parameters = rcgen::CertificateParams::new(["host".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 7, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        fs::write(&certificate, parameters.self_signed(&pair).unwrap().pem()).unwrap();
        muster_common::access::write_private(&key, pair.serialize_pem().as_bytes()).unwrap();
        let source = Source::Files { certificate, key: key.clone() };
        // 1 January 2026.
        let at =
            |days: u32| check_certificate(&source, Timestamp(1_767_225_600_000).after(days * DAY));
        assert_eq!(at(1).detail, "good for 180 days");
        assert!(at(1).ok && !at(170).ok && !at(182).ok);
        assert!(at(182).detail.contains("expired 24 h ago"), "{:?}", at(182));
        assert!(at(182).mend.contains("c.pem"), "{:?}", at(182));
        let early = check_certificate(&source, Timestamp(1_767_225_600_000 - 60_000));
        assert!(early.detail.contains("becomes good in 60 s"), "{early:?}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(at(1).detail.contains("chmod 600"), "{:?}", at(1));
    }

    #[test]
    fn who_reaches_the_port_is_said() {
        let state = Path::new("nowhere");
        let port = |pairs: &[(&str, &str)]| check_port(&settings(state, pairs)).detail;
        assert_eq!(
            port(&[]),
            "127.0.0.1:7700: TLS is off, asks for no token; only this machine reaches it"
        );
        let open = ("MUSTER_LISTEN", "0.0.0.0:7700");
        assert!(port(&[open, ("MUSTER_INSECURE", "true")]).contains("insecure = true"));
        let safe = port(&[open, ("MUSTER_TLS", "auto")]);
        assert_eq!(safe, "0.0.0.0:7700: TLS with a certificate of its own, asks for tokens");
    }
}
