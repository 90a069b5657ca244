//! The dashboard: its API and login against a real coordinator, and its pages in a real browser.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_common::access::Access;
use muster_tests::browser::{browse, browser};
use muster_tests::http::{Answer, request};
use muster_tests::process::{Muster, PATIENCE, program};
use muster_tests::sample::{Sample, write_manifest};
use muster_tests::service::served_address;
use muster_tests::skip;
use serde_json::{Value, json};

/// What actions ask for.
const OWN: (&str, &str) = ("x-muster-request", "1");
const PAGE: (&str, &str) = ("accept", "text/html,application/xhtml+xml");

struct Served {
    directory: tempfile::TempDir,
    server: Muster,
    url: String,
}

impl Served {
    /// A coordinator; with `tokens` it asks for them, in clear text, which on the loopback address it may.
    fn start(directory: tempfile::TempDir, arguments: &[&str], tokens: bool) -> Self {
        let mut command = Command::new(program("muster").unwrap());
        command.env("HOME", directory.path()).env("MUSTER_TOKENS", tokens.to_string());
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut server =
            Muster::start_command(command, directory.path(), "serve", &arguments).unwrap();
        let url = served_address(&mut server).unwrap();
        Self { directory, server, url }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let all = [arguments, &["--coordinator", &self.url]].concat();
        Muster::start(self.path(), arguments[0], &all).unwrap().succeed().unwrap().0
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request("GET", &format!("{}{path}", self.url), headers, "").unwrap()
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1{path}"), &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json().unwrap()
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request("POST", &format!("{}{path}", self.url), headers, body).unwrap()
    }

    /// The secret of a new token.
    fn token(&self, scope: &str, name: &str) -> String {
        let file = format!("{name}.json");
        let arguments = ["token", "create", "--scope", scope, "--name", name, "--output", &file];
        let mut command = Command::new(program("muster").unwrap());
        command.env("HOME", self.path());
        let made = Muster::start_command(command, self.path(), "token", &arguments).unwrap();
        made.succeed().unwrap();
        Access::read(&self.path().join(file)).unwrap().token.unwrap().reveal()
    }

    fn log_in(&self, token: &str) -> Answer {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.post("/login", &form, &format!("token={token}&next=%2Fcluster"))
    }

