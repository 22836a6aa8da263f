//! Clients that others wrote: psql and psycopg. What the set-up of README.md installs must be there.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::{Node, run};

const PSYCOPG_SCRIPT: &str = include_str!("clients/psycopg_test.py");

/// The Python of the set-up.
fn python() -> PathBuf {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    assert!(python.exists(), "{} is missing: run the set-up of README.md", python.display());
    python
}

#[test]
fn psycopg_does_what_an_application_does() {
    let node = Node::start();
    let mut command = Command::new(python());
    command.arg("-c").arg(PSYCOPG_SCRIPT).arg(node.sql_port().to_string());
    let output = run(command);
    assert_eq!((output.code, output.stdout.trim()), (Some(0), "ok"), "{}\n{}", output.stdout, output.stderr);
    node.assert_no_panic();
}

#[test]
fn psql_runs_a_script_with_copy_from_stdin() {
    let node = Node::start();
    let mut child = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &node.sql_port().to_string(), "-U", "meridian", "-X", "-A", "-t"])
        .args(["-v", "ON_ERROR_STOP=1", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql is installed by the set-up of README.md");
    let script = "\
CREATE TABLE t (time timestamptz NOT NULL, v int);
SELECT create_hypertable('t', 'time');
COPY t FROM STDIN WITH (FORMAT csv);
2024-01-01 00:00Z,1
2024-02-01 00:00Z,2
\\.
BEGIN;
INSERT INTO t VALUES ('2024-03-01 00:00Z', 3);
COMMIT;
SELECT sum(v) FROM t;
\\copy (SELECT v FROM t ORDER BY v) TO STDOUT WITH (FORMAT csv)
";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("\nCOPY 2\n") && stdout.ends_with("6\n1\n2\n3\n"), "{stdout}");
}

#[test]
fn pg_isready_says_that_it_is() {
    let node = Node::start();
    let mut command = Command::new("pg_isready");
    command.args(["-h", "127.0.0.1", "-p", &node.sql_port().to_string()]);
    let output = run(command);
    assert_eq!(output.code, Some(0), "{output:?}");
}
