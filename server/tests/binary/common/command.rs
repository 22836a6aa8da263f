//! Running the binary and other programs to their end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The only line on stderr.
    #[track_caller]
    pub fn error_line(&self) -> &str {
        let mut lines = self.stderr.lines();
        let line = lines.next().unwrap_or_default();
        assert_eq!(lines.next(), None, "more than one line: {}", self.stderr);
        line
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).expect("JSON on stdout")
    }
}

/// The binary under test, without whatever configuration the environment holds.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERIDIAN_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs `meridian` with these arguments.
#[track_caller]
pub fn meridian(arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(arguments);
    run(command)
}

/// Runs a program to its end; one that does not end in time is killed and fails the test.
#[track_caller]
pub fn run(mut command: Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("could not run {program}: {error}"));
    let id = child.id();
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let deadline = Instant::now() + super::PATIENCE * 2;
        while Instant::now() < deadline {
            if ended.recv_timeout(Duration::from_millis(200)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        }
        // SAFETY: touches no memory. The child is not waited for yet, so the id is still its own.
        unsafe { libc::kill(id as libc::pid_t, libc::SIGKILL) };
    });
    let output = child.wait_with_output().expect("its output");
    drop(sender);
    watch.join().expect("the watch");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
