//! Files for people that are there whole or not at all: a full disk leaves the one before as it was.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that is being written beside its place. It is there once it is committed; dropped before, it never was.
/// What is there and is no plain file, as `/dev/stdout`, is written to directly; of a link, the file that it leads
/// to is replaced.
#[derive(Debug)]
pub struct WholeFile {
    file: BufWriter<File>,
    path: PathBuf,
    /// What is renamed; absent where `path` is no plain file, as `/dev/stdout`, and is written to directly.
    draft: Option<PathBuf>,
}

impl WholeFile {
    /// Begins the file that will be at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_other = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        // One that leads nowhere is replaced itself.
        let target = if is_link && !is_other { fs::canonicalize(path).ok() } else { None };
        let path = target.as_deref().unwrap_or(path);
        let draft = path.file_name().filter(|_| !is_other).map(|name| {
            let mut draft = OsString::from(".");
            draft.push(name);
            draft.push(format!(".{}.part", std::process::id()));
            path.with_file_name(draft)
        });
        let file = BufWriter::new(File::create(draft.as_deref().unwrap_or(path))?);
        Ok(Self { file, path: path.to_owned(), draft })
    }

    /// Puts it in its place.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(draft) = &self.draft {
            fs::rename(draft, &self.path)?;
            self.draft = None;
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            // Why it was not committed is the error to tell.
            let _gone = fs::remove_file(draft);
        }
    }
}

/// Writes beside the file and renames, as [`WholeFile`] does.
pub fn write_whole(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = WholeFile::create(path)?;
    file.write_all(contents.as_ref())?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_a_failure_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        write_whole(&path, "first").unwrap();
        write_whole(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        let link = directory.path().join("link.html");
        std::os::unix::fs::symlink("report.html", &link).unwrap();
        write_whole(&link, "through the link").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "through the link");
        fs::remove_file(&link).unwrap();
        // A directory cannot be replaced by a file.
        let taken = directory.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write_whole(&taken, "third").is_err());
        assert!(write_whole(&directory.path().join("absent/file"), "x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_committed_never_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.csv");
        write_whole(&path, "before").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