    /// Waits until an answer fits.
    fn wait(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.json(path);
            if fits(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{path}: {answer}\n{}", self.server.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A coordinator with one finished experiment, or why there is none.
fn with_a_sweep(name: &str, sample: &Sample, slots: &str) -> Option<Served> {
    let directory = tempfile::tempdir().unwrap();
    if let Err(reason) = write_manifest(directory.path(), sample) {
        skip(name, &reason);
        return None;
    }
    let served = Served::start(directory, &["--slots", slots, "--threads-per-slot", "1"], false);
    served.ask(&["submit", "sample.yaml"]);
    served.ask(&["watch", "sample-1"]);
    Some(served)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn the_api_says_what_a_sweep_did() {
    let sample = Sample { max_trials: 6, min_steps: 4 };
    let Some(served) = with_a_sweep("the_api_says_what_a_sweep_did", &sample, "2") else { return };
    let all = served.json("/experiments");
    assert_eq!(
        (all["total"].as_u64(), &all["experiments"][0]["id"]),
        (Some(1), &json!("sample-1"))
    );
    assert_eq!(served.json("/experiments?state=open")["total"], 0);
    assert_eq!(served.json("/experiments?q=SAMP")["total"], 1);

    let one = served.json("/experiments/sample-1");
    assert_eq!((&one["state"], &one["num_trials"]), (&json!("completed"), &json!(6)), "{one}");
    assert_eq!(one["objectives"], json!([{ "metric": "loss", "mode": "min" }]));
    let names: Vec<&Value> = list(&one, "parameters").iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["dropout", "global_batch_size", "learning_rate"]);
    let saved = one["savings"]["saved_share"].as_f64().unwrap();
    assert!(saved > 0.2 && saved < 0.9, "{}", one["savings"]);
    assert!(one["best"]["test"].is_number(), "{one}");
    assert!(!list(&one, "decisions").is_empty());

    trials_are_found(&served, &one);
    pictures_have_data(&served);
    one_trial_is_told(&served, one["best"]["trial"].as_u64().unwrap());

    for (path, status, words) in [
        ("/experiments/none-1", 404, "no experiment `none-1`"),
        ("/experiments/sample-1/trials/99", 404, "there are 6 so far"),
        ("/experiments/Bad Name", 400, ""),
        ("/experiments/sample-1/trials?sort=nothing", 400, "no column `nothing`"),
        ("/experiments/sample-1/trials?size=many", 400, "size"),
        ("/experiments/sample-1/trials?limit=3", 400, "unknown parameter `limit`; known here: `q`"),
        ("/cluster?size=3", 400, "unknown parameter `size`; known here: none"),
    ] {
        let answer = served.get(&format!("/api/v1{}", path.replace(' ', "%20")), &[]);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
}

fn trials_are_found(served: &Served, one: &Value) {
    let path = "/experiments/sample-1/trials";
    let ranked = served.json(path);
    assert_eq!(ranked["total"], 6);
    assert_eq!(ranked["trials"][0]["number"], one["best"]["trial"], "{ranked}");
    let losses: Vec<f64> =
        list(&ranked, "trials").iter().map(|t| t["objectives"][0].as_f64().unwrap()).collect();
    assert!(losses.is_sorted(), "{losses:?}");
    let page = served.json(&format!("{path}?size=2&page=2"));
    assert_eq!(list(&page, "trials").len(), 2);
    assert_eq!(page["trials"][0], ranked["trials"][2]);
    let rates = served.json(&format!("{path}?sort=p.learning_rate&descending=1"));
    let rate = |t: &Value| t["parameters"]["learning_rate"].as_f64().unwrap();
    let rates: Vec<f64> = list(&rates, "trials").iter().map(rate).collect();
    assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
    let few = served.json(&format!("{path}?min.learning_rate={}", rates[2]));
    assert_eq!(few["total"], 3);
    assert_eq!(served.json(&format!("{path}?q=t3"))["trials"][0]["number"], 3);
    let stopped = served.json(&format!("{path}?state=stopped"));
    assert_eq!(stopped["total"], one["trials"]["stopped"], "{stopped}");
    assert!(stopped["trials"][0]["reason"].as_str().unwrap().contains(" of "), "{stopped}");
}

fn pictures_have_data(served: &Served) {
    let results = served.json("/experiments/sample-1/results");
    assert_eq!((list(&results, "trials").len(), &results["metric"]), (6, &json!("loss")));
    let num_results: usize = list(&results, "trials").iter().map(|t| list(t, "steps").len()).sum();
    assert_eq!(list(&served.json("/experiments/sample-1/results?limit=2"), "trials").len(), 2);
    let points = served.json("/experiments/sample-1/points");
    assert_eq!(list(&points, "numbers").len(), 6);
    assert!(list(&points, "values").iter().all(|column| column.as_array().unwrap().len() == 6));
    let rungs = served.json("/experiments/sample-1/rungs");
    let counts: Vec<u64> =
        list(&rungs, "rungs").iter().map(|r| r["num_results"].as_u64().unwrap()).collect();
    assert_eq!((counts.len(), counts[0]), (3, 6), "{rungs}");
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), num_results as u64, "{rungs} {results}");
    let of_first = &rungs["rungs"][0];
    let fates =
        of_first["num_promoted"].as_u64().unwrap() + of_first["num_stopped"].as_u64().unwrap();
    assert_eq!(fates, 6, "{of_first}");
    let times = served.json("/experiments/sample-1/timeline");
    assert_eq!(list(&times, "slots").len(), 2, "{times}");
    assert!(list(&times, "spans").iter().any(|span| span["task"] == "finish"), "{times}");
    assert!(list(&times, "spans").iter().all(|span| span["to_ms"].is_number()), "{times}");
    let importance = served.json("/experiments/sample-1/importance");
    assert_eq!(importance["num_results"], 6, "{importance}");
    let reason = importance["reason"].as_str().unwrap();
    assert!(importance["shares"].is_null() && reason.contains("6 results"), "{importance}");
}

fn one_trial_is_told(served: &Served, best: u64) {
    let path = format!("/experiments/sample-1/trials/{best}");
    let trial = served.json(&path);
    assert_eq!(
        (&trial["rank"], &trial["goals"][0]["metric"]),
        (&json!(1), &json!("loss")),
        "{trial}"
    );
    assert_eq!(list(&trial, "results").len() as u64, trial["rungs_passed"].as_u64().unwrap());
    let confusion = trial["test"]["confusion"].as_array().unwrap();
    let count: u64 =
        confusion.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((confusion.len(), count), (2, 80), "{trial}");
    let why = trial["why"][0].as_str().unwrap();
    assert!(why.starts_with(trial["state"].as_str().unwrap()), "{trial}");
    let curves = served.json(&format!("{path}/curves"));
    let named = |name: &str| list(&curves, "curves").iter().find(|c| c["name"] == name).cloned();
    let loss = named("train_loss").unwrap();
    assert_eq!(list(&loss, "steps").last(), Some(&trial["step"]), "{loss}");
    assert_eq!(list(&loss, "steps").len() as u64, trial["step"].as_u64().unwrap(), "{loss}");
    assert_eq!(loss["unit"], "nats");
    assert!(named("learning_rate").is_some() && named("grad_norm").is_some(), "{curves}");
    let thin = served.json(&format!("{path}/curves?name=train_loss&points=5"));
    assert_eq!(list(&thin, "curves").len(), 1);
    assert!(list(&thin["curves"][0], "steps").len() <= 5, "{thin}");
    let saved = served.json(&format!("{path}/checkpoints"));
    assert!(list(&saved, "checkpoints").iter().any(|c| c["is_best"] == true), "{saved}");
    assert!(list(&saved, "checkpoints").iter().all(|c| c["bytes"].as_u64().unwrap() > 1000));
    let used = served.json(&format!("{path}/equipment"));
    let kind = &list(&used, "workers")[0];
    assert_eq!((&kind["threads"], &used["problem"]), (&json!(1), &json!("")), "{used}");
    assert!(!kind["processor"].as_str().unwrap().is_empty() && kind["memory_bytes"].is_u64());
    let log = served.json(&format!("{path}/logs"));
    assert!(!list(&log, "lines").is_empty());
    // What the trial says at its very end may come in between; nothing is said twice or left out.
    let more = served.json(&format!("{path}/logs?from={}", log["next"]));
    let all = served.json(&format!("{path}/logs"));
    let both = [list(&log, "lines").as_slice(), list(&more, "lines")].concat();
    assert!(list(&all, "lines").starts_with(&both), "{log} {more} {all}");
}

#[test]
fn files_are_strict_small_and_known_again() {
    let served = Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], false);
    let page = served.get("/experiments/any-1", &[]);
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.text().contains("style=") && !page.text().contains("://"), "{}", page.text());
    let plain = served.get("/assets/echarts.js", &[]);
    let packed = served.get("/assets/echarts.js", &[("accept-encoding", "br, gzip")]);
    assert_eq!((plain.status, packed.header("content-encoding")), (200, "gzip"));
    assert!(packed.body.len() * 2 < plain.body.len());
    let known = [("if-none-match", plain.header("etag"))];
    let again = served.get("/assets/echarts.js", &known);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(served.get("/assets/style.css", &known).status, 200);
    for path in ["/assets/nothing.js", "/assets/..%2f..%2fCargo.toml", "/assets/login.html"] {
        assert_eq!(served.get(path, &[]).status, 404, "{path}");
    }
    let nowhere = served.get("/nowhere", &[("accept", "text/html,*/*;q=0.8")]);
    assert_eq!((nowhere.status, nowhere.body == page.body), (404, true), "people get a page");
    assert_eq!(served.get("/nowhere", &[]).text(), "no page `/nowhere`\n");
}

