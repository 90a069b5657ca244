//! Uploads that were begun and never ended: a writer that is killed in the middle of a large object leaves
//! its parts behind, which no listing of objects shows and which are paid for like others.
//!
//! In a directory they are files named like the object with `#NUMBER` behind it. Of an S3 store they are
//! asked for with `ListMultipartUploads`, for which `object_store` has no call, so the request is made
//! here with its credentials and its connector. Azure forgets blocks that were never committed after a week by
//! itself; Google's are left to the life-cycle rules of the container.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use http::Method;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer;
use serde::Deserialize;
use url::Url;

use super::store::{Store, StoreError};
use crate::time::Timestamp;

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunUpload {
    /// Key of the object that it would have become.
    pub key: Path,
    /// When it was begun; in a directory, when it was last written to.
    pub begun_at: Timestamp,
    /// Bytes that lie there, where they are known.
    pub bytes: Option<u64>,
    place: Place,
}

/// What is to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Upload(String),
}

impl Store {
    /// Uploads below `prefix` that were begun and neither ended nor given up, sorted by key. `None`: a store
    /// of this kind is not asked for them.
    pub async fn begun_uploads(
        &self,
        prefix: &Path,
    ) -> Result<Option<Vec<BegunUpload>>, StoreError> {
        let found = if let Some(directory) = self.local_path(prefix) {
            let prefix = prefix.clone();
            let walk = move || {
                let mut found = Vec::new();
                walk(&directory, &prefix, &mut found).map(|()| found)
            };
            let walked = tokio::task::spawn_blocking(walk).await;
            walked.map_err(std::io::Error::other).and_then(|found| found).map_err(|error| {
                object_store::Error::Generic { store: "local file", source: Box::new(error) }
            })
        } else if let Some(uploads) = self.uploads() {
            uploads.list(prefix).await
        } else {
            return Ok(None);
        };
        let mut found = found.map_err(|error| self.explain("list", prefix, error))?;
        found.sort_by(|a, b| a.key.cmp(&b.key).then(a.begun_at.cmp(&b.begun_at)));
        Ok(Some(found))
    }

    /// Removes what was uploaded; one that has ended meanwhile is no error.
    pub async fn give_up_upload(&self, upload: &BegunUpload) -> Result<(), StoreError> {
        let result = match &upload.place {
            Place::File(path) => match tokio::fs::remove_file(path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(object_store::Error::Generic {
                        store: "local file",
                        source: Box::new(error),
                    })
                }
                _ => Ok(()),
            },
            Place::Upload(id) => match self.uploads() {
                Some(uploads) => uploads.give_up(&upload.key, id).await,
                None => Ok(()),
            },
        };
        match result.map_err(|error| self.explain("delete", &upload.key, error)) {
            Ok(()) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Files that `object_store` writes before it renames them: `NAME#NUMBER`.
fn walk(
    directory: &FilePath,
    prefix: &Path,
    found: &mut Vec<BegunUpload>,
) -> Result<(), std::io::Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        // What is not text was not written by object_store.
        let Some(name) = name.to_str() else { continue };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &prefix.clone().join(name), found)?;
            continue;
        }
        let Some((stem, number)) = name.rsplit_once('#') else { continue };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // It became an object meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
        let begun_at = since.ok().and_then(|since| u64::try_from(since.as_millis()).ok());
        found.push(BegunUpload {
            key: prefix.clone().join(stem),
            begun_at: Timestamp(begun_at.unwrap_or_default()),
            bytes: Some(metadata.len()),
            place: Place::File(entry.path()),
        });
    }
    Ok(())
}

/// The uploads of an S3 container, below the prefix of a store.
#[derive(Debug, Clone)]
pub(super) struct S3Uploads {
    pub(super) store: Arc<AmazonS3>,
    /// A client is made when it is needed: most stores are never asked.
    pub(super) client: ClientOptions,
    pub(super) region: String,
    pub(super) signs: bool,
    pub(super) prefix: Path,
}

/// An answer to `ListMultipartUploads`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    upload: Vec<Entry>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    upload_id: String,
    initiated: String,
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: error.into() }
}

