//! COPY FROM STDIN: forms, and lines that are wrong.

use crate::common::{Node, sqlstate_of};

#[tokio::test]
async fn text_and_csv_are_read_as_postgresql_reads_them() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id int, name text, value float8)").await;
    assert_eq!(sql.copy("COPY t FROM STDIN", "1\tone\t1.5\n2\t\\N\t\\N\n3\ta\\tb\\\\\t-3\n").await.unwrap(), 3);
    let csv = "value,id,name\n4.5,4,\"four, \"\"quoted\"\"\"\nNA,5,NA\n,6,\"NA\"\n";
    let error = sql.copy("COPY t (value, id, name) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA')", csv).await;
    assert_eq!(sqlstate_of(&error.unwrap_err()), "22P02", "an empty value is no number when NULL is NA");
    let csv = "value,id,name\n4.5,4,\"four, \"\"quoted\"\"\"\nNA,5,NA\n0,6,\"NA\"\n";
    let copied = sql.copy("COPY t (value, id, name) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'NA')", csv).await;
    assert_eq!(copied.unwrap(), 3);
    assert_eq!(
        sql.rows("SELECT id, name, value FROM t ORDER BY id").await,
        ["1|one|1.5", "2|-|-", "3|a\tb\\|-3", "4|four, \"quoted\"|4.5", "5|-|-", "6|NA|0"]
    );
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_of_the_statement_is_visible() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (time timestamptz NOT NULL, id int, name text)").await;
    sql.run("SELECT create_hypertable('t', 'time')").await;
    let good = |count: usize| -> String {
        (1..=count).map(|id| format!("2024-{:02}-01 00:00Z,{id},x\n", 1 + id % 12)).collect()
    };
    let cases = [
        ("2024-01-01 00:00Z,not a number,x\n", "22P02", "line 50001, column id"),
        ("2024-01-01 00:00Z,1\n", "22P04", "line 50001"),
        ("2024-01-01 00:00Z,1,x,more\n", "22P04", "line 50001"),
        ("yesterday-ish,1,x\n", "22007", "line 50001, column time"),
        (",1,x\n", "23502", ""),
        ("2024-01-01 00:00Z,99999999999,x\n", "22003", "line 50001, column id"),
    ];
    for (line, sqlstate, context) in cases {
        let data = good(50_000) + line + &good(10);
        let error = sql.copy("COPY t FROM STDIN WITH (FORMAT csv)", &data).await.unwrap_err();
        let db = error.as_db_error().unwrap_or_else(|| panic!("{line}: {error}"));
        assert_eq!(db.code().code(), sqlstate, "{line}: {db:?}");
        assert!(db.where_().unwrap_or_default().contains(context), "{line}: {:?}", db.where_());
        assert_eq!(sql.one("SELECT count(*) FROM t").await, "0", "after {line}");
    }
    assert_eq!(sql.copy("COPY t FROM STDIN WITH (FORMAT csv)", &good(24)).await.unwrap(), 24);
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "24");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    use futures::SinkExt;
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE t (id int)").await;
    {
        let other = node.connect().await;
        let sink = other.client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for _ in 0..20 {
            sink.send(bytes::Bytes::from("1\n".repeat(10_000))).await.unwrap();
        }
        // Dropped here: the connection closes without CopyDone.
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "0");
    assert_eq!(sql.copy("COPY t FROM STDIN", "1\n").await.unwrap(), 1);
    assert_eq!(sql.one("SELECT count(*) FROM t").await, "1");
}