#[test]
fn other_sites_cannot_act_nor_look_by_a_name_of_theirs() {
    let served = Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], false);
    let path = "/api/v1/experiments/any-1/cancel";
    let status = |headers: &[(&str, &str)]| served.post(path, headers, "").status;
    assert_eq!(status(&[OWN]), 404, "a script may, and there is no such experiment");
    assert_eq!(status(&[]), 403, "a form cannot set a header");
    assert_eq!(status(&[OWN, ("origin", "http://evil.example")]), 403);
    assert_eq!(status(&[OWN, ("origin", "null")]), 403);
    assert_eq!(status(&[OWN, ("sec-fetch-site", "cross-site")]), 403);
    assert_eq!(status(&[OWN, ("origin", &served.url)]), 404);
    // A name that was made to mean this machine.
    let answer = served.get("/api/v1/experiments", &[("host", "evil.example:7700")]);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(served.get("/api/v1/experiments", &[("host", "localhost:7700")]).status, 200);
}

/// The cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[test]
fn people_log_in_once_and_are_out_when_their_token_is_taken_away() {
    let served = Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], true);
    // Machines hear what they heard before, browsers are led to the login.
    let machine = served.get("/api/v1/experiments", &[]);
    assert_eq!((machine.status, machine.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(served.get("/", &[]).status, 401);
    let visit = served.get("/experiments/demo-1?x=1", &[PAGE]);
    assert_eq!(
        (visit.status, visit.header("location")),
        (303, "/login?next=%2Fexperiments%2Fdemo-1%3Fx%3D1")
    );
    let form = served.get(visit.header("location"), &[PAGE]);
    assert!(form.status == 200 && form.text().contains("value=\"/experiments/demo-1?x=1\""));
    for name in ["style.css", "controls.css", "colours.css"] {
        assert_eq!(
            served.get(&format!("/assets/{name}"), &[]).status,
            200,
            "the login looks like the rest"
        );
    }
    assert_eq!(served.get("/assets/main.js", &[]).status, 401);

    let anna = served.token("user", "anna");
    for (wrong, words) in [
        ("nonsense".to_owned(), "no token of this coordinator"),
        (anna.replace(&anna[20..24], "0000"), "no token of this coordinator"),
        (served.token("worker", "w"), "for workers"),
        (String::new(), "Paste a token"),
    ] {
        let answer = served.log_in(&wrong);
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.text().contains(words), "`{words}` in {}", answer.text());
        assert!(answer.header("set-cookie").is_empty());
    }
    let elsewhere = [("origin", "http://evil.example")];
    assert_eq!(served.post("/login", &elsewhere, &format!("token={anna}")).status, 403);

    let answer = served.log_in(&anna);
    assert_eq!((answer.status, answer.header("location")), (303, "/cluster"));
    let set = answer.header("set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    assert!(!set.contains(&anna), "a cookie is no token");
    let anna_cookie = cookie(&answer);
    let own = [("cookie", anna_cookie.as_str())];
    assert_eq!(served.get("/", &own).status, 200);
    let who = served.get("/api/v1/session", &own).json().unwrap();
    assert_eq!((&who["name"], &who["may_act"]), (&json!("anna"), &json!(true)));
    // The cookie opens pages, not the services of programs.
    let grpc = [("cookie", anna_cookie.as_str()), ("content-type", "application/grpc")];
    let call = served.post("/muster.v1.ControlService/ListExperiments", &grpc, "");
    assert_eq!(call.header("grpc-status"), "16", "{call:?}");
    let acting = [("cookie", anna_cookie.as_str()), OWN];
    assert_eq!(served.post("/api/v1/experiments/x-1/pause", &acting, "").status, 404);
    assert_eq!(served.post("/api/v1/experiments/x-1/pause", &own, "").status, 403);

    readers_only_look(&served);

    let out = served.post("/logout", &own, "");
    assert_eq!((out.status, out.header("location")), (303, "/login?why=left"));
    assert_eq!(served.get("/api/v1/session", &own).status, 401, "the session is over here too");

    taken_away(&served, &anna);
}

fn readers_only_look(served: &Served) {
    let reader = cookie(&served.log_in(&served.token("read", "rita")));
    let own = [("cookie", reader.as_str()), OWN];
    let who = served.get("/api/v1/session", &own).json().unwrap();
    assert_eq!((&who["name"], &who["may_act"]), (&json!("rita"), &json!(false)));
    let refused = served.post("/api/v1/experiments/x-1/pause", &own, "");
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("has the scope `read`"), "{}", refused.text());
}

