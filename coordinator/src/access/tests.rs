use std::os::unix::fs::PermissionsExt as _;

use muster_common::digest::hexadecimal;

use super::checker::Refusal;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn new(name: &str, scope: Scope, lifetime: Option<Duration>) -> NewToken {
    NewToken { name: name.to_owned(), scope, lifetime }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_token_opens_its_scope_until_it_expires_or_is_revoked() {
    let state = tempfile::tempdir().unwrap();
    let checker = Checker::new(TokenBook::new(state.path()));
    let book = checker.book();
    let now = Timestamp(1_000_000_000);
    let user = book.create(&new("anna", Scope::User, Some(DAY)), now).unwrap().reveal();
    let read = book.create(&new("page", Scope::Read, None), now).unwrap().reveal();
    let worker = book.create(&new("w", Scope::Worker, None), now).unwrap().reveal();
    for (token, opened) in [
        (&user, [true, true, false]),
        (&read, [false, true, false]),
        (&worker, [false, false, true]),
    ] {
        for (needed, is_open) in [Scope::User, Scope::Read, Scope::Worker].into_iter().zip(opened) {
            let checked = checker.check(Some(token), needed, now);
            assert_eq!(checked.is_ok(), is_open, "{needed:?} {checked:?}");
            let is_of_scope = matches!(checked, Err(Refusal::Scope { .. }));
            assert_eq!(is_of_scope, !is_open, "{needed:?}");
        }
    }
    let later = now.after(DAY);
    let expired = checker.check(Some(&user), Scope::User, later).unwrap_err();
    assert!(matches!(expired, Refusal::Expired { .. }), "{expired}");
    assert!(checker.check(Some(&read), Scope::Read, now.after(DAY * 10_000)).is_ok());

    let caller = checker.check(Some(&read), Scope::Read, now).unwrap();
    checker.cut(now);
    assert!(!caller.cut.is_cancelled());
    // By another process, as it were.
    assert_eq!(TokenBook::new(state.path()).revoke("page", now).unwrap(), 1);
    let revoked = checker.check(Some(&read), Scope::Read, now).unwrap_err();
    assert!(revoked.to_string().contains("`page` was revoked"), "{revoked}");
    checker.cut(now);
    assert!(caller.cut.is_cancelled());
    let user_caller = checker.check(Some(&user), Scope::User, now).unwrap();
    checker.cut(later);
    assert!(user_caller.cut.is_cancelled(), "what has expired is cut off too");
}

#[test]
fn tokens_of_others_and_guesses_are_unknown() {
    let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checker = Checker::new(TokenBook::new(state.path()));
    let now = Timestamp(5);
    let own = checker.book().create(&new("a", Scope::User, None), now).unwrap();
    let others = TokenBook::new(other.path()).create(&new("a", Scope::User, None), now).unwrap();
    let mut guess = own.reveal();
    let last = if guess.pop() == Some('0') { '1' } else { '0' };
    guess.push(last);
    assert!(checker.check(Some(&own.reveal()), Scope::User, now).is_ok());
    for text in [others.reveal().as_str(), &guess, "", "Bearer", &own.reveal()[1..]] {
        assert_eq!(checker.check(Some(text), Scope::User, now).unwrap_err(), Refusal::Unknown);
    }
    assert_eq!(checker.check(None, Scope::User, now).unwrap_err(), Refusal::Missing);
    let digest: String = hexadecimal(&own.digest());
    let kept = fs::read_to_string(checker.book().path()).unwrap();
    assert!(kept.contains(&digest) && !kept.contains(own.reveal().rsplit('_').next().unwrap()));
    let as_secret = format!("muster_{}_{digest}", own.tag());
    let of_digest = checker.check(Some(&as_secret), Scope::User, now).unwrap_err();
    assert_eq!(of_digest, Refusal::Unknown, "the kept digest is no secret");
    assert_eq!(mode(checker.book().path()), 0o600);
    fs::write(checker.book().path(), "{").unwrap();
    let damaged = checker.check(Some(&own.reveal()), Scope::User, now).unwrap_err();
    assert_eq!(damaged, Refusal::Damaged, "nobody is let in then");
    fs::remove_file(checker.book().path()).unwrap();
    let gone = checker.check(Some(&own.reveal()), Scope::User, now).unwrap_err();
    assert_eq!(gone, Refusal::Unknown);
}

#[test]
fn names_are_unique_while_they_are_used_and_tokens_that_are_over_are_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let book = TokenBook::new(state.path());
    let now = Timestamp(7);
    let anna = new("anna", Scope::User, None);
    book.create(&anna, now).unwrap();
    assert!(matches!(book.create(&anna, now), Err(BookError::Taken { .. })));
    assert_eq!(book.revoke("anna", now).unwrap(), 1);
    assert_eq!(book.revoke("anna", now).unwrap(), 0);
    assert!(matches!(book.revoke("ann", now), Err(BookError::Unknown { .. })));
    book.create(&anna, now).unwrap();
    assert_eq!(book.entries().unwrap().len(), 2);
    book.create(&new("bert", Scope::Read, None), now.after(DAY * 91)).unwrap();
    assert_eq!(book.entries().unwrap().len(), 2);
    for wrong in ["", "_own", "a b", "ä", &"a".repeat(65)] {
        let made = book.create(&new(wrong, Scope::User, None), now);
        assert!(matches!(made, Err(BookError::Name { .. })), "{wrong}");
    }
}

