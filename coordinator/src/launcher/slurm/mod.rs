//! Slurm, by its commands: `sbatch` reads a script from its standard input, one `squeue` tells of all jobs,
//! `scancel` gets the ids of ours, and one `sacct` tells how those have ended that are gone.

mod history;
mod queue;
pub mod script;
pub mod step;

use std::process::{Output, Stdio};
use std::time::Duration;

use muster_common::access;
use muster_common::time::Timestamp;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cluster::{Cluster, ClusterError, End, Gone, Identity, Job, Order};
use super::planner::Outcome;
use super::profile::Profile;
use script::Start;

/// Time for one command: Slurm's own time for an answer is up to 100 s on large clusters.
const DEADLINE: Duration = Duration::from_secs(110);
/// Longest message that is passed on, characters.
const MESSAGE_MAX: usize = 300;

/// Variables that jobs get from the coordinator's environment, besides those that the profile names: where
/// things are, and what reads the object store and the models.
const VARIABLES: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SLURM_CONF",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// As [`VARIABLES`], by how their names begin.
const PREFIXES: [&str; 9] =
    ["AWS_", "AZURE_", "GOOGLE_", "HF_", "LC_", "MUSTER_", "NCCL_", "GLOO_", "SSL_CERT_"];

/// A Slurm cluster, as seen from this machine.
#[derive(Debug, Clone)]
pub struct Slurm {
    profile: Profile,
    start: Start,
    identity: Identity,
    environment: Vec<(String, String)>,
}

impl Slurm {
    /// Of this process's environment jobs get what they need, and nothing else.
    pub fn new(
        profile: Profile,
        start: Start,
        identity: Identity,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let is_passed = |(name, _): &(String, String)| {
            VARIABLES.contains(&name.as_str())
                || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || profile.environment.contains(name)
        };
        // What the user has set to get in is for clients; the script names what workers have.
        let is_passed = |variable: &(String, String)| {
            is_passed(variable) && !access::VARIABLES.contains(&variable.0.as_str())
        };
        let environment = environment.filter(is_passed).collect();
        Self { profile, start, identity, environment }
    }

    /// The script of an order, as `sbatch` gets it.
    pub fn script(&self, order: Order) -> Result<String, super::profile::ProfileError> {
        script::render(&self.profile, &self.start, &self.identity, order)
    }

    /// When a job of this user ends, whoever has submitted it; `None`: never, or nobody can tell.
    pub async fn end_of(&self, job: &str) -> Option<Timestamp> {
        let mut command = self.command("squeue");
        command.env("SLURM_TIME_FORMAT", "%s").args(["--noheader", "--jobs", job, "--format=%e"]);
        let output = talk("squeue", command, None).await.ok()?;
        let seconds = String::from_utf8(output.stdout).ok()?.trim().parse::<u64>().ok()?;
        Some(Timestamp(seconds.checked_mul(1000)?))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Options that stand in the environment would win over those of the script.
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }
}

impl Cluster for Slurm {
    async fn submit(&self, order: Order) -> Result<(), ClusterError> {
        let text = self.script(order).map_err(|error| ClusterError {
            command: "sbatch",
            message: error.to_string(),
            outcome: Outcome::Refused,
        })?;
        let mut command = self.command("sbatch");
        command.arg("--parsable").stdin(Stdio::piped());
        let output = talk("sbatch", command, Some(text)).await?;
        succeeded("sbatch", &output)?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Job>, ClusterError> {
        let mut command = self.command("squeue");
        command.env("SLURM_TIME_FORMAT", "%s");
        let user = rustix::process::getuid().as_raw().to_string();
        command.args(["--noheader", "--array", "--user", &user, "--format", queue::FORMAT]);
        let output = talk("squeue", command, None).await?;
        succeeded("squeue", &output)?;
        queue::parse(&String::from_utf8_lossy(&output.stdout), &self.identity).map_err(|error| {
            ClusterError {
                command: "squeue",
                message: error.to_string(),
                outcome: Outcome::Unclear,
            }
        })
    }

    async fn ends(&self, gone: &[Gone]) -> Result<Option<Vec<End>>, ClusterError> {
        let mut command = self.command("sacct");
        command.env("SLURM_TIME_FORMAT", "%s");
        let ids: Vec<&str> = gone.iter().map(|gone| gone.id.as_str()).collect();
        // A job that was started again has a record of each time.
        command.args(["--noheader", "--parsable2", "--allocations", "--duplicates"]);
        command.args(["--jobs", &ids.join(","), "--format", history::FORMAT]);
        let output = match talk("sacct", command, None).await {
            Ok(output) => output,
            // The program is not there.
            Err(error) if error.outcome == Outcome::Refused => return Ok(None),
            Err(error) => return Err(error),
        };
        if history::says_there_are_none(&String::from_utf8_lossy(&output.stderr)) {
            return Ok(None);
        }
        succeeded("sacct", &output)?;
        Ok(Some(history::parse(&String::from_utf8_lossy(&output.stdout), gone)))
    }

    async fn cancel(&self, jobs: &[Job]) -> Result<(), ClusterError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut command = self.command("scancel");
        command.args(jobs.iter().map(|job| &job.id));
        let output = talk("scancel", command, None).await?;
        succeeded("scancel", &output)
    }
}

