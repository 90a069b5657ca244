//! Clients of remote stores: where they get their credentials, how long they wait and how often they try.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, ObjectStore, Result, RetryConfig,
};
use std::sync::Arc;

use super::credentials::CredentialsFile;
use super::location::{Location, Protocol, StoreOptions};
use super::uploads::S3Uploads;

/// Deadline of a request or of a part of a large object, unless the store's URL says otherwise.
const REQUEST: Duration = Duration::from_secs(30);
/// Deadline of a request whose answer somebody waits for at a terminal.
const REQUEST_SHORT: Duration = Duration::from_secs(5);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Of an S3 store that names none.
const REGION: &str = "us-east-1";

/// How long a client tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A store that is away for two minutes costs time only.
    Long,
    /// Somebody wants to know whether it works.
    Short,
}

impl Patience {
    /// The pause before a try is random between the first one and twice the one before.
    fn retries(self) -> RetryConfig {
        let (first_ms, longest, max_retries, seconds) = match self {
            Self::Long => (100, 10, 30, 120),
            Self::Short => (100, 1, 2, 10),
        };
        let (init_backoff, max_backoff) =
            (Duration::from_millis(first_ms), Duration::from_secs(longest));
        RetryConfig {
            backoff: BackoffConfig { init_backoff, max_backoff, base: 2.0 },
            max_retries,
            retry_timeout: Duration::from_secs(seconds),
        }
    }

    fn request(self, options: &StoreOptions) -> Duration {
        let chosen = options.request_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        match self {
            Self::Long => chosen.unwrap_or(REQUEST),
            Self::Short => chosen.unwrap_or(REQUEST_SHORT).min(REQUEST_SHORT),
        }
    }
}

/// A client for a remote store.
pub(super) struct Remote {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Of its keys.
    pub(super) prefix: Path,
    /// Where the store can be asked for them.
    pub(super) uploads: Option<S3Uploads>,
}

