//! Files for people that are there whole or not at all: a full disk leaves the one before as it was.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// Writes beside the file and renames. What is there and is no plain file, as `/dev/stdout`, is written to directly;
/// of a link, the file that it leads to is replaced.
pub fn write_whole(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let is_other = fs::metadata(path).is_ok_and(|found| !found.is_file());
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    // One that leads nowhere is replaced itself.
    let target = if is_link && !is_other { fs::canonicalize(path).ok() } else { None };
    let path = target.as_deref().unwrap_or(path);
    let Some(name) = path.file_name().filter(|_| !is_other) else {
        return fs::write(path, contents);
    };
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}.part", std::process::id()));
    let draft = path.with_file_name(draft);
    let written = fs::write(&draft, contents).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _gone = fs::remove_file(&draft);
    }
    written
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
}
