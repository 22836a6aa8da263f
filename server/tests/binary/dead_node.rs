//! A data node that is gone: who needs it hears so soon and by its name, who does not goes on.

use std::time::{Duration, Instant};

use crate::common::{Cluster, PATIENCE, Sql, error_of, sqlstate_of};

/// Dead after 2 s, and as long again for one that is only silent; the rest is for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// Tables `on1`, `on2` and `on3`, each on the data node of its number, and `spread` on all of them.
async fn three_nodes() -> (Cluster, Sql) {
    let cluster = Cluster::start(1, 3);
    let sql = cluster.connect().await;
    for number in 1..=3 {
        sql.run(&format!("CREATE TABLE on{number} (time timestamptz NOT NULL, v int)")).await;
        sql.run(&format!("SELECT create_distributed_hypertable('on{number}', 'time', data_nodes => '{{dn{number}}}')"))
            .await;
        sql.run(&format!("INSERT INTO on{number} VALUES ('2024-01-01', {number})")).await;
    }
    sql.run("CREATE TABLE spread (time timestamptz NOT NULL, device text NOT NULL)").await;
    sql.run("SELECT create_distributed_hypertable('spread', 'time', 'device', number_partitions => 12)").await;
    sql.run(&insert_spread(0)).await;
    let nodes = "SELECT count(DISTINCT primary_node) FROM (SELECT unnest(data_nodes) AS primary_node \
                 FROM timescaledb_information.chunks WHERE hypertable_name = 'spread') c";
    assert_eq!(sql.one(nodes).await, "3");
    (cluster, sql)
}

/// 40 rows over all slots.
fn insert_spread(round: u32) -> String {
    let rows: Vec<String> = (0..40).map(|row| format!("('2024-01-01', 'd{round}-{row}')")).collect();
    format!("INSERT INTO spread VALUES {}", rows.join(", "))
}

/// The statement is refused for want of that node, and soon.
#[track_caller]
fn assert_told(error: &tokio_postgres::Error, node: &str, started: Instant) {
    let message = error.as_db_error().map(|db| db.message().to_owned()).unwrap_or_default();
    assert_eq!(sqlstate_of(error), "57P03", "{}", error_of(error));
    assert!(message.contains(&format!("data node {node} at 127.0.0.1:")), "{message}");
    assert!(started.elapsed() < TOLD_WITHIN, "told after {:?}: {message}", started.elapsed());
}

#[tokio::test]
async fn statements_that_need_a_dead_node_fail_soon_and_the_others_do_not_notice() {
    let (mut cluster, sql) = three_nodes().await;
    cluster.data[1].kill();

    // One waits until the node counts as dead; the others go on meanwhile.
    let needing = cluster.connect().await;
    let started = Instant::now();
    let waiting = tokio::spawn(async move { needing.try_rows("SELECT count(*) FROM on2").await });
    let mut meanwhile = 0;
    while !waiting.is_finished() {
        sql.run("INSERT INTO on1 VALUES ('2024-01-01', 1)").await;
        meanwhile += 1;
        assert_eq!(sql.one("SELECT count(*) FROM on1").await, (meanwhile + 1).to_string());
    }
    assert_told(&waiting.await.unwrap().unwrap_err(), "dn2", started);
    assert!(meanwhile > 0);

    // Whatever comes later hears it at once.
    for statement in [
        "SELECT count(*) FROM on2".to_owned(),
        "INSERT INTO on2 VALUES ('2024-01-02', 2)".to_owned(),
        "SELECT count(*) FROM spread".to_owned(),
        insert_spread(1),
    ] {
        let started = Instant::now();
        assert_told(&sql.client.batch_execute(&statement).await.unwrap_err(), "dn2", started);
    }
    let data = (0..40).map(|row| format!("2024-01-01\tcopied-{row}\n")).collect::<String>();
    let started = Instant::now();
    assert_told(&sql.copy("COPY spread FROM STDIN", &data).await.unwrap_err(), "dn2", started);

    // New tables and new chunks come to nodes that live.
    sql.run("CREATE TABLE fresh (time timestamptz NOT NULL, v int)").await;
    sql.run("SELECT create_hypertable('fresh', 'time')").await;
    let days = "generate_series('2024-01-01'::timestamptz, '2024-03-01', '1 day') AS days(day)";
    sql.run(&format!("INSERT INTO fresh SELECT day, 1 FROM {days}")).await;
    assert_eq!(sql.one("SELECT count(*) FROM fresh").await, "61");
    sql.run("CREATE TABLE plain (v int)").await;
    sql.run("INSERT INTO plain VALUES (1)").await;

    // Nothing of what was refused is there when it is back.
    cluster.data[1].run();
    cluster.data[1].wait_ready();
    assert_eq!(eventually(&sql, "SELECT count(*) FROM spread").await, "40");
    assert_eq!(sql.one("SELECT count(*) FROM on2").await, "1");
    sql.run(&insert_spread(2)).await;
    assert_eq!(sql.one("SELECT count(*) FROM spread").await, "80");
    cluster.assert_no_panic();
}

#[tokio::test]
async fn a_node_that_hangs_is_given_up_and_comes_back() {
    let (mut cluster, sql) = three_nodes().await;
    cluster.data[2].signal(libc::SIGSTOP);
    for statement in ["SELECT count(*) FROM on3", "SELECT count(*) FROM spread"] {
        let started = Instant::now();
        assert_told(&sql.client.batch_execute(statement).await.unwrap_err(), "dn3", started);
        sql.run("INSERT INTO on1 VALUES ('2024-01-01', 1)").await;
    }
    // A row that was sent may have come in.
    let started = Instant::now();
    let error = sql.client.batch_execute("INSERT INTO on3 VALUES ('2024-01-02', 3)").await.unwrap_err();
    assert_eq!(sqlstate_of(&error), "08007", "{}", error_of(&error));
    assert!(started.elapsed() < TOLD_WITHIN, "{:?}", started.elapsed());
    cluster.data[2].signal(libc::SIGCONT);
    let count: u64 = eventually(&sql, "SELECT count(*) FROM on3").await.parse().unwrap();
    assert!((1..=2).contains(&count), "{count}");
    assert_eq!(sql.one("SELECT count(*) FROM spread").await, "40");
    cluster.assert_no_panic();
}

/// The answer, once there is one.
async fn eventually(sql: &Sql, question: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sql.try_rows(question).await {
            Ok(mut rows) => return rows.remove(0),
            Err(error) => assert!(Instant::now() < deadline, "{question}: {}", error_of(&error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
