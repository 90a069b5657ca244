//! The batch script of an order. It is made of checked fields only; every text in it stands in single
//! quotes or was found to hold nothing that Slurm or the shell would read otherwise. Secrets are not in it,
//! nor on a command line: they travel in the environment that `sbatch` is given.

use std::path::PathBuf;

use muster_common::access::ACCESS_VARIABLE;

use crate::access::WorkerAccess;
use crate::launcher::cluster::{Identity, Order};
use crate::launcher::profile::{Profile, ProfileError, SlotDevice};
use crate::machine::slots::SLOTS_ON_GPU;

/// Characters of a path that `sbatch` takes as it is.
const PATH: &str = "/_.-+=@:,~";

/// What workers are started with, besides the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// URL of the coordinator, as the nodes reach it, and how workers get in.
    pub access: WorkerAccess,
    /// The worker program, as the nodes see it.
    pub worker_binary: PathBuf,
    /// Directory for what the jobs print.
    pub output: PathBuf,
    /// Log filter of the workers.
    pub log: String,
    /// Format of their log lines.
    pub log_format: String,
}

/// The script that `sbatch` reads from its standard input.
pub fn render(
    profile: &Profile,
    start: &Start,
    identity: &Identity,
    order: Order,
) -> Result<String, ProfileError> {
    let mut text = "#!/bin/bash\n".to_owned();
    for (option, value) in directives(profile, start, identity, order)? {
        text += &match value {
            Some(value) => format!("#SBATCH --{option}={value}\n"),
            None => format!("#SBATCH --{option}\n"),
        };
    }
    // Whoever reads this script as it comes may get half of it when the coordinator dies: then nothing is
    // done, because the last line is not there.
    text += "main() {\n";
    for line in body(profile, start, identity, order)? {
        text += &format!("    {line}\n");
    }
    text += "}\nmain\n";
    Ok(text)
}

type Directive = (String, Option<String>);

fn directives(
    profile: &Profile,
    start: &Start,
    identity: &Identity,
    order: Order,
) -> Result<Vec<Directive>, ProfileError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || PATH.contains(c);
    let output = start.output.to_str().filter(|text| text.chars().all(legal));
    let Some(output) = output.filter(|text| text.starts_with('/')) else {
        return Err(ProfileError {
            field: "output".to_owned(),
            value: format!("{:?}", start.output.to_string_lossy()),
            mend: format!("write an absolute path of letters, digits and {PATH}"),
        });
    };
    let name = identity.name_of(order.first);
    let with = |option: &str, value: String| (option.to_owned(), Some(value));
    let mut found = vec![
        with("job-name", name.clone()),
        with("nodes", profile.nodes.to_string()),
        with("ntasks-per-node", profile.workers_per_node.to_string()),
        with("cpus-per-task", profile.cpus_per_worker.to_string()),
        with("time", profile.time_minutes.to_string()),
        with("output", format!("{output}/{name}-%j.log")),
        with("open-mode", "append".to_owned()),
        with("export", "ALL".to_owned()),
        // A node that fails gives the same allocation again, under the same name.
        ("requeue".to_owned(), None),
    ];
    let texts = [
        ("partition", &profile.partition),
        ("account", &profile.account),
        ("qos", &profile.qos),
        ("constraint", &profile.constraint),
        ("reservation", &profile.reservation),
        ("gres", &profile.gres),
    ];
    for (option, value) in texts {
        found.extend(value.clone().map(|value| with(option, value)));
    }
    if profile.gpus_per_worker > 0 {
        // GPUs that tasks share are the node's.
        let (option, count) = match profile.slots_per_gpu {
            1 => ("gpus-per-task", profile.gpus_per_worker),
            _ => ("gpus-per-node", profile.gpus_per_node()),
        };
        let gpus = match &profile.gpu_type {
            Some(name) => format!("{name}:{count}"),
            None => count.to_string(),
        };
        found.push(with(option, gpus));
    }
    found.extend(profile.memory_mib.map(|memory| with("mem", format!("{memory}M"))));
    if profile.exclusive {
        found.push(("exclusive".to_owned(), None));
    }
    if order.count > 1 {
        found.push(with("array", format!("0-{}", order.count - 1)));
    }
    found.extend(profile.options.iter().map(|(option, value)| with(option, value.clone())));
    Ok(found)
}

