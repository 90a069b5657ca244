//! The credentials file that the tools of Amazon share, `~/.aws/credentials`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::sync::Arc;

/// Reads a profile of the file at every request, so that whoever renews it need not restart anything.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    profile: String,
}

impl CredentialsFile {
    /// The file that the environment names, or the one in the home directory, if it has the profile.
    /// `variable` gives the value of an environment variable.
    pub(super) fn find(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let at_home = || variable("HOME").map(|home| Path::new(&home).join(".aws/credentials"));
        let path = named.or_else(at_home)?;
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let found = Self { path, profile };
        found.read().ok().map(|_| found)
    }

    fn read(&self) -> Result<AwsCredential, String> {
        let text = std::fs::read_to_string(&self.path);
        let text = text.map_err(|error| format!("{}: {error}", self.path.display()))?;
        profile_of(&text, &self.profile).ok_or_else(|| {
            format!("{} has no whole profile `{}`", self.path.display(), self.profile)
        })
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // A few hundred bytes, read from the page cache in microseconds.
        let read = self.read().map(Arc::new);
        read.map_err(|reason| object_store::Error::Generic { store: "S3", source: reason.into() })
    }
}

/// Key and secret of a profile in the text of the file.
fn profile_of(text: &str, profile: &str) -> Option<AwsCredential> {
    let mut in_profile = false;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            in_profile = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| in_profile) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[ other ]\n\
        aws_access_key_id=C\naws_secret_access_key = D=\naws_session_token=E\n[half]\naws_access_key_id=F\n";

    #[tokio::test]
    async fn profiles_are_found_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, TEXT).unwrap();
        let find = |profile: &'static str| {
            CredentialsFile::find(|name| match name {
                "AWS_SHARED_CREDENTIALS_FILE" => Some(path.display().to_string()),
                "AWS_PROFILE" if !profile.is_empty() => Some(profile.to_owned()),
                _ => None,
            })
        };
        let read = find("").unwrap().get_credential().await.unwrap();
        assert_eq!((&*read.key_id, &*read.secret_key), ("A", "B"));
        let other = find("other").unwrap();
        let read = other.get_credential().await.unwrap();
        assert_eq!((&*read.secret_key, read.token.as_deref()), ("D=", Some("E")));
        assert!(find("half").is_none() && find("nobody").is_none());
        std::fs::write(&path, TEXT.replace("D=", "G")).unwrap();
        assert_eq!(other.get_credential().await.unwrap().secret_key, "G");
        std::fs::write(&path, "").unwrap();
        assert!(other.get_credential().await.unwrap_err().to_string().contains("`other`"));
    }
}