fn own(state: &Path, names: &[&str]) -> Source {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Source::Own { state: state.to_owned(), names }
}

#[test]
fn a_certificate_is_kept_and_renewed_in_time_by_the_same_authority() {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let open = |names: &[&str], now| Certificates::open(own(state.path(), names), now).unwrap();
    let first = open(&["10.0.0.1", "node-1", "not_a_name"], now);
    let again = open(&["10.0.0.1", "node-1"], now + DAY * 59);
    assert_eq!(first.own_fingerprint(), again.own_fingerprint());
    let renamed = open(&["10.0.0.2"], now);
    assert_ne!(first.own_fingerprint(), renamed.own_fingerprint());
    assert_eq!(first.fingerprint(), renamed.fingerprint());
    // One that goes on running.
    let before = renamed.own_fingerprint();
    assert!(!renamed.renew(now + DAY * 59).unwrap());
    assert!(renamed.renew(now + DAY * 61).unwrap());
    assert_ne!(before, renamed.own_fingerprint());
    assert_eq!(first.fingerprint(), renamed.fingerprint());
    for file in fs::read_dir(state.path().join("tls")).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    // Halves of two pairs, as a crash may leave them.
    let key = state.path().join("tls/certificate.key");
    fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mended = open(&["10.0.0.2"], now);
    assert_eq!(first.fingerprint(), mended.fingerprint());
    // Everybody has the authority's fingerprint: it is not made anew in silence.
    fs::remove_file(state.path().join("tls/authority.key")).unwrap();
    let error = Certificates::open(own(state.path(), &[]), now).unwrap_err().to_string();
    assert!(error.contains("authority.key"), "{error}");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let path = state.path().join("tls/authority.key");
    muster_common::access::write_private(&path, other.as_bytes()).unwrap();
    let error = Certificates::open(own(state.path(), &[]), now).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn a_certificate_of_the_user_is_read_again_and_its_key_has_to_be_private() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["certificate.pem", "key.pem"].map(|name| directory.path().join(name));
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(&paths[0], made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        muster_common::access::write_private(&paths[1], key.as_bytes()).unwrap();
        Fingerprint::of(made.cert.der())
    };
    let first = write("a.example.org");
    let source = Source::Files { certificate: paths[0].clone(), key: paths[1].clone() };
    let now = SystemTime::now();
    let certificates = Certificates::open(source.clone(), now).unwrap();
    assert_eq!(certificates.fingerprint(), first);
    assert!(!certificates.renew(now).unwrap());
    let second = write("b.example.org");
    assert!(certificates.renew(now).unwrap());
    assert_eq!(certificates.fingerprint(), second);
    let key = fs::read_to_string(&paths[1]).unwrap();
    write("c.example.org");
    fs::write(&paths[1], key).unwrap();
    let error = certificates.renew(now).unwrap_err().to_string();
    assert!(error.contains("key.pem") && !error.contains("PRIVATE"), "{error}");
    assert_eq!(certificates.fingerprint(), second, "what is in use stays in use");
    write("d.example.org");
    fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o644)).unwrap();
    let error = Certificates::open(source, now).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Settings::load(&crate::settings::SettingsFlags::default(), pairs).unwrap()
}