fn body(
    profile: &Profile,
    start: &Start,
    identity: &Identity,
    order: Order,
) -> Result<Vec<String>, ProfileError> {
    let device = match profile.device() {
        SlotDevice::Cpu => "cpu",
        // Each sees its own GPU only.
        SlotDevice::Cuda => "cuda:0",
    };
    let worker = start.worker_binary.to_string_lossy();
    let exports = [
        ("MUSTER_COORDINATOR", quoted("coordinator", &start.access.url)?),
        ("MUSTER_SLOT_DEVICE", quoted("device", device)?),
        ("MUSTER_THREADS_PER_SLOT", profile.cpus_per_worker.to_string()),
        ("MUSTER_DRAIN_SECONDS", profile.drain_seconds.to_string()),
        ("MUSTER_ALONE_SECONDS", profile.alone_seconds.to_string()),
        ("MUSTER_LOG", quoted("log", &start.log)?),
        ("MUSTER_LOG_FORMAT", quoted("log_format", &start.log_format)?),
    ];
    let (name, first) = (identity.name_of(order.first), order.first);
    let allocation = if order.count > 1 {
        let stem = name.strip_suffix(&first.to_string()).unwrap_or(&name);
        format!("{stem}$(({first} + SLURM_ARRAY_TASK_ID))")
    } else {
        name
    };
    // Slurm signals the workers themselves; the shell only waits for them.
    let mut lines = vec!["trap : TERM".to_owned()];
    lines.extend(exports.map(|(name, value)| format!("export {name}={value}")));
    if let Some(file) = &start.access.file {
        lines.push(format!(
            "export {ACCESS_VARIABLE}={}",
            quoted("access", &file.to_string_lossy())?
        ));
    }
    if profile.slots_per_gpu > 1 {
        lines.push(format!("export {SLOTS_ON_GPU}={}", profile.slots_per_gpu));
    }
    lines.push(format!("export MUSTER_ALLOCATION=\"{allocation}\""));
    // Older versions do not say it in the environment.
    lines.push("if [ -z \"${SLURM_JOB_END_TIME:-}\" ]; then".to_owned());
    lines.push(
        "    SLURM_JOB_END_TIME=$(SLURM_TIME_FORMAT=%s squeue --noheader --jobs=\"$SLURM_JOB_ID\" --format=%e)"
            .to_owned(),
    );
    lines.push("fi".to_owned());
    lines.push("export MUSTER_ENDS_AT=\"$SLURM_JOB_END_TIME\"".to_owned());
    // One worker that ends takes no other with it.
    lines.push(format!(
        "srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task={} --export=ALL {}{} supervise",
        profile.cpus_per_worker,
        chooser(profile.slots_per_gpu),
        quoted("worker_binary", &worker)?
    ));
    Ok(lines)
}

/// What stands before the worker program where workers share GPUs: of those that its task sees, a worker keeps
/// the one that its number on the node stands for. `--gpu-bind` would go by sockets, and not give each GPU to as
/// many.
fn chooser(slots_per_gpu: u32) -> String {
    if slots_per_gpu <= 1 {
        return String::new();
    }
    format!(
        "bash -c 'IFS=, read -ra gpus <<<\"$CUDA_VISIBLE_DEVICES\"; \
         export CUDA_VISIBLE_DEVICES=${{gpus[SLURM_LOCALID / {slots_per_gpu}]:?no GPU of Slurm}}; exec \"$0\" \"$@\"' "
    )
}

