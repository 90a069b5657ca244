//! What a store's URL says: where it is, and how it is reached. Credentials are never part of it: each
//! process finds them where it runs, in its environment, in a file or in its role.
//!
//! ```text
//! s3://CONTAINER/PREFIX?endpoint=https://HOST:PORT&region=REGION&path_style=true&request_seconds=30
//! ```
//!
//! So a URL that is handed to a worker says all that the worker needs to know but its secrets.

use url::Url;

use super::store::StoreError;

/// What is written about credentials wherever they are missing or stand in the wrong place.
pub(super) const CREDENTIALS_MEND: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or \
     AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE, a role of the machine; GOOGLE_APPLICATION_CREDENTIALS; \
     AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY) in the environment of muster and of its \
     workers";

/// Longest deadline of a request, seconds: operations as a whole have one of five minutes.
const REQUEST_SECONDS_MAX: u32 = 120;

/// How a remote store is reached. Absent: what the environment of the process says, else what the
/// provider does by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// URL of the server, `http://` or `https://`; absent: the provider's own.
    pub endpoint: Option<String>,
    /// Region of an S3 container.
    pub region: Option<String>,
    /// Whether the container of an S3 store is the first part of the path rather than of the host.
    pub path_style: Option<bool>,
    /// Deadline of one request, of one part of a large object too; seconds. Absent: 30.
    pub request_seconds: Option<u32>,
}

/// Whose protocol a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    S3,
    Google,
    Azure,
}

/// A remote store's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) protocol: Protocol,
    /// Without the options.
    pub(super) url: Url,
    pub(super) options: StoreOptions,
}

impl Location {
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        if holds_secret(text) {
            return Err(StoreError::InlineSecret { url: without_secrets(text) });
        }
        let wrong = |reason: String| StoreError::Url { url: text.to_owned(), reason };
        let mut url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        let protocol = match url.scheme() {
            "s3" | "s3a" => Protocol::S3,
            "gs" => Protocol::Google,
            "az" | "azure" | "adl" | "abfs" | "abfss" => Protocol::Azure,
            other => return Err(wrong(format!("nothing is known of `{other}://`"))),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no container".to_owned()));
        }
        let mut options = StoreOptions::default();
        for (key, value) in url.query_pairs() {
            if holds_secret(&value) {
                return Err(StoreError::InlineSecret { url: without_secrets(text) });
            }
            options.set(&key, &value).map_err(&wrong)?;
        }
        if url.fragment().is_some() {
            // Left out, two stores would be one.
            return Err(wrong("`#` ends a location; for one in a name write %23".to_owned()));
        }
        url.set_query(None);
        Ok(Self { protocol, url, options })
    }

    /// The name of the container.
    pub(super) fn container(&self) -> &str {
        match self.url.username() {
            "" => self.url.host_str().unwrap_or_default(),
            container => container,
        }
    }

    /// One text with everything in it, which [`Location::parse`] takes apart again.
    pub(super) fn text(&self) -> String {
        let mut url = self.url.clone();
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&trimmed);
        let pairs = self.options.pairs();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        url.to_string()
    }
}