#[test]
fn access_files_stay_the_same_over_restarts_and_open_what_they_are_for() {
    let state = tempfile::tempdir().unwrap();
    let settings = settings(&[("MUSTER_LISTEN", "0.0.0.0:7700"), ("MUSTER_TLS", "auto")]);
    let open =
        |address: &str| Guard::open(&settings, state.path(), address.parse().unwrap()).unwrap();
    let guard = open("0.0.0.0:7700");
    let owner = Access::read(&owner_file(state.path())).unwrap();
    assert_eq!(owner.coordinator, "https://127.0.0.1:7700");
    assert_eq!(owner.fingerprint, guard.fingerprint());
    let here = guard.local_worker_access().unwrap();
    let there = guard.remote_worker_access("slurm", None).unwrap();
    assert_eq!(here.url, "https://127.0.0.1:7700");
    assert!(there.url.ends_with(":7700") && there.url != here.url, "{there:?}");
    let read = |access: &WorkerAccess| Access::read(access.file.as_ref().unwrap()).unwrap();
    let (here, first) = (read(&here), read(&there));
    assert_ne!(here.token, first.token);
    let now = Timestamp::now();
    let checker = guard.checker().unwrap();
    let opens = |access: &Access, needed| {
        let token = access.token.as_ref().unwrap().reveal();
        checker.check(Some(&token), needed, now).is_ok()
    };
    assert!(opens(&owner, Scope::User) && opens(&first, Scope::Worker));
    assert!(!opens(&first, Scope::Read) && !opens(&owner, Scope::Worker));
    assert_eq!(address_of(state.path()).unwrap().token, None);

    let guard = open("0.0.0.0:7701");
    let second = read(&guard.remote_worker_access("slurm", None).unwrap());
    assert_eq!(second.token, first.token);
    assert!(second.coordinator.ends_with(":7701"));
    let tag = second.token.as_ref().unwrap().tag();
    guard.checker().unwrap().book().revoke(&tag, now).unwrap();
    let third = read(&guard.remote_worker_access("slurm", None).unwrap());
    assert_ne!(third.token, first.token);
    // Halfway through its life a token gets a successor, and lives on.
    let issued = guard.issued.lock().unwrap().clone();
    let slurm = issued.iter().find(|issued| issued.name == "_workers-slurm").unwrap();
    guard.refresh(slurm, now).unwrap();
    assert_eq!(Access::read(&slurm.path).unwrap(), third);
    guard.refresh(slurm, now.after(DAY * 16)).unwrap();
    assert_ne!(Access::read(&slurm.path).unwrap().token, third.token);
    assert!(opens(&third, Scope::Worker));
}

#[test]
fn without_tls_and_tokens_the_owner_s_file_says_where_and_leaves_with_the_coordinator() {
    let state = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:7700".parse().unwrap();
    Guard::open(&settings(&[("MUSTER_TLS", "auto")]), state.path(), address).unwrap();
    assert!(address_of(state.path()).is_ok());
    let guard = Guard::open(&settings(&[]), state.path(), address).unwrap();
    assert!(address_of(state.path()).is_err(), "what an earlier start has written is gone");
    assert!(!owner_file(state.path()).exists());
    guard.announce().unwrap();
    let owner = Access::read(&owner_file(state.path())).unwrap();
    assert_eq!(owner.coordinator, "http://127.0.0.1:7700");
    assert_eq!((owner.fingerprint, owner.token), (None, None));
    let access = guard.local_worker_access().unwrap();
    assert_eq!(access, WorkerAccess { url: "http://127.0.0.1:7700".to_owned(), file: None });
    guard.retire();
    assert!(!owner_file(state.path()).exists());
    let guard = Guard::open(&settings(&[("MUSTER_TLS", "auto")]), state.path(), address).unwrap();
    guard.retire();
    assert!(owner_file(state.path()).is_file(), "its token is still good at the next start");
}
