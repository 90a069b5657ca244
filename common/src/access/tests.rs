use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn token() -> Token {
    Token::new([1, 2, 3, 4], [0xab; 32])
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn access(url: &str) -> Access {
    let fingerprint = Some(Fingerprint::of(b"certificate"));
    Access { coordinator: url.to_owned(), fingerprint, token: Some(token()) }
}

#[test]
fn a_token_is_read_as_it_is_written_and_never_shown() {
    let text = token().reveal();
    assert_eq!(text, format!("muster_01020304_{}", "ab".repeat(32)));
    assert_eq!(text.parse(), Ok(token()));
    let shown = format!("{:?} {:#?}", token(), access("https://a:1"));
    assert!(shown.contains("01020304") && !shown.contains("abab"), "{shown}");
    for wrong in ["", "muster_", "muster_01020304", &text[1..], &text[..text.len() - 1]] {
        assert_eq!(wrong.parse::<Token>(), Err(TokenError), "{wrong}");
    }
    let digest = token().digest();
    assert_ne!(digest, [0xab; 32]);
    assert_ne!(digest, Token::new([1, 2, 3, 4], [0xac; 32]).digest());
}

#[test]
fn a_fingerprint_is_that_of_openssl() {
    // SHA-256 of nothing, and how openssl writes it.
    let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let fingerprint = Fingerprint::of(b"");
    assert_eq!(fingerprint.to_string(), text);
    let digits = text.strip_prefix("sha256:").unwrap().to_uppercase().into_bytes();
    let pairs: Vec<_> = digits.chunks(2).map(String::from_utf8_lossy).collect();
    assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
    let error = "sha256:e3b0".parse::<Fingerprint>().unwrap_err().to_string();
    assert!(error.contains("e3b0") && error.contains("64"), "{error}");
}

#[test]
fn an_access_file_is_private_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below/access.json");
    access("https://a:1").write(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Access::read(&path).unwrap(), access("https://a:1"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Access::read(&path).unwrap_err().to_string();
    assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    let text = format!("{{\"coordinator\": \"https://a:1\", \"tokn\": \"{}\"}}", token().reveal());
    write_private(&path, text.as_bytes()).unwrap();
    let error = format!("{:?} {0}", Access::read(&path).unwrap_err());
    assert!(error.contains("line 1") && !error.contains("abab"), "{error}");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn what_is_named_is_stronger_than_files_and_one_of_another_coordinator_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let files = [directory.path().join("absent.json"), directory.path().join("a.json")];
    access("https://a:1").write(&files[1]).unwrap();
    let found = Access::find(&AccessFlags::default(), &files, nothing).unwrap();
    assert_eq!(found, access("https://a:1"));
    let named = |url: &str| AccessFlags { coordinator: Some(url.to_owned()), ..Default::default() };
    assert_eq!(Access::find(&named("https://a:1/"), &files, nothing).unwrap().token, Some(token()));
    let other = Access::find(&named("https://b:1"), &files, nothing).unwrap();
    assert_eq!((other.token, other.fingerprint), (None, None));
    let flags = AccessFlags { file: Some(files[1].clone()), ..named("https://b:1") };
    let other = Access::find(&flags, &[], nothing).unwrap();
    assert_eq!((other.coordinator.as_str(), other.token), ("https://b:1", Some(token())));
    let given = Token::new([9; 4], [9; 32]);
    let variable = |name: &str| (name == TOKEN_VARIABLE).then(|| given.reveal());
    let found = Access::find(&AccessFlags::default(), &files, variable).unwrap();
    assert_eq!(found.token, Some(given));
    let none = Access::find(&AccessFlags::default(), &[], nothing).unwrap_err();
    assert!(none.to_string().contains("MUSTER_ACCESS"), "{none}");
}

#[test]
fn a_token_is_never_sent_in_clear_text_to_another_machine() {
    let with = |url: &str| {
        let flags = AccessFlags { coordinator: Some(url.to_owned()), ..Default::default() };
        Access::find(&flags, &[], |name: &str| (name == TOKEN_VARIABLE).then(|| token().reveal()))
    };
    for fine in ["http://127.0.0.1:7700", "http://localhost:1", "http://[::1]:1", "https://a:1"] {
        assert!(with(fine).is_ok(), "{fine}");
    }
    for open in ["http://10.0.0.1:7700", "http://localhost.example.org:1"] {
        let error = with(open).unwrap_err().to_string();
        assert!(error.contains("clear text") && !error.contains("abab"), "{error}");
    }
    for wrong in ["127.0.0.1:7700", "ftp://a:1", "https://user@a:1", ""] {
        assert!(matches!(with(wrong), Err(AccessError::Url { .. })), "{wrong}");
    }
}

#[test]
fn the_file_of_a_user_lies_where_others_look_too() {
    let of = |pairs: &[(&str, &str)]| {
        home_file(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
    };
    assert_eq!(of(&[("HOME", "/h")]), Some("/h/.config/muster/access.json".into()));
    assert_eq!(
        of(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")]),
        Some("/x/muster/access.json".into())
    );
    assert_eq!(of(&[]), None);
}