/// A client for `location`. `variable` gives the value of a variable of the
/// environment: it holds credentials, or says which file or role does, and what the URL leaves open.
pub(super) fn open(
    location: &Location,
    patience: Patience,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Remote> {
    let environment = Environment { variable };
    let prefix = Path::from_url_path(location.url.path())?;
    let mut uploads = None;
    let objects: Arc<dyn ObjectStore> = match location.protocol {
        Protocol::S3 => {
            let (store, begun) = amazon(location, patience, &environment, &prefix)?;
            uploads = Some(begun);
            store
        }
        Protocol::Google => Arc::new(google(location, patience, &environment)?),
        Protocol::Azure => Arc::new(azure(location, patience, &environment)?),
    };
    Ok(Remote { objects, prefix, uploads })
}

struct Environment<V> {
    variable: V,
}

impl<V: Fn(&str) -> Option<String>> Environment<V> {
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Deadlines, certificates of authorities, and whether plain HTTP is meant: it is where the endpoint
    /// says so.
    fn client(
        &self,
        location: &Location,
        patience: Patience,
        endpoint: Option<&str>,
    ) -> Result<ClientOptions> {
        let mut options = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(patience.request(&location.options))
            .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")));
        if let Some(path) = self.get("AWS_CA_BUNDLE") {
            let wrong = |source| Error::Generic { store: "AWS_CA_BUNDLE", source };
            let pem =
                std::fs::read(&path).map_err(|error| wrong(format!("{path}: {error}").into()))?;
            for certificate in Certificate::from_pem_bundle(&pem)? {
                options = options.with_root_certificate(certificate);
            }
        }
        Ok(options)
    }
}

/// Variables of Amazon's tools. Of each the first that is set counts.
const AMAZON: [(AmazonS3ConfigKey, &[&str]); 12] = [
    (AmazonS3ConfigKey::AccessKeyId, &["AWS_ACCESS_KEY_ID"]),
    (AmazonS3ConfigKey::SecretAccessKey, &["AWS_SECRET_ACCESS_KEY"]),
    (AmazonS3ConfigKey::Token, &["AWS_SESSION_TOKEN"]),
    (AmazonS3ConfigKey::WebIdentityTokenFile, &["AWS_WEB_IDENTITY_TOKEN_FILE"]),
    (AmazonS3ConfigKey::RoleArn, &["AWS_ROLE_ARN"]),
    (AmazonS3ConfigKey::RoleSessionName, &["AWS_ROLE_SESSION_NAME"]),
    (AmazonS3ConfigKey::StsEndpoint, &["AWS_ENDPOINT_URL_STS"]),
    (
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    ),
    (AmazonS3ConfigKey::ContainerCredentialsFullUri, &["AWS_CONTAINER_CREDENTIALS_FULL_URI"]),
    (
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
        &["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
    ),
    (AmazonS3ConfigKey::MetadataEndpoint, &["AWS_METADATA_ENDPOINT"]),
    (AmazonS3ConfigKey::SkipSignature, &["AWS_SKIP_SIGNATURE"]),
];

fn amazon<V: Fn(&str) -> Option<String>>(
    location: &Location,
    patience: Patience,
    environment: &Environment<V>,
    prefix: &Path,
) -> Result<(Arc<AmazonS3>, S3Uploads)> {
    let first = |names: &[&str]| names.iter().find_map(|name| environment.get(name));
    let options = &location.options;
    let of_environment = || first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
    let endpoint = options.endpoint.clone().or_else(of_environment);
    let region = options.region.clone().or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let client = environment.client(location, patience, endpoint.as_deref())?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(location.container())
        .with_retry(patience.retries())
        .with_client_options(client.clone());
    for (key, names) in AMAZON {
        if let Some(value) = first(names) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = &region {
        builder = builder.with_region(region);
    }
    let in_host = options.path_style == Some(false);
    builder = builder.with_virtual_hosted_style_request(in_host);
    builder = match endpoint {
        Some(endpoint) if in_host => builder.with_endpoint(endpoint.replacen(
            "://",
            &format!("://{}.", location.container()),
            1,
        )),
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    // The order of Amazon's tools: keys, web identity, file, then the roles of container and machine.
    let is_named = environment.has("AWS_ACCESS_KEY_ID")
        || environment.has("AWS_SKIP_SIGNATURE")
        || (environment.has("AWS_WEB_IDENTITY_TOKEN_FILE") && environment.has("AWS_ROLE_ARN"));
    if !is_named && let Some(file) = CredentialsFile::find(|name| environment.get(name)) {
        builder = builder.with_credentials(Arc::new(file));
    }
    let store = Arc::new(builder.build()?);
    let uploads = S3Uploads {
        store: Arc::clone(&store),
        client,
        region: region.unwrap_or_else(|| REGION.to_owned()),
        signs: !environment.has("AWS_SKIP_SIGNATURE"),
        prefix: prefix.clone(),
    };
    Ok((store, uploads))
}

/// Variables of Google's tools.
const GOOGLE: [(GoogleConfigKey, &str); 4] = [
    (GoogleConfigKey::ApplicationCredentials, "GOOGLE_APPLICATION_CREDENTIALS"),
    (GoogleConfigKey::ServiceAccount, "GOOGLE_SERVICE_ACCOUNT"),
    (GoogleConfigKey::ServiceAccountKey, "GOOGLE_SERVICE_ACCOUNT_KEY"),
    (GoogleConfigKey::SkipSignature, "GOOGLE_SKIP_SIGNATURE"),
];

fn google<V: Fn(&str) -> Option<String>>(
    location: &Location,
    patience: Patience,
    environment: &Environment<V>,
) -> Result<object_store::gcp::GoogleCloudStorage> {
    let endpoint = location.options.endpoint.as_deref();
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(location.container())
        .with_retry(patience.retries())
        .with_client_options(environment.client(location, patience, endpoint)?);
    for (key, name) in GOOGLE {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder.build()
}

/// Variables of Azure's tools, and of its identities for workloads.
const AZURE: [(AzureConfigKey, &[&str]); 9] = [
    (AzureConfigKey::AccountName, &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]),
    (AzureConfigKey::AccessKey, &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"]),
    (AzureConfigKey::SasKey, &["AZURE_STORAGE_SAS_TOKEN"]),
    (AzureConfigKey::ClientId, &["AZURE_CLIENT_ID"]),
    (AzureConfigKey::ClientSecret, &["AZURE_CLIENT_SECRET"]),
    (AzureConfigKey::AuthorityId, &["AZURE_TENANT_ID"]),
    (AzureConfigKey::FederatedTokenFile, &["AZURE_FEDERATED_TOKEN_FILE"]),
    (AzureConfigKey::MsiEndpoint, &["IDENTITY_ENDPOINT"]),
    (AzureConfigKey::UseAzureCli, &["AZURE_USE_AZURE_CLI"]),
];

fn azure<V: Fn(&str) -> Option<String>>(
    location: &Location,
    patience: Patience,
    environment: &Environment<V>,
) -> Result<object_store::azure::MicrosoftAzure> {
    let endpoint = location.options.endpoint.as_deref();
    let mut builder = MicrosoftAzureBuilder::new()
        .with_url(location.url.as_str())
        .with_retry(patience.retries())
        .with_client_options(environment.client(location, patience, endpoint)?);
    for (key, names) in AZURE {
        if let Some(value) = names.iter().find_map(|name| environment.get(name)) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use object_store::ObjectStoreExt;

    use super::*;

    /// Answers requests with 404 until nobody asks any more, and gives the first lines of what was asked.
    fn listen(num_requests: usize) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for _ in 0..num_requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    text.push(byte[0]);
                }
                let answer =
                    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
                asked.push(String::from_utf8(text).unwrap().to_lowercase());
            }
            asked
        });
        (address, thread)
    }

    /// What the first request for `a` in the store at `url` says, with these variables.
    async fn first_request(url: &str, variables: &[(&str, &str)]) -> String {
        let (address, server) = listen(1);
        let separator = if url.contains('?') { '&' } else { '?' };
        let location = Location::parse(&format!("{url}{separator}endpoint={address}")).unwrap();
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let store = open(&location, Patience::Short, variable).unwrap();
        let read = store.objects.get(&store.prefix.join("a")).await;
        assert!(matches!(read, Err(Error::NotFound { .. })), "{read:?}");
        server.join().unwrap().remove(0)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id1"), ("AWS_SECRET_ACCESS_KEY", "s")];

    #[tokio::test]
    async fn every_protocol_asks_its_endpoint_with_the_credentials_of_the_environment() {
        let amazon = first_request("s3://runs/x?region=eu-7", &KEYS).await;
        assert!(amazon.starts_with("get /runs/x/a "), "{amazon}");
        assert!(amazon.contains("credential=id1/") && amazon.contains("/eu-7/s3/"), "{amazon}");
        let google = first_request("gs://runs/x", &[("GOOGLE_SKIP_SIGNATURE", "true")]).await;
        assert!(google.starts_with("get /runs/x%2fa "), "{google}");
        let account =
            [("AZURE_STORAGE_ACCOUNT_NAME", "acc"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")];
        let azure = first_request("az://runs/x", &account).await;
        assert!(azure.contains("/runs/x/a ") && azure.contains("sharedkey acc:"), "{azure}");
    }

    #[tokio::test]
    async fn a_profile_of_the_file_is_used_where_no_key_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        std::fs::write(&file, "[b]\naws_access_key_id=id2\naws_secret_access_key=s\n").unwrap();
        let file = file.display().to_string();
        let of_file = [("AWS_SHARED_CREDENTIALS_FILE", file.as_str()), ("AWS_PROFILE", "b")];
        let asked = first_request("s3://runs", &of_file).await;
        assert!(asked.contains("credential=id2/"), "{asked}");
        let asked = first_request("s3://runs", &[&of_file[..], &KEYS[..]].concat()).await;
        assert!(asked.contains("credential=id1/"), "{asked}");
    }
}
