//! Across hosts: encrypted connections, certificates that are compared, and tokens, with the real programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_common::access::Access;
use muster_tests::gang::{FOUR_TRIALS, Laboratory};
use muster_tests::hosts::{Host, Hosts};
use muster_tests::process::{Muster, PATIENCE, descendants, program, send_signal};
use muster_tests::sample::{Sample, repository, write_slow_manifest};
use muster_tests::service::{
    Place, Service, exported_weights, served_address, undisturbed_weights,
};
use muster_tests::skip;

/// Exit code of whoever is not let in.
const REFUSED: i32 = 4;
/// Variables of whoever runs the tests.
const OURS: [&str; 5] = [
    "MUSTER_COORDINATOR",
    "MUSTER_ACCESS",
    "MUSTER_FINGERPRINT",
    "MUSTER_TOKEN",
    "MUSTER_TOKEN_FILE",
];

struct Served {
    directory: tempfile::TempDir,
    server: Muster,
    url: String,
}

fn start(
    directory: &Path,
    name: &str,
    label: &str,
    environment: &[(&str, &str)],
    arguments: &[&str],
) -> Muster {
    let mut command = Command::new(program(name).unwrap());
    for name in OURS {
        command.env_remove(name);
    }
    // Nothing is found in the home of whoever runs the tests.
    command.env("HOME", directory).env_remove("XDG_CONFIG_HOME");
    command.envs(environment.iter().copied());
    Muster::start_command(command, directory, label, arguments).unwrap()
}

fn serve(directory: &Path, label: &str, listen: &str, arguments: &[&str]) -> (Muster, String) {
    let arguments = [&["serve", "--listen", listen], arguments].concat();
    let mut server = start(directory, "muster", label, &[], &arguments);
    let url = served_address(&mut server).unwrap();
    (server, url)
}

