//! Log lines of runners, one file per experiment and one for idle workers. A line is
//! `TRIAL<tab>WORKER<tab>TEXT`.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_common::id::{ExperimentId, TrialId, WorkerId};

/// Lines handed out at once when a log is read.
const LINES_MAX: usize = 500;

/// The directory of log files.
#[derive(Debug, Clone)]
pub struct Logs {
    directory: Arc<Path>,
}

/// Where a reader stopped.
#[derive(Debug, Clone, Default)]
pub struct Position(u64);

impl Position {
    /// As [`Position::bytes`] said.
    pub fn at(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes of the file before it.
    pub fn bytes(&self) -> u64 {
        self.0
    }
}

impl Logs {
    /// Keeps logs in `directory`, which is created on the first line.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory: directory.into() }
    }

    fn file(&self, experiment: Option<&ExperimentId>) -> PathBuf {
        match experiment {
            Some(experiment) => self.directory.join(format!("{experiment}.log")),
            None => self.directory.join("_idle-workers.log"),
        }
    }

    /// Where the files are; it may not be there yet.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of workers that have no run.
    pub fn idle_file(&self) -> PathBuf {
        self.file(None)
    }

    /// Appends lines of a worker. Logs must never stop the service: failures are warned of.
    pub fn append(
        &self,
        worker: &WorkerId,
        owner: Option<&(ExperimentId, Option<TrialId>)>,
        lines: &[String],
    ) {
        let trial = owner.and_then(|(_, trial)| trial.as_ref());
        let trial = trial.map_or_else(|| "-".to_owned(), |trial| format!("t{}", trial.number));
        let path = self.file(owner.map(|(experiment, _)| experiment));
        let mut text = String::new();
        for line in lines {
            text += &format!("{trial}\t{worker}\t{line}\n");
        }
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.directory)?;
            File::options().create(true).append(true).open(&path)?.write_all(text.as_bytes())
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "log lines are lost");
        }
    }

    /// The beginning of the first line that lies whole in the last `bytes` of an experiment's file.
    pub fn near_end(&self, experiment: &ExperimentId, bytes: u64) -> std::io::Result<Position> {
        let mut file = match File::open(self.file(Some(experiment))) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Position::default());
            }
            Err(error) => return Err(error),
        };
        let start = file.metadata()?.len().saturating_sub(bytes);
        if start == 0 {
            return Ok(Position::default());
        }
        // Of a line that begins right there the byte before is the end of another.
        file.seek(SeekFrom::Start(start - 1))?;
        let skipped = BufReader::new(file).read_until(b'\n', &mut Vec::new())?;
        Ok(Position(start - 1 + skipped as u64))
    }

    /// Whole lines from `position` on, at most a few hundred, of one trial or of all.
    pub fn read(
        &self,
        experiment: &ExperimentId,
        trial: Option<&TrialId>,
        position: &mut Position,
    ) -> std::io::Result<Vec<String>> {
        let mut file = match File::open(self.file(Some(experiment))) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(position.0))?;
        let wanted = trial.map(|trial| format!("t{}\t", trial.number));
        let mut reader = BufReader::new(file);
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while lines.len() < LINES_MAX {
            line.clear();
            let count = reader.read_until(b'\n', &mut line)?;
            if count == 0 || line.last() != Some(&b'\n') {
                break; // the rest of the line is still being written
            }
            position.0 += count as u64;
            let text = String::from_utf8_lossy(&line);
            if wanted.as_ref().is_none_or(|wanted| text.starts_with(wanted)) {
                lines.push(text.trim_end_matches('\n').replacen('\t', "  ", 2));
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_begins_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path().to_owned());
        let experiment: ExperimentId = "demo-1".parse().unwrap();
        assert_eq!(logs.near_end(&experiment, 10).unwrap().bytes(), 0);
        let owner = Some((experiment.clone(), None));
        let lines: Vec<String> = (0..4).map(|number| format!("line {number}")).collect();
        logs.append(&"w".parse().unwrap(), owner.as_ref(), &lines);
        // Each is `-\tw\tline N\n`, 11 bytes.
        for (bytes, expected) in [(11, 1), (12, 1), (21, 1), (22, 2), (43, 3), (44, 4), (999, 4)] {
            let mut position = logs.near_end(&experiment, bytes).unwrap();
            let read = logs.read(&experiment, None, &mut position).unwrap();
            assert_eq!(read.len(), expected, "{bytes}: {read:?}");
        }
    }

    #[test]
    fn lines_are_read_once_and_by_trial() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::new(directory.path().join("logs"));
        let experiment: ExperimentId = "demo-1".parse().unwrap();
        let worker = "w".parse().unwrap();
        let trial = |number| TrialId { experiment: experiment.clone(), number };
        for number in [1, 2] {
            let owner = Some((experiment.clone(), Some(trial(number))));
            logs.append(&worker, owner.as_ref(), &[format!("line of {number}")]);
        }
        let mut position = Position::default();
        let all = logs.read(&experiment, None, &mut position).unwrap();
        assert_eq!(all, ["t1  w  line of 1", "t2  w  line of 2"]);
        assert!(logs.read(&experiment, None, &mut position).unwrap().is_empty());
        let second = logs.read(&experiment, Some(&trial(2)), &mut Position::default()).unwrap();
        assert_eq!(second, ["t2  w  line of 2"]);
    }
}