/// Runs a command to its end, with a text as its standard input.
async fn talk(
    name: &'static str,
    mut command: Command,
    text: Option<String>,
) -> Result<Output, ClusterError> {
    let failed = |message: String, outcome| ClusterError { command: name, message, outcome };
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("{error}; is Slurm installed here?"), Outcome::Refused))?;
    let stdin = child.stdin.take();
    let whole = async {
        if let (Some(mut stdin), Some(text)) = (stdin, text) {
            stdin.write_all(text.as_bytes()).await?;
            stdin.shutdown().await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(DEADLINE, whole).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(failed(error.to_string(), Outcome::Unclear)),
        Err(_) => Err(failed(format!("no answer in {} s", DEADLINE.as_secs()), Outcome::Unclear)),
    }
}

fn succeeded(command: &'static str, output: &Output) -> Result<(), ClusterError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // They begin with the name of the command, which is said anyway.
    let own = format!("{command}: error: ");
    let lines = said.lines().map(|line| line.trim().trim_start_matches(&own));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let words: String = lines.join(" | ").chars().take(MESSAGE_MAX).collect();
    let message = if words.is_empty() { output.status.to_string() } else { words };
    let outcome = if output.status.code().is_some() { meaning(&said) } else { Outcome::Unclear };
    Err(ClusterError { command, message, outcome })
}

/// Whether a submission that failed so may have happened all the same: when the controller was not heard
/// to the end.
fn meaning(said: &str) -> Outcome {
    let said = said.to_lowercase();
    let doubts =
        ["timed out", "socket", "contact", "connect", "zero bytes", "communicat", "unexpected"];
    if said.trim().is_empty() || doubts.iter().any(|doubt| said.contains(doubt)) {
        return Outcome::Unclear;
    }
    Outcome::Refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::WorkerAccess;

    #[test]
    fn only_a_refusal_is_a_refusal() {
        let refused =
            "sbatch: error: Batch job submission failed: Invalid partition name specified";
        assert_eq!(meaning(refused), Outcome::Refused);
        for doubtful in [
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller",
            "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
            "",
        ] {
            assert_eq!(meaning(doubtful), Outcome::Unclear, "{doubtful}");
        }
    }

    #[test]
    fn jobs_get_what_they_need_of_the_environment_and_no_options() {
        let start = Start {
            access: WorkerAccess { url: "http://h:1".to_owned(), file: None },
            worker_binary: "/w".into(),
            output: "/o".into(),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        };
        let given = [
            ("PATH", "/bin"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("MINE", "1"),
            ("OTHER", "1"),
            ("SBATCH_PARTITION", "x"),
            ("SLURM_JOB_ID", "5"),
            ("SLURM_CONF", "/etc/slurm.conf"),
            ("BASH_ENV", "/evil"),
            // Of the user's, who may do more than a worker.
            ("MUSTER_TOKEN", "mt_user"),
            ("MUSTER_ACCESS", "/home/u/access.json"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let profile = Profile { environment: vec!["MINE".to_owned()], ..Profile::default() };
        let identity = Identity::of_bytes([2; 6]);
        let slurm = Slurm::new(profile, start, identity, given.into_iter());
        let names: Vec<&str> = slurm.environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["PATH", "AWS_SECRET_ACCESS_KEY", "MINE", "SLURM_CONF"]);
        let script = slurm.script(Order { first: 1, count: 1 }).unwrap();
        assert!(!script.contains("s3cret"), "{script}");
    }
}