/// A stream ends, and the session with it.
fn taken_away(served: &Served, anna: &str) {
    let again = cookie(&served.log_in(anna));
    let address = served.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\ncookie: {again}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("event: "));
    assert_eq!(first.as_deref(), Some("event: change"));
    let revoke = ["token", "revoke", "anna"];
    let mut command = Command::new(program("muster").unwrap());
    command.env("HOME", served.path());
    Muster::start_command(command, served.path(), "revoke", &revoke).unwrap().succeed().unwrap();
    let begun = Instant::now();
    // The connection is kept, the stream on it has an end.
    let ended =
        lines.map_while(Result::ok).any(|line| line == "0" || line.starts_with("grpc-status"));
    assert!(ended && begun.elapsed() < Duration::from_secs(30), "the stream goes on");
    let own = [("cookie", again.as_str())];
    let answer = served.get("/api/v1/session", &own);
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert!(answer.text().contains("was revoked"), "{}", answer.text());
    let visit = served.get("/cluster", &[own[0], PAGE]);
    assert_eq!(visit.header("location"), "/login?next=%2Fcluster&why=revoked");
}

#[test]
fn what_people_ask_for_is_done() {
    let name = "what_people_ask_for_is_done";
    let directory = tempfile::tempdir().unwrap();
    let sample = Sample { max_trials: 4, min_steps: 4 };
    if let Err(reason) = write_manifest(directory.path(), &sample) {
        return skip(name, &reason);
    }
    // Without workers everything waits, and says so.
    let served = Served::start(directory, &["--no-workers"], false);
    served.ask(&["submit", "sample.yaml"]);
    let act =
        |path: &str, body: &str| served.post(&format!("/api/v1/experiments/{path}"), &[OWN], body);
    let one = || served.json("/experiments/sample-1");
    assert!(one()["reason"].as_str().unwrap().contains("no"), "{}", one());
    assert_eq!(act("sample-1/pause", "").status, 200);
    assert_eq!(one()["paused"], true);
    assert_eq!(act("sample-1/resume", "").status, 200);
    assert_eq!(one()["paused"], false);
    assert_eq!(act("sample-1/priority", r#"{"priority": 7}"#).status, 200);
    assert_eq!(one()["priority"], 7);
    for wrong in ["", r#"{"priority": 1000000}"#, r#"{"prio": 1}"#, "no json"] {
        assert_eq!(act("sample-1/priority", wrong).status, 400, "{wrong}");
    }
    assert_eq!(act("sample-1/explode", "").status, 404);

    let wish = r#"{"set": ["description=another one"], "preview": true}"#;
    let preview = act("sample-1/fork", wish).json().unwrap();
    assert!(preview["manifest"].as_str().unwrap().contains("another one"), "{preview}");
    assert_eq!(served.json("/experiments")["total"], 1, "looked at, not made");
    let made = act("sample-1/fork", r#"{"set": ["description=another one"]}"#).json().unwrap();
    assert_eq!(made["experiment"], "sample-2");
    assert_eq!(served.json("/experiments/sample-2")["description"], "another one");
    let wrong = act("sample-1/fork", r#"{"set": ["searcher.max_trials=none"]}"#);
    assert_eq!(wrong.status, 400, "{}", wrong.text());

    assert_eq!(act("sample-2/cancel", "").status, 200);
    assert_eq!(served.json("/experiments/sample-2")["state"], "canceled");
    let again = act("sample-2/cancel", "");
    assert_eq!(again.status, 409, "{}", again.text());
    assert_eq!(act("sample-1/trials/1/pause", "").status, 409, "there is no trial yet");
    let cluster = served.json("/cluster");
    assert_eq!(
        (&cluster["num_slots"], &cluster["waiting"][0]["experiment"]),
        (&json!(0), &json!("sample-1"))
    );
}

/// With `layer_decay` the curves say at which rate each group of parameters learns: the head, the pooler and the one
/// layer that is not frozen.
#[test]
fn groups_of_parameters_have_learning_rates() {
    let name = "groups_of_parameters_have_learning_rates";
    let directory = tempfile::tempdir().unwrap();
    let manifest = match write_manifest(directory.path(), &Sample { max_trials: 1, min_steps: 3 }) {
        Ok(manifest) => manifest,
        Err(reason) => return skip(name, &reason),
    };
    let text = std::fs::read_to_string(&manifest).unwrap();
    let decayed = text.replace("hyperparameters:\n", "hyperparameters:\n  layer_decay: 0.5\n");
    std::fs::write(&manifest, decayed).unwrap();
    let served = Served::start(directory, &["--slots", "1", "--threads-per-slot", "1"], false);
    served.ask(&["submit", "sample.yaml"]);
    served.ask(&["watch", "sample-1"]);
    let answer = served.json("/experiments/sample-1/trials/1/curves");
    let curve = |name: &str| -> Vec<(u64, f64)> {
        let all = list(&answer, "curves").iter();
        let mut named = all.filter(|curve| curve["name"] == name);
        let found = named.next().unwrap_or_else(|| panic!("no {name} in {answer}"));
        let steps = list(found, "steps").iter().map(|step| step.as_u64().unwrap());
        steps.zip(list(found, "means").iter().map(|value| value.as_f64().unwrap())).collect()
    };
    let whole = curve("learning_rate");
    for (group, share) in [1.0, 0.5, 0.25].into_iter().enumerate() {
        let rates = curve(&format!("learning_rate_group_{group}"));
        assert!(!rates.is_empty(), "{answer}");
        for (step, rate) in rates {
            let (_, of_head) = whole.iter().find(|(at, _)| *at == step).unwrap();
            assert!((rate - of_head * share).abs() <= 1e-6 * of_head, "{group} {step}: {answer}");
        }
    }
    let names = list(&answer, "curves").iter().filter_map(|curve| curve["name"].as_str());
    assert_eq!(names.filter(|name| name.starts_with("learning_rate_group_")).count(), 3);
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let variables = [("MUSTER_URL", served.url.as_str()), ("MUSTER_FINISHED", "sample-1")];
    let said = browse("groups.mjs", served.path(), &variables).unwrap();
    assert!(said.contains("3 groups are drawn"), "{said}");
}

/// A log is sent line by line as it is written, from the place that is asked for, or where the reader was before.
#[test]
fn a_log_comes_as_events() {
    let sample = Sample { max_trials: 1, min_steps: 4 };
    let Some(served) = with_a_sweep("a_log_comes_as_events", &sample, "1") else { return };
    let path = "/experiments/sample-1/trials/1/logs";
    let log = served.json(path);
    let lines: Vec<&str> = list(&log, "lines").iter().map(|line| line.as_str().unwrap()).collect();
    assert!(lines.len() > 1, "{log}");
    let (place, first) = next_lines(&served, &format!("{path}/live?from=0"), "");
    // What the trial says at its very end may come in between.
    assert!(
        first.len() >= lines.len() && first.iter().zip(&lines).all(|(a, b)| a == b),
        "{first:?}"
    );
    assert!(place.parse::<u64>().unwrap() >= log["next"].as_u64().unwrap(), "{place} {log}");
    // A browser that was cut off says where it was, whatever the address says.
    let file = served.path().join("muster-data/coordinator/logs/sample-1.log");
    let mut file = std::fs::File::options().append(true).open(file).unwrap();
    file.write_all(b"t1\tsomebody\tone more line\nt2\tsomebody\tof another\n").unwrap();
    let known = format!("last-event-id: {place}\r\n");
    let (_, more) = next_lines(&served, &format!("{path}/live?from=0"), &known);
    assert!(more.contains(&"t1  somebody  one more line".to_owned()), "{more:?}");
    assert!(!more.iter().any(|line| line.starts_with("t2") || *line == first[0]), "{more:?}");
}

/// The place and the lines of the first event of a log.
fn next_lines(served: &Served, path: &str, headers: &str) -> (String, Vec<String>) {
    let address = served.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /api/v1{path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut after = |begin: &str| {
        let found = lines.find_map(|line| line.strip_prefix(begin).map(ToOwned::to_owned));
        found.unwrap_or_else(|| panic!("the stream ends without `{begin}`"))
    };
    let place = after("id: ");
    assert_eq!(after("event: "), "lines");
    (place, serde_json::from_str(&after("data: ")).unwrap())
}

/// Every page, live, in a real browser, and what people may do there.
#[test]
fn a_browser_sees_every_page_and_acts() {
    let name = "a_browser_sees_every_page_and_acts";
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let sample = Sample { max_trials: 8, min_steps: 6 };
    let Some(served) = with_a_sweep(name, &sample, "1") else { return };
    // One that goes on for as long as it is looked at.
    write_manifest(served.path(), &Sample { max_trials: 30, min_steps: 40_000 }).unwrap();
    served.ask(&["submit", "sample.yaml"]);
    served.wait("/experiments/sample-2", |one| one["trials"]["running"] == 1);
    served.wait("/experiments/sample-2/trials/1/curves", |all| !list(all, "curves").is_empty());
    let variables = [
        ("MUSTER_URL", served.url.as_str()),
        ("MUSTER_FINISHED", "sample-1"),
        ("MUSTER_RUNNING", "sample-2"),
    ];
    let said = browse("live.mjs", served.path(), &variables).unwrap();
    assert!(said.contains("all pages seen"), "{said}");
}

/// A person shows a token, sees what they wanted to see, and leaves.
#[test]
fn a_browser_logs_in_and_out() {
    let name = "a_browser_logs_in_and_out";
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let served = Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], true);
    let token = served.token("read", "rita");
    let variables = [("MUSTER_URL", served.url.as_str()), ("MUSTER_SHOWN", token.as_str())];
    let said = browse("login.mjs", served.path(), &variables).unwrap();
    assert!(said.contains("in and out"), "{said}");
}

/// The pages can be used without a mouse, and by those who see little.
#[test]
fn a_browser_finds_no_page_that_shuts_people_out() {
    let name = "a_browser_finds_no_page_that_shuts_people_out";
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let served = Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], false);
    let variables = [("MUSTER_URL", served.url.as_str())];
    let said = browse("accessible.mjs", served.path(), &variables).unwrap();
    assert!(said.contains("usable without a mouse"), "{said}");
}

/// The pages look as they did, with what a real sweep once answered.
#[test]
fn pages_look_as_approved() {
    let name = "pages_look_as_approved";
    if let Err(reason) = browser() {
        return skip(name, &reason);
    }
    let start = |tokens| Served::start(tempfile::tempdir().unwrap(), &["--no-workers"], tokens);
    let (served, asking) = (start(false), start(true));
    let bless = std::env::var("MUSTER_BLESS").unwrap_or_default();
    let variables = [
        ("MUSTER_URL", served.url.as_str()),
        ("MUSTER_ASKING", asking.url.as_str()),
        ("MUSTER_BLESS", bless.as_str()),
    ];
    let said = browse("pictures.mjs", served.path(), &variables).unwrap();
    assert!(said.contains("as approved"), "{said}");
}
