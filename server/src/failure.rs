//! How a command ends when it does not end well: one line on stderr and an exit code.

use std::fmt;
use std::path::Path;

/// Done.
pub const EXIT_OK: u8 = 0;
/// The command was understood and could not be carried out.
pub const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong; nothing was touched.
pub const EXIT_USAGE: u8 = 2;

/// The line an operator reads, and the code a script reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    line: String,
}

impl Failure {
    /// Something outside went wrong: a disk, a port, a peer.
    pub fn failed(line: impl fmt::Display) -> Self {
        Self { code: EXIT_FAILURE, line: one_line(&line.to_string()) }
    }

    /// The command line or the configuration is wrong.
    pub fn usage(line: impl fmt::Display) -> Self {
        Self { code: EXIT_USAGE, line: one_line(&line.to_string()) }
    }

    /// A file or folder could not be worked with. Tells the full and the read-only disk from the rest.
    pub fn path(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let path = path.display();
        Self::failed(match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                format!("could not {what} {path}: the disk is full; free some space and start again")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => {
                format!("could not {what} {path}: the disk is mounted read-only")
            }
            std::io::ErrorKind::PermissionDenied => {
                format!("could not {what} {path}: permission denied for this user")
            }
            _ => format!("could not {what} {path}: {error}"),
        })
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Messages of libraries come with line breaks; an operator's log is read line by line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::failed("a\n  b\n").to_string(), "a b");
    }

    #[test]
    fn a_full_disk_is_called_by_its_name() {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(
            Failure::path("write to", Path::new("/data"), &error).to_string(),
            "could not write to /data: the disk is full; free some space and start again"
        );
    }
}
