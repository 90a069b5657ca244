//! A real S3 server (`SeaweedFS`), one for each test program. It ends with the program, however that ends.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::PATIENCE;
use crate::sample::repository;

/// The credentials it knows.
pub const CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "tester"), ("AWS_SECRET_ACCESS_KEY", "tester-secret")];

/// Starts the server and ends it, and removes its directory, when standard input ends.
const KEEPER: &str = r#"
directory=$1; shift
"$@" >"$directory/log" 2>&1 &
server=$!
read -r _
kill -9 "$server"
wait "$server" 2>/dev/null
rm -rf "$directory"
"#;

/// The running server.
#[derive(Debug)]
pub struct S3Server {
    /// Whose standard input keeps it alive.
    _keeper: Child,
    port: u16,
    certificate: PathBuf,
}

impl S3Server {
    /// The server of this test program, or why there is none.
    pub fn shared() -> Result<&'static Self, String> {
        static SERVER: OnceLock<Result<S3Server, String>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, String> {
        let program = repository().join(".cache/s3-server/bin/weed");
        if !program.is_file() {
            return Err("s3: there is no S3 server; run deploy/setup/s3_server.sh".to_owned());
        }
        let started = Self::spawn(&program);
        started.map_err(|error| format!("broken: the S3 server does not start: {error:#}"))
    }

    fn spawn(program: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("muster-s3-").tempdir()?.keep();
        let [(_, id), (_, secret)] = CREDENTIALS;
        let identity = serde_json::json!({"identities": [{
            "name": "tester",
            "credentials": [{"accessKey": id, "secretKey": secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = directory.join("s3.json");
        fs::write(&config, identity.to_string())?;
        let port = free_ports()?;
        let certificate = certificate(&directory)?;
        let folder = directory.display();
        let mut command = Command::new("bash");
        command.args(["-c", KEEPER, "keeper"]).arg(&directory).arg(program);
        command.arg(format!("-logdir={folder}")).arg("server").arg(format!("-dir={folder}"));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=200"]);
        command.args(["-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0", "-filer", "-s3"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        let ports = [("s3", 0), ("master", 1), ("volume", 2), ("filer", 3)];
        for (name, offset) in ports {
            command.arg(format!("-{name}.port={}", port + offset));
        }
        command.arg(format!("-s3.port.https={}", port + 4));
        command.arg(format!("-s3.cert.file={}", certificate.display()));
        command.arg(format!("-s3.key.file={folder}/key.pem"));
        for name in ["s3", "filer"] {
            command.arg(format!("-{name}.localSocket={folder}/{name}.sock"));
        }
        command.arg(format!("-s3.config={}", config.display()));
        let keeper = command.current_dir(&directory).stdin(Stdio::piped()).spawn()?;
        let server = Self { _keeper: keeper, port, certificate };
        let begun = Instant::now();
        while !server.get("/healthz", 0).is_ok_and(|(status, _)| status == 200) {
            if begun.elapsed() > PATIENCE {
                bail!("{}", fs::read_to_string(directory.join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Its address, as `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its address for TLS.
    pub fn secure_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 4)
    }

    /// The certificate it shows there, which nobody has signed but itself.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Makes a container.
    pub fn create_container(&self, name: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            // This part of the server may come up after the one that was asked for its health.
            let answered = self.ask("POST", &format!("/buckets/{name}/"), b"", 3);
            if matches!(answered, Ok((201, _))) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("container {name}: {answered:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An object as it lies there, past the protocol that is tested.
    pub fn object(&self, container: &str, key: &str) -> anyhow::Result<Vec<u8>> {
        match self.get(&format!("/buckets/{container}/{key}"), 3)? {
            (200, bytes) => Ok(bytes),
            (status, _) => bail!("{key} in {container}: status {status}"),
        }
    }

    /// Puts an object there, past the protocol that is tested.
    pub fn put_object(&self, container: &str, key: &str, content: &[u8]) -> anyhow::Result<()> {
        match self.ask("PUT", &format!("/buckets/{container}/{key}"), content, 3)? {
            (201, _) => Ok(()),
            (status, _) => bail!("{key} in {container}: status {status}"),
        }
    }

    fn get(&self, path: &str, offset: u16) -> anyhow::Result<(u16, Vec<u8>)> {
        self.ask("GET", path, b"", offset)
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        content: &[u8],
        offset: u16,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port + offset))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            content.len()
        )?;
        stream.write_all(content)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no answer to {method} {path}: {line}"))?;
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok((status, body))
    }
}

/// Makes a certificate for this machine's own address, and the key beside it.
fn certificate(directory: &Path) -> anyhow::Result<PathBuf> {
    let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
        -keyout key.pem -out certificate.pem";
    let mut command = Command::new("openssl");
    let made = command.args(arguments.split_whitespace()).current_dir(directory).output()?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(directory.join("certificate.pem"))
}

/// The first of five ports in a row that are free, as are those 10,000 above.
fn free_ports() -> anyhow::Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let seed = u16::try_from(std::process::id() % 2000).unwrap_or_default();
    (0..2000)
        .map(|n| 20_000 + (seed + n) % 2000 * 5)
        .find(|port| (0..5).all(|n| free(port + n) && free(port + n + 10_000)))
        .context("no free ports")
}