impl Served {
    fn start(listen: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (server, url) = serve(directory.path(), "serve", listen, arguments);
        Self { directory, server, url }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Of the owner, as the coordinator has written it.
    fn owner(&self) -> Access {
        Access::read(&self.path().join("muster-data/coordinator/access.json")).unwrap()
    }

    /// Makes an access file and says its name.
    fn token(&self, scope: &str, name: &str, more: &[&str]) -> String {
        let file = format!("{name}.json");
        let arguments = ["token", "create", "--scope", scope, "--name", name, "--output", &file];
        let made = start(self.path(), "muster", "token", &[], &[&arguments, more].concat());
        made.succeed().unwrap();
        file
    }

    /// Ends well, and says this.
    fn ask(&self, environment: &[(&str, &str)], arguments: &[&str]) -> String {
        let asked = start(self.path(), "muster", arguments[0], environment, arguments);
        asked.succeed().unwrap().0
    }

    /// Is refused with one line that has these words in it.
    fn refused(
        &self,
        program: &str,
        environment: &[(&str, &str)],
        arguments: &[&str],
        code: i32,
        words: &str,
    ) {
        let mut asked = start(self.path(), program, "refused", environment, arguments);
        let status = asked.wait().unwrap();
        let said = asked.stderr();
        assert_eq!(status.code(), Some(code), "{arguments:?} {environment:?}: {said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(words), "`{words}` in: {said}");
        assert!(asked.stdout().is_empty(), "{}", asked.stdout());
    }
}

/// This machine's address on its network.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Every file below a directory whose bytes contain `secret`.
fn files_with(directory: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path)
                .unwrap_or_default()
                .windows(secret.len())
                .any(|w| w == secret.as_bytes())
            {
                found.push(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// Where a secret is: in the file that was made for it, and in no log, journal or store.
fn secrets_are_kept(served: &Served, made: [(&str, &str); 2]) {
    for (file, access) in made {
        let token = Access::read(Path::new(access)).unwrap().token.unwrap().reveal();
        let secret = token.rsplit('_').next().unwrap();
        assert_eq!(files_with(served.path(), secret), [file]);
    }
    let token = served.owner().token.unwrap().reveal();
    let found = files_with(served.path(), token.rsplit('_').next().unwrap());
    assert_eq!(found, ["muster-data/coordinator/access.json"]);
}

#[test]
fn a_sweep_goes_through_tls_and_tokens_over_the_network_and_a_new_certificate() {
    let name = "a_sweep_goes_through_tls_and_tokens_over_the_network_and_a_new_certificate";
    let Some(address) = own_address() else {
        return skip(name, "network: this machine has no address but the loopback's");
    };
    let directory = tempfile::tempdir().unwrap();
    let sample = Sample { max_trials: 2, min_steps: 30 };
    // Slow, so that it is not over before somebody has seen it at work.
    if let Err(reason) = write_slow_manifest(directory.path(), &sample) {
        return skip(name, &reason);
    }
    let options = ["--tls", "auto", "--no-workers", "--log", "debug"];
    let (server, url) = serve(directory.path(), "serve", &format!("{address}:0"), &options);
    assert!(url.starts_with("https://"), "{url}");
    let mut served = Served { directory, server, url };
    let user = served.token("user", "anna", &[]);
    let worker = served.token("worker", "gpu-1", &[]);
    let mut supervisor = start(
        served.path(),
        "muster-worker",
        "worker",
        &[("MUSTER_ACCESS", worker.as_str()), ("MUSTER_LOG", "debug")],
        &["supervise"],
    );
    // Another directory: nothing is found there but what is named.
    let elsewhere = tempfile::tempdir().unwrap();
    let [user, worker] = [user, worker].map(|file| served.path().join(file).display().to_string());
    let ask = |arguments: &[&str]| {
        let environment = [("MUSTER_ACCESS", user.as_str())];
        let asked = start(elsewhere.path(), "muster", arguments[0], &environment, arguments);
        asked.succeed().unwrap().0
    };
    let manifest = served.path().join("sample.yaml").display().to_string();
    assert_eq!(ask(&["submit", &manifest]), "sample-1\n");
    let begun = Instant::now();
    while !ask(&["ls"]).contains("1 running") {
        assert!(begun.elapsed() < PATIENCE, "{}", supervisor.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }

    // The coordinator comes back with another certificate of the same authority.
    let tls = served.path().join("muster-data/coordinator/tls");
    let before = fs::read(tls.join("certificate.pem")).unwrap();
    served.server.terminate().unwrap();
    served.server.wait().unwrap();
    for file in ["certificate.pem", "certificate.key"] {
        fs::remove_file(tls.join(file)).unwrap();
    }
    let listen = served.url.strip_prefix("https://").unwrap().to_owned();
    (served.server, _) = serve(served.path(), "again", &listen, &options);
    assert_ne!(fs::read(tls.join("certificate.pem")).unwrap(), before);
    let result = ask(&["watch", "sample-1"]);
    assert!(result.contains("sample-1 completed"), "{result}");
    let said = |worker: &Muster| worker.stderr().contains("no line to the coordinator");
    supervisor.wait_for("word of the outage", |worker| said(worker).then_some(())).unwrap();

    secrets_are_kept(&served, [("anna.json", &user), ("gpu-1.json", &worker)]);

    // A worker whose token is taken away is out at once, and says why.
    served.ask(&[], &["token", "revoke", "gpu-1"]);
    let status = supervisor.wait().unwrap();
    assert_eq!(status.code(), Some(REFUSED), "{}", supervisor.stderr());
    assert!(supervisor.stderr().contains("revoked"), "{}", supervisor.stderr());
}

#[test]
fn a_token_that_does_not_fit_is_refused_with_its_reason() {
    let served = Served::start("127.0.0.1:0", &["--tls", "auto", "--no-workers"]);
    let other = Served::start("127.0.0.1:0", &["--tls", "auto", "--no-workers"]);
    // Whoever owns the directory needs to name nothing.
    assert_eq!(served.ask(&[], &["ls"]), "");
    let fingerprint = served.owner().fingerprint.unwrap().to_string();
    let named = ["ls", "--coordinator", served.url.as_str(), "--fingerprint", &fingerprint];
    let elsewhere =
        Served { directory: tempfile::tempdir().unwrap(), server: other.server, url: other.url };
    let with = |token: &str, code: i32, words: &str| {
        elsewhere.refused("muster", &[("MUSTER_TOKEN", token)], &named, code, words);
    };
    elsewhere.refused("muster", &[], &named, REFUSED, "asks for a token");
    with("hunter2", 2, "MUSTER_TOKEN: this is no token");
    let stranger =
        Access::read(&other.directory.path().join("muster-data/coordinator/access.json"));
    with(&stranger.unwrap().token.unwrap().reveal(), REFUSED, "none of this coordinator's");

    let file = |name: &str| served.path().join(name).display().to_string();
    let token = |name: &str| Access::read(Path::new(&file(name))).unwrap().token.unwrap().reveal();
    served.token("user", "short", &["--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1100));
    with(&token("short.json"), REFUSED, "the token `short` has expired");
    served.token("user", "anna", &[]);
    elsewhere.ask(&[("MUSTER_ACCESS", file("anna.json").as_str())], &["ls"]);
    let taken = ["token", "create", "--name", "anna"];
    served.refused("muster", &[], &taken, 2, "there is a token `anna`");
    served.ask(&[], &["token", "revoke", "anna"]);
    with(&token("anna.json"), REFUSED, "the token `anna` was revoked");
    served.token("worker", "gpu", &[]);
    with(&token("gpu.json"), REFUSED, "`gpu` has the scope `worker`, and this asks for `read`");
    served.token("read", "page", &[]);
    let page = [("MUSTER_ACCESS", file("page.json"))];
    let page = page.each_ref().map(|(name, value)| (*name, value.as_str()));
    elsewhere.ask(&page, &["ls"]);
    let cancel = ["cancel", "sample-1"];
    elsewhere.refused("muster", &page, &cancel, REFUSED, "`page` has the scope `read`");
    let supervise = ["supervise"];
    elsewhere.refused("muster-worker", &page, &supervise, REFUSED, "this asks for `worker`");

    let list = served.ask(&[], &["token", "ls"]);
    for words in ["short", "expired", "anna", "revoked", "gpu", "worker", "_owner", "good for"] {
        assert!(list.contains(words), "{words} in: {list}");
    }
    assert!(!list.contains(token("gpu.json").rsplit('_').next().unwrap()), "{list}");
    let list = served.ask(&[], &["token", "ls", "--json"]);
    assert!(!list.contains(token("gpu.json").rsplit('_').next().unwrap()), "{list}");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let named =
        |name: &str| list.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
    assert!(named("short")["expires_at_ms"].is_u64() && named("short")["valid"] == false, "{list}");
    assert!(named("anna")["revoked_at_ms"].is_u64() && named("anna")["valid"] == false, "{list}");
    assert!(named("gpu")["scope"] == "worker" && named("gpu")["valid"] == true, "{list}");
    assert!(named("gpu")["revoked_at_ms"].is_null(), "{list}");
}

#[test]
fn a_wrong_certificate_and_a_wrong_protocol_are_refused_with_the_mend() {
    let served = Served::start("127.0.0.1:0", &["--tls", "auto", "--no-workers"]);
    let open = Served::start("127.0.0.1:0", &["--no-workers"]);
    assert!(open.url.starts_with("http://"), "{}", open.url);
    assert!(!open.path().join("muster-data/coordinator/tls").exists());
    assert_eq!(open.ask(&[], &["ls", "--coordinator", &open.url]), "");
    // No directory of a coordinator, and no certificates but those of nobody.
    let nobody = open.path().join("nobody.pem").display().to_string();
    fs::write(&nobody, "").unwrap();
    let trusting = [("SSL_CERT_FILE", nobody.as_str())];
    let refused = |environment: &[(&str, &str)], arguments: &[&str], code, words: &str| {
        open.refused("muster", environment, &[&["ls"], arguments].concat(), code, words);
    };
    let url = served.url.as_str();
    let port = url.rsplit(':').next().unwrap();
    let clear = format!("http://127.0.0.1:{port}");
    let encrypted = open.url.replace("http://", "https://");
    let fingerprint = served.owner().fingerprint.unwrap().to_string();
    let wrong = format!("sha256:{}", "ab".repeat(32));
    refused(&[], &["--coordinator", &clear], REFUSED, "speaks TLS; write https://");
    let pinned = ["--coordinator", encrypted.as_str(), "--fingerprint", &fingerprint];
    refused(&[], &pinned, REFUSED, "does not speak TLS; if this is the right port, write http://");
    let other = ["--coordinator", url, "--fingerprint", &wrong];
    refused(&[], &other, REFUSED, &format!("expected {wrong}, shown sha256:"));
    refused(&trusting, &["--coordinator", url], REFUSED, "name its fingerprint");
    let mismatched = ["--coordinator", clear.as_str(), "--fingerprint", &fingerprint];
    refused(&[], &mismatched, 2, "write https://");
    refused(&[], &["--coordinator", url, "--fingerprint", "sha256:ab"], 2, "is no fingerprint");
    let token = served.owner().token.unwrap().reveal();
    let secret = [("MUSTER_TOKEN", token.as_str())];
    refused(&secret, &["--coordinator", "http://192.0.2.1:1"], 2, "in clear text");
    let worker = ["supervise", "--coordinator", url, "--fingerprint", &wrong];
    open.refused("muster-worker", &[], &worker, REFUSED, "not the expected one");
    let worker = ["supervise", "--coordinator", &clear];
    open.refused("muster-worker", &[], &worker, REFUSED, "speaks TLS");
    let worker = ["supervise", "--coordinator", &encrypted, "--fingerprint", &fingerprint];
    open.refused("muster-worker", &[], &worker, REFUSED, "does not speak TLS");
    open.refused("muster-worker", &[], &["supervise"], 2, "no coordinator is named");

    let file = open.path().join("loose.json");
    served.owner().write(&file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&file, mode).unwrap();
    refused(&[("MUSTER_ACCESS", "loose.json")], &[], 2, "chmod 600");

    for listen in ["0.0.0.0:0", "[::]:0"] {
        let arguments = ["serve", "--no-workers", "--listen", listen];
        open.refused("muster", &[], &arguments, 2, "--tls auto");
        let loose = [("MUSTER_TOKENS", "false")];
        let arguments = [&arguments[..], &["--tls", "auto"]].concat();
        open.refused("muster", &loose, &arguments, 2, "could run trainings");
    }
}

#[test]
fn a_cable_that_is_pulled_in_the_middle_of_a_sweep_loses_nothing() {
    let name = "a_cable_that_is_pulled_in_the_middle_of_a_sweep_loses_nothing";
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(reason) => return skip(name, &reason),
    };
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let laboratory = Laboratory::new(&model, 60, FOUR_TRIALS).unwrap();
    let directory = laboratory.directory.path();
    let text = laboratory.text.replace("{steps: 1000000}", "{steps: 2000}");
    fs::write(directory.join("gang.yaml"), text).unwrap();
    let wanted = undisturbed_weights(directory, "2").unwrap();
    // Longer than the moment and what a busy machine makes of it.
    fs::write(directory.join("muster.toml"), "lease_seconds = 12\n").unwrap();
    let (first, second) = (Place::On(&hosts, Host::First), Place::On(&hosts, Host::Second));
    let service = Service::start_secure(directory, first).unwrap();
    assert!(service.url.starts_with("https://"), "{}", service.url);
    let near = service.worker(first, "near").unwrap();
    let far = service.worker(second, "far").unwrap();
    service.ask(first, &["submit", "gang.yaml"]).unwrap();
    let await_stories = |what: &str, found: &dyn Fn(&[String]) -> bool| {
        let begun = Instant::now();
        loop {
            let stories = service.stories(first, "gang-1", 4);
            if found(&stories) {
                return stories;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what}: {stories:#?}{}", far.stderr());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let is_running = |story: &String| story.contains(" running: run ");
    await_stories("two at work", &|stories| stories.iter().filter(|s| is_running(s)).count() == 2);
    // A moment costs nothing.
    hosts.cut(Host::Second).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    hosts.heal(Host::Second).unwrap();
    // More than a lease does. The other worker does nothing meanwhile, so that the one that was lost has to come back.
    let runners = descendants(near.pid(), "muster-worker runner");
    hosts.cut(Host::Second).unwrap();
    send_signal("STOP", runners[0]).unwrap();
    let is_lost = |story: &String| story.contains("lost with a worker");
    let stories = await_stories("loss", &|stories| stories.iter().any(is_lost));
    let lost = stories.iter().position(is_lost).unwrap();
    hosts.heal(Host::Second).unwrap();
    await_stories("return", &|stories| is_running(&stories[lost]));
    assert!(far.stderr().contains("no line to the coordinator"), "{}", far.stderr());
    send_signal("CONT", runners[0]).unwrap();

    let (result, told) = service.ask(first, &["watch", "gang-1"]).unwrap();
    assert!(result.contains("gang-1 completed"), "{result}{told}");
    for (index, story) in service.stories(first, "gang-1", 4).iter().enumerate() {
        let counted = story.contains("2 runs, 1 restart of");
        assert_eq!(counted, index == lost, "nothing is done twice: {story}");
        assert!(is_lost(story) == (index == lost), "{story}");
    }
    assert!(exported_weights(directory, "gang-1").unwrap() == wanted, "the same bits");
}

/// What Python's own TLS, which is OpenSSL, and its HTTP client make of the port.
const PROBE: &str = r#"
import http.client, ssl, sys
host, port, authority = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=authority)
def get(path, token=None):
    line = http.client.HTTPSConnection(host, port, context=context, timeout=20)
    line.request("GET", path, headers={"Authorization": "Bearer " + token} if token else {})
    answer = line.getresponse()
    return answer.status, answer.read().decode()
tokens = [line.strip() for line in sys.stdin]
for path in ["/healthz", "/readyz", "/metrics", "/nothing"]:
    print(path, get(path)[0], *[get(path, token)[0] for token in tokens])
page = get("/metrics", tokens[0])[1]
print([line for line in page.splitlines() if "refused" in line or "connections" in line or "insecure" in line])
try:
    http.client.HTTPSConnection(host, port, timeout=20).request("GET", "/healthz")
    print("trusted by everybody")
except ssl.SSLCertVerificationError as error:
    print("not trusted:", error.verify_message)
"#;

#[test]
fn scrapers_show_a_token_and_local_workers_have_theirs() {
    let served = Served::start("127.0.0.1:0", &["--tls", "auto", "--slots", "1"]);
    served.token("read", "page", &[]);
    let token = |path: &str| {
        Access::read(&served.path().join(path)).unwrap().token.unwrap().reveal() + "\n"
    };
    let worker = "muster-data/coordinator/access/local.json";
    let begun = Instant::now();
    let said = loop {
        // Once more in each round: the worker takes a moment.
        fs::write(served.path().join("tokens"), token("page.json") + &token(worker)).unwrap();
        let (_, port) = served.url.rsplit_once(':').unwrap();
        let authority = served.path().join("muster-data/coordinator/tls/authority.pem");
        let output = Command::new("python3")
            .args(["-c", PROBE, "localhost", port, &authority.display().to_string()])
            .stdin(fs::File::open(served.path().join("tokens")).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        if said.contains("muster_worker_connections 1") {
            break said;
        }
        assert!(begun.elapsed() < PATIENCE, "{said}{}", served.server.stderr());
        std::thread::sleep(Duration::from_millis(300));
    };
    for line in [
        "/healthz 200 200 200",
        "/readyz 200 200 200",
        "/metrics 401 200 403",
        "/nothing 401 403 403",
        "not trusted:",
    ] {
        assert!(said.contains(line), "`{line}` in: {said}");
    }
    for counted in ["reason=\"missing\"} ", "reason=\"scope\"} ", "muster_insecure 0"] {
        assert!(said.contains(counted), "`{counted}` in: {said}");
    }
    assert!(!said.contains("reason=\"missing\"} 0"), "{said}");
}

/// Runs `openssl` with these words.
fn openssl(directory: &Path, words: &str) -> Result<String, String> {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
    let done = done.map_err(|error| format!("data: the program `openssl` is missing: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if !done.status.success() {
        return Err(format!("openssl {words}: {said}"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// An authority and a certificate of it, as a user may have them; the fingerprints of certificate and authority.
fn make_certificates(directory: &Path, name: &str) -> Result<[String; 2], String> {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30";
    if !directory.join("ca.pem").is_file() {
        openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=Ours"))?;
    }
    openssl(directory, &format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=Muster"))?;
    fs::write(directory.join("names"), format!("subjectAltName={name}\n")).unwrap();
    let sign = "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30";
    openssl(directory, &format!("{sign} -extfile names -out leaf.pem"))?;
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
    fs::write(directory.join("chain.pem"), read("leaf.pem") + &read("ca.pem")).unwrap();
    let fingerprint = |file: &str| -> Result<String, String> {
        let said = openssl(directory, &format!("x509 -in {file} -noout -fingerprint -sha256"))?;
        Ok(said.trim().rsplit('=').next().unwrap_or_default().to_owned())
    };
    Ok([fingerprint("leaf.pem")?, fingerprint("ca.pem")?])
}

#[test]
fn a_certificate_of_the_users_own_is_shown_and_compared() {
    let name = "a_certificate_of_the_users_own_is_shown_and_compared";
    let directory = tempfile::tempdir().unwrap();
    let [leaf, authority] = match make_certificates(directory.path(), "IP:127.0.0.1") {
        Ok(fingerprints) => fingerprints,
        Err(reason) => return skip(name, &reason),
    };
    let options = ["--no-workers", "--tls-cert", "chain.pem", "--tls-key", "leaf.key"];
    let (server, url) = serve(directory.path(), "serve", "127.0.0.1:0", &options);
    let mut served = Served { directory, server, url };
    assert_eq!(served.ask(&[], &["ls"]), "", "the owner names nothing");
    let token = served.owner().token.unwrap().reveal();
    let secret = ("MUSTER_TOKEN", token.as_str());
    let trusting = ("SSL_CERT_FILE", "ca.pem");
    let url = served.url.clone();
    let named = ["ls", "--coordinator", url.as_str()];
    let pinned = |fingerprint| [&named[..], &["--fingerprint", fingerprint]].concat();
    served.ask(&[secret], &pinned(&leaf));
    served.ask(&[secret], &pinned(&authority));
    // What was found there has the fingerprint too: away with it.
    let owner = served.path().join("muster-data/coordinator/access.json");
    fs::remove_file(&owner).unwrap();
    served.ask(&[secret, trusting], &named);
    served.refused("muster", &[secret], &named, REFUSED, "name its fingerprint");

    // Another certificate of the same authority, for another host: it is not this coordinator's.
    served.server.terminate().unwrap();
    served.server.wait().unwrap();
    make_certificates(served.path(), "DNS:other.example.org").unwrap();
    let listen = url.strip_prefix("https://").unwrap();
    (served.server, _) = serve(served.path(), "again", listen, &options);
    fs::remove_file(&owner).unwrap();
    served.refused("muster", &[secret], &pinned(&leaf), REFUSED, "not the expected one");
    served.refused("muster", &[secret], &pinned(&authority), REFUSED, "not valid for name");
    served.refused("muster", &[secret, trusting], &named, REFUSED, "not valid for name");

    fs::set_permissions(served.path().join("leaf.key"), mode_of_all()).unwrap();
    let again = [&["serve", "--listen", "127.0.0.1:0"][..], &options].concat();
    served.server.kill().unwrap();
    served.refused("muster", &[], &again, 2, "chmod 600");
}

fn mode_of_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
