//! The configuration as its user meets it: layers, origins, mistakes.

use crate::common::{Node, binary, meridian, run};

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    std::fs::write(&file, "[sql]\nlisten = \"127.0.0.1:1001\"\n[admin]\nlisten = \"127.0.0.1:1002\"\n").unwrap();
    let mut command = binary();
    command.args(["config", "show", "--origin", "--json", "--sql-listen", "127.0.0.1:3001"]);
    command.arg("--config").arg(&file);
    command.env("MERIDIAN_SQL__LISTEN", "127.0.0.1:2001").env("MERIDIAN_DATA__SHARDS", "2");
    let shown = run(command).json();
    let find = |name: &str| {
        let key = shown["keys"].as_array().unwrap().iter().find(|key| key["key"] == name).unwrap();
        (key["value"].as_str().unwrap().to_owned(), key["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("sql.listen"), ("127.0.0.1:3001".to_owned(), "--sql-listen".to_owned()));
    assert_eq!(find("admin.listen"), ("127.0.0.1:1002".to_owned(), format!("{}:4", file.display())));
    assert_eq!(find("data.shards"), ("2".to_owned(), "environment variable MERIDIAN_DATA__SHARDS".to_owned()));
    assert_eq!(find("cluster.listen"), ("127.0.0.1:5435".to_owned(), "default".to_owned()));
}

#[test]
fn a_wrong_key_ends_the_start_with_code_2_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    std::fs::write(&file, "[node]\ndata_dirs = \"/nowhere\"\n").unwrap();
    let mut command = binary();
    command.current_dir(folder.path()).arg("start").arg("--config").arg(&file);
    let output = run(command);
    assert_eq!(output.code, Some(2));
    assert_eq!(
        output.error_line(),
        format!("meridian: {}:2: unknown key `node.data_dirs`; did you mean `node.data_dir`?", file.display())
    );

    let mut command = binary();
    command.current_dir(folder.path()).arg("start").env("MERIDIAN_NODE__DATADIR", "/nowhere");
    let output = run(command);
    assert_eq!(output.code, Some(2));
    assert!(output.error_line().contains("did you mean MERIDIAN_NODE__DATA_DIR?"), "{output:?}");
    assert!(!folder.path().join("meridian-data").exists(), "nothing is touched");
}

#[test]
fn a_wrong_value_says_what_is_wanted() {
    let output = meridian(&["start", "--set", "data.memtable=lots"]);
    assert_eq!(output.code, Some(2));
    assert_eq!(
        output.error_line(),
        "meridian: --set: `data.memtable` wants a number of bytes, or one with a unit such as 512MiB, not \"lots\""
    );
    let output = meridian(&["start", "--set", "cluster.heartbeat=often"]);
    assert_eq!(output.code, Some(2));
    assert_eq!(
        output.error_line(),
        "meridian: --set: `cluster.heartbeat` wants a time such as 500ms or 2s, not \"often\""
    );
    let output = meridian(&["config", "check", "--set", "cluster.heartbeat=2s"]);
    assert_eq!(output.code, Some(2));
    assert!(output.error_line().contains("`cluster.dead_after` must be at least two heartbeats"), "{output:?}");
    let output = meridian(&["config", "check", "--set", "sql.message_memory=1KiB"]);
    assert_eq!(
        (output.code, output.error_line()),
        (Some(2), "meridian: --set: `sql.message_memory` must be at least 1MiB")
    );
    assert_eq!(meridian(&["start", "--role", "data"]).code, Some(2), "a data node needs --join");
    assert_eq!(meridian(&["config", "check", "--role", "nobody"]).code, Some(2));
    assert_eq!(meridian(&["config", "check", "--config", "/does/not/exist"]).code, Some(2));
    assert_eq!(meridian(&["start", "--no-such-flag"]).code, Some(2));
}

#[tokio::test]
async fn log_files_have_the_size_that_was_asked_for() {
    let node = Node::start_with(&["--shards", "1", "--set", "data.wal_file=2MiB"]);
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (v int)").await;
    sql.run("INSERT INTO t VALUES (1)").await;
    let files = std::fs::read_dir(node.folder().join("data/shard-0/wal")).unwrap().map(Result::unwrap);
    // The next file may be in the making, under another name.
    let finished = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "wal"));
    let sizes: Vec<u64> = finished.map(|file| file.metadata().unwrap().len()).collect();
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == 2 << 20), "{sizes:?}");
}

#[test]
fn what_show_prints_can_be_used_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let shown = meridian(&["config", "show", "--set", "data.memtable=128MiB"]);
    assert_eq!(shown.code, Some(0));
    std::fs::write(&file, &shown.stdout).unwrap();
    let checked = meridian(&["config", "check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.json()["ok"], true);
}