impl S3Uploads {
    async fn list(&self, prefix: &Path) -> object_store::Result<Vec<BegunUpload>> {
        let whole: Path = self.prefix.parts().chain(prefix.parts()).collect();
        let mut found = Vec::new();
        let mut markers: Option<(String, String)> = None;
        loop {
            let mut url = self.container().await?;
            {
                let mut pairs = url.query_pairs_mut();
                pairs.append_pair("uploads", "").append_pair("prefix", &format!("{whole}/"));
                if let Some((key, id)) = &markers {
                    pairs.append_pair("key-marker", key).append_pair("upload-id-marker", id);
                }
            }
            let text = self.ask(Method::GET, &url, &whole).await?;
            let listing: Listing = quick_xml::de::from_str(&text).map_err(wrong)?;
            for entry in listing.upload {
                let key = Path::parse(&entry.key)?;
                let Some(parts) = key.prefix_match(&self.prefix) else { continue };
                let key = parts.collect();
                let begun_at = chrono::DateTime::parse_from_rfc3339(&entry.initiated)
                    .map_err(wrong)?
                    .timestamp_millis();
                found.push(BegunUpload {
                    key,
                    begun_at: Timestamp(u64::try_from(begun_at).unwrap_or_default()),
                    bytes: None,
                    place: Place::Upload(entry.upload_id),
                });
            }
            let next = listing.next_key_marker.zip(listing.next_upload_id_marker);
            // A server that says there is more and not where would be asked for ever.
            match next.filter(|next| listing.is_truncated && markers.as_ref() != Some(next)) {
                Some(next) => markers = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn give_up(&self, key: &Path, id: &str) -> object_store::Result<()> {
        let mut url = self.container().await?;
        let whole: Path = self.prefix.parts().chain(key.parts()).collect();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(whole.parts().map(|part| part.as_ref().to_owned()));
        }
        url.query_pairs_mut().append_pair("uploadId", id);
        self.ask(Method::DELETE, &url, &whole).await.map(drop)
    }

    /// URL of the container: whatever style, endpoint or region, the client knows.
    async fn container(&self) -> object_store::Result<Url> {
        let lifetime = std::time::Duration::from_secs(60);
        let mut url = self.store.signed_url(Method::GET, &Path::from("x"), lifetime).await?;
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop();
        }
        Ok(url)
    }

    async fn ask(&self, method: Method, url: &Url, key: &Path) -> object_store::Result<String> {
        let request = http::Request::builder().method(method).uri(url.as_str());
        let mut request: HttpRequest = request.body(HttpRequestBody::empty()).map_err(wrong)?;
        if self.signs {
            let credential = self.store.credentials().get_credential().await?;
            AwsAuthorizer::new(&credential, "s3", &self.region)
                .try_authorize(&mut request, None)?;
        }
        let client = ReqwestConnector::default().connect(&self.client)?;
        let answer = client.execute(request).await.map_err(wrong)?;
        let status = answer.status();
        let bytes = answer.into_body().bytes().await.map_err(wrong)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let source = wrong(format!("the server answered {status}: {text}"));
        let path = key.to_string();
        Err(match status.as_u16() {
            404 => object_store::Error::NotFound { path, source: Box::new(source) },
            401 | 403 => object_store::Error::PermissionDenied { path, source: Box::new(source) },
            _ => source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_were_never_renamed_are_found_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let key = Path::from("a/b/part.bin");
        store.put(&key, b"whole".to_vec()).await.unwrap();
        let mut stray = store.local_path(&key).unwrap().into_os_string();
        stray.push("#7");
        std::fs::write(&stray, b"half").unwrap();
        std::fs::write(store.local_path(&Path::from("a/x")).unwrap(), b"").unwrap();
        let found = store.begun_uploads(&Path::from("a")).await.unwrap().unwrap();
        assert!(matches!(&found[..], [one] if one.key == key && one.bytes == Some(4)), "{found:?}");
        assert!(found[0].begun_at.0 > 1_600_000_000_000);
        assert_eq!(store.list(&Path::default()).await.unwrap().len(), 2);
        store.give_up_upload(&found[0]).await.unwrap();
        store.give_up_upload(&found[0]).await.unwrap();
        assert!(!FilePath::new(&stray).exists());
        assert_eq!(store.get(&key).await.unwrap().as_ref(), b"whole");
        assert_eq!(store.begun_uploads(&Path::from("none")).await.unwrap(), Some(Vec::new()));
        assert_eq!(Store::in_memory().begun_uploads(&Path::from("a")).await.unwrap(), None);
    }

    #[test]
    fn a_listing_is_read_as_amazon_documents_it() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Bucket>bucket</Bucket><KeyMarker/><UploadIdMarker/>
  <NextKeyMarker>my-movie.m2ts</NextKeyMarker>
  <NextUploadIdMarker>YW55IGlkZWE</NextUploadIdMarker>
  <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
  <Upload><Key>my-divisor</Key><UploadId>XMgbGlrZSBlbHZpbmcncyBub3Q</UploadId>
    <Initiator><ID>arn</ID></Initiator><StorageClass>STANDARD</StorageClass>
    <Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload>
  <Upload><Key>my-movie.m2ts</Key><UploadId>VXBsb2FkIElE</UploadId>
    <Initiated>2010-11-10T20:49:33.000Z</Initiated></Upload>
</ListMultipartUploadsResult>"#;
        let listing: Listing = quick_xml::de::from_str(text).unwrap();
        let keys: Vec<&str> = listing.upload.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["my-divisor", "my-movie.m2ts"]);
        assert!(listing.is_truncated && listing.next_key_marker.is_some());
        let empty = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
                     </ListMultipartUploadsResult>";
        let listing: Listing = quick_xml::de::from_str(empty).unwrap();
        assert!(listing.upload.is_empty() && listing.next_upload_id_marker.is_none());
    }
}