impl StoreOptions {
    /// What they are called in a URL.
    pub const NAMES: [&str; 4] = ["endpoint", "region", "path_style", "request_seconds"];

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "endpoint" => {
                let is_http = value.starts_with("http://") || value.starts_with("https://");
                if !is_http || Url::parse(value).is_err() {
                    return Err(format!("endpoint is `{value}`; write http(s)://HOST:PORT"));
                }
                self.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "region" => self.region = Some(value.to_owned()),
            "path_style" => match value.parse() {
                Ok(style) => self.path_style = Some(style),
                Err(_) => return Err(format!("path_style is `{value}`; write true or false")),
            },
            "request_seconds" => match value.parse() {
                Ok(seconds @ 1..=REQUEST_SECONDS_MAX) => self.request_seconds = Some(seconds),
                _ => {
                    return Err(format!(
                        "request_seconds is `{value}`; write 1 to {REQUEST_SECONDS_MAX}"
                    ));
                }
            },
            other => {
                let names = Self::NAMES.join(", ");
                return Err(format!("`{other}` is no option; there are {names}"));
            }
        }
        Ok(())
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        [
            ("endpoint", self.endpoint.clone()),
            ("region", self.region.clone()),
            ("path_style", self.path_style.map(|style| style.to_string())),
            ("request_seconds", self.request_seconds.map(|seconds| seconds.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }

    /// The URL of a store with these options, of which those it has itself are stronger. Local
    /// directories have none and stay as they are.
    pub fn applied_to(&self, location: &str) -> Result<String, StoreError> {
        if is_local(location) {
            return Ok(location.to_owned());
        }
        let mut location = Location::parse(location)?;
        let own = std::mem::take(&mut location.options);
        location.options = Self {
            endpoint: own.endpoint.or_else(|| self.endpoint.clone()),
            region: own.region.or_else(|| self.region.clone()),
            path_style: own.path_style.or(self.path_style),
            request_seconds: own.request_seconds.or(self.request_seconds),
        };
        // What came from elsewhere is checked like what stands in the URL.
        Location::parse(&location.text()).map(|location| location.text())
    }
}

/// Whether a location is a directory of this machine.
pub(super) fn is_local(location: &str) -> bool {
    location.starts_with("file://") || !location.contains("://")
}

/// URL of the object `key` in the store at `url`, for people.
pub fn object_url(url: &str, key: &object_store::path::Path) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    format!("{}/{key}", plain.trim_end_matches('/'))
}

/// Whether a URL seems to have a credential in it: a user with a password, a user where none belongs, a
/// signature or key among its options.
pub fn holds_secret(text: &str) -> bool {
    const WORDS: [&str; 8] =
        ["secret", "token", "signature", "credential", "password", "access_key", "key_id", "sas"];
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let is_azure = ["az", "abfs", "abfss"].contains(&scheme.to_ascii_lowercase().as_str());
    // A secret may itself hold a slash, so the sign is looked for in all that stands before the options.
    let before_options = rest.split(['?', '#']).next().unwrap_or_default();
    let has_user = match authority.split_once('@') {
        Some((user, _)) => !is_azure || user.contains(':'),
        None => authority.contains(':') && before_options.contains('@'),
    };
    let options = tail.split_once('?').map_or("", |(_, options)| options);
    let is_secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        let name = name.replace('-', "_");
        name == "sig" || name == "key" || WORDS.iter().any(|word| name.contains(word))
    };
    has_user || options.split('&').any(is_secret) || options.contains('@')
}

/// A URL without its options and without everything before its host.
fn without_secrets(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_says_where_and_how() {
        let text = "s3://runs/team/a?endpoint=http://127.0.0.1:9000/&region=eu-1&path_style=true";
        let location = Location::parse(text).unwrap();
        assert_eq!(location.container(), "runs");
        assert_eq!(location.options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(location.options.path_style, Some(true));
        let again = Location::parse(&location.text()).unwrap();
        assert_eq!(again, location);
        let azure = Location::parse("abfss://runs@account.dfs.core.windows.net/a").unwrap();
        assert_eq!((azure.container(), azure.protocol), ("runs", Protocol::Azure));
        let url = object_url(&location.text(), &"x/y".into());
        assert_eq!(url, "s3://runs/team/a/x/y");
    }

    #[test]
    fn wrong_options_are_named() {
        for (text, word) in [
            ("s3://runs?endpoint=host:9000", "http(s)://"),
            ("s3://runs?path_style=perhaps", "true or false"),
            ("s3://runs?request_seconds=0", "1 to 120"),
            ("s3://runs?regoin=x", "regoin"),
            ("s3:///a", "container"),
            ("s3://runs/team#1", "%23"),
            ("ftp://runs", "ftp://"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn settings_fill_in_what_a_url_does_not_say() {
        let options = StoreOptions {
            endpoint: Some("https://minio:9000".to_owned()),
            region: Some("eu-1".to_owned()),
            ..StoreOptions::default()
        };
        let text = options.applied_to("s3://runs?region=us-9").unwrap();
        let location = Location::parse(&text).unwrap();
        assert_eq!(location.options.endpoint.as_deref(), Some("https://minio:9000"));
        assert_eq!(location.options.region.as_deref(), Some("us-9"));
        assert_eq!(options.applied_to("muster-data").unwrap(), "muster-data");
        let wrong = StoreOptions { request_seconds: Some(1000), ..StoreOptions::default() };
        assert!(wrong.applied_to("s3://runs").is_err());
        let secret = StoreOptions {
            endpoint: Some("http://me:hunter2@minio".to_owned()),
            ..StoreOptions::default()
        };
        assert!(!secret.applied_to("s3://runs").unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@runs/a",
            "s3://AKIA:hun/ter2hunter2@runs/a",
            "s3://hunter2@runs/a",
            "s3://runs/a?aws_secret_access_key=hunter2",
            "s3://runs/a?X-Amz-Signature=hunter2",
            "s3://runs/a?endpoint=http://me:hunter2@minio:9000",
            "gs://runs/a?access_token=hunter2",
            "az://runs/a?sig=hunter2",
            "abfss://runs:hunter2@account.dfs.core.windows.net/a",
        ] {
            let error = Location::parse(text).unwrap_err();
            assert!(matches!(error, StoreError::InlineSecret { .. }), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
            assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in "[a-z]{1,5}://\\PC{0,40}") {
            if let Ok(location) = Location::parse(&text) {
                prop_assert_eq!(Location::parse(&location.text()).unwrap().options, location.options);
            }
        }
    }
}