/// A text as one word of the shell, whatever is in it.
fn quoted(field: &str, text: &str) -> Result<String, ProfileError> {
    if text.contains(char::is_control) {
        return Err(ProfileError {
            field: field.to_owned(),
            value: format!("{text:?}"),
            mend: "it may not have line ends or other control characters".to_owned(),
        });
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn start() -> Start {
        Start {
            access: WorkerAccess {
                url: "https://login1:7700".to_owned(),
                file: Some("/home/u/it's state/access/slurm.json".into()),
            },
            worker_binary: "/opt/muster/muster-worker".into(),
            output: "/home/u/logs".into(),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        }
    }

    fn identity() -> Identity {
        Identity::of_bytes([1; 6])
    }

    const ORDER: Order = Order { first: 7, count: 1 };

    #[test]
    fn every_field_becomes_one_directive() {
        let text = |text: &str| Some(text.to_owned());
        let profile = Profile {
            partition: text("gpu"),
            account: text("nlp"),
            qos: text("high"),
            constraint: text("[rack1*1&rack2*1]"),
            reservation: text("class"),
            gres: text("tmpfs:10"),
            gpu_type: text("a100"),
            nodes: 2,
            workers_per_node: 4,
            cpus_per_worker: 6,
            memory_mib: Some(1024),
            time_minutes: 90,
            drain_seconds: 120,
            alone_seconds: 600,
            exclusive: true,
            options: [("nice".to_owned(), "5".to_owned())].into(),
            ..Profile::default()
        };
        let text = render(&profile, &start(), &identity(), Order { first: 7, count: 3 }).unwrap();
        for line in [
            "#SBATCH --job-name=muster-010101010101-7",
            "#SBATCH --nodes=2",
            "#SBATCH --ntasks-per-node=4",
            "#SBATCH --cpus-per-task=6",
            "#SBATCH --gpus-per-task=a100:1",
            "#SBATCH --time=90",
            "#SBATCH --mem=1024M",
            "#SBATCH --partition=gpu",
            "#SBATCH --account=nlp",
            "#SBATCH --qos=high",
            "#SBATCH --constraint=[rack1*1&rack2*1]",
            "#SBATCH --reservation=class",
            "#SBATCH --gres=tmpfs:10",
            "#SBATCH --output=/home/u/logs/muster-010101010101-7-%j.log",
            "#SBATCH --open-mode=append",
            "#SBATCH --export=ALL",
            "#SBATCH --exclusive",
            "#SBATCH --requeue",
            "#SBATCH --nice=5",
            "#SBATCH --array=0-2",
            "    export MUSTER_ALLOCATION=\"muster-010101010101-$((7 + SLURM_ARRAY_TASK_ID))\"",
            "    export MUSTER_SLOT_DEVICE='cuda:0'",
            "    export MUSTER_THREADS_PER_SLOT=6",
            "    export MUSTER_DRAIN_SECONDS=120",
            "    export MUSTER_ALONE_SECONDS=600",
            "    export MUSTER_COORDINATOR='https://login1:7700'",
            r"    export MUSTER_ACCESS='/home/u/it'\''s state/access/slurm.json'",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
        }
        // Each of the above, and no other.
        assert_eq!(text.lines().filter(|line| line.starts_with("#SBATCH")).count(), 20, "{text}");
        assert!(text.ends_with("}\nmain\n"), "{text}");
    }

    #[test]
    fn paths_that_sbatch_would_read_otherwise_are_refused() {
        for bad in ["/a b", "/a\n#SBATCH --uid=0", "/a%j", "/a\"b", "logs", "/a\\b", "/a#b"] {
            let start = Start { output: bad.into(), ..start() };
            let error = render(&Profile::default(), &start, &identity(), ORDER).unwrap_err();
            assert_eq!(error.field, "output", "{bad}");
        }
        for (field, start) in [
            ("log", Start { log: "info\nid".to_owned(), ..start() }),
            ("worker_binary", Start { worker_binary: "/a\n#SBATCH --uid=0".into(), ..start() }),
        ] {
            let error = render(&Profile::default(), &start, &identity(), ORDER).unwrap_err();
            assert_eq!(error.field, field);
        }
    }

    /// Runs a script with an `srun` that only says what it was given.
    fn run(text: &str) -> String {
        let path = tempfile::tempdir().unwrap();
        let srun = "#!/bin/sh\nprintf '%s\\n' \"$MUSTER_LOG\" \"$MUSTER_ALLOCATION\" \"$@\"\n";
        let program = path.path().join("srun");
        std::fs::write(&program, srun).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let output = Command::new("bash")
            .args(["-c", text])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", path.path().display()))
            .env("SLURM_JOB_END_TIME", "1")
            .env("SLURM_ARRAY_TASK_ID", "2")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn workers_that_share_gpus_keep_one_each() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            path
        };
        // Four tasks of a node that see the same two GPUs.
        program(
            "srun",
            "#!/bin/bash\nexport CUDA_VISIBLE_DEVICES=4,7\n\
             for number in 0 1 2 3; do SLURM_LOCALID=$number \"${@:5}\"; done\n",
        );
        let says = "#!/bin/sh\necho \"$CUDA_VISIBLE_DEVICES of $MUSTER_SLOTS_ON_GPU: $*\"\n";
        let start = Start { worker_binary: program("it's a worker", says), ..start() };
        let profile = Profile {
            workers_per_node: 4,
            slots_per_gpu: 2,
            gpu_type: Some("a100".to_owned()),
            ..Profile::default()
        };
        let text = render(&profile, &start, &identity(), ORDER).unwrap();
        assert!(text.contains("#SBATCH --ntasks-per-node=4\n"), "{text}");
        assert!(text.contains("#SBATCH --gpus-per-node=a100:2\n"), "{text}");
        assert!(!text.contains("gpus-per-task"), "{text}");
        assert!(text.contains("    export MUSTER_SLOT_DEVICE='cuda:0'\n"), "{text}");
        let output = Command::new("bash")
            .args(["-c", text.as_str()])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .env("SLURM_JOB_END_TIME", "1")
            .output()
            .unwrap();
        let (first, second) = ("4 of 2: supervise\n", "7 of 2: supervise\n");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, [first, first, second, second].concat());
    }

    #[test]
    fn half_a_script_does_nothing() {
        let text = render(&Profile::default(), &start(), &identity(), ORDER).unwrap();
        assert!(run(&text).contains("supervise"));
        for length in (0..text.len() - "main\n".len()).step_by(11) {
            assert_eq!(run(text.get(..length).unwrap()), "", "{length} of {}", text.len());
        }
    }

    #[test]
    fn numbers_of_an_array_are_counted_from_its_first() {
        let order = Order { first: 7, count: 3 };
        let said = run(&render(&Profile::default(), &start(), &identity(), order).unwrap());
        assert_eq!(said.lines().nth(1), Some("muster-010101010101-9"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_is_read_as_a_command(
            log in r#"[ -~'"$`;#\\()&|<>äß]{0,40}"#,
            worker in r#"/[ -~'"$`;#\\()&|<>äß]{0,40}"#,
        ) {
            let start = Start { log: log.clone(), worker_binary: worker.clone().into(), ..start() };
            let text = render(&Profile::default(), &start, &identity(), ORDER).unwrap();
            let said = run(&text);
            let lines: Vec<&str> = said.lines().collect();
            prop_assert_eq!(lines[0], log);
            prop_assert_eq!(lines[6], worker);
            prop_assert_eq!(lines[7], "supervise");
            prop_assert_eq!(lines.len(), 8);
            let directives = text.lines().filter(|line| line.starts_with("#SBATCH")).count();
            let usual = render(&Profile::default(), &self::start(), &identity(), ORDER).unwrap();
            let expected = usual.lines().filter(|line| line.starts_with("#SBATCH")).count();
            prop_assert_eq!(directives, expected);
        }
    }
}
