//! Queries that leaves of their own answer: the same rows as the plain scan gives, from segments, from fresh rows and
//! from both, and EXPLAIN says which leaf it was.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Cluster, Node, PATIENCE, Sql};

/// Each with the leaf that it is planned with.
const QUERIES: &[(&str, &str)] = &[
    ("SELECT count(*) FROM m", "Metadata Aggregate"),
    ("SELECT count(*), count(note), min(time), max(time), min(n), max(n) FROM m", "Metadata Aggregate"),
    ("SELECT min(device), max(device), min(value), max(value) FROM m", "Metadata Aggregate"),
    ("SELECT count(*) FROM m WHERE time >= '2024-01-02Z' AND time < '2024-01-03 07:30Z'", "Metadata Aggregate"),
    ("SELECT count(*), max(n) FROM m WHERE time > '2024-01-03Z' AND device = 'd3'", "Metadata Aggregate"),
    ("SELECT max(time) FROM m WHERE n > 1000000", "Metadata Aggregate"),
    ("SELECT device, last(value, time), last(n, time) FROM m GROUP BY device ORDER BY 1", "Last Point Scan"),
    ("SELECT device, first(n, time) FROM m WHERE time >= '2024-01-02Z' GROUP BY device ORDER BY 1", "First Point Scan"),
    ("SELECT device, min(time), max(time) FROM m GROUP BY device ORDER BY 1", "Series Ends Scan"),
    ("SELECT last(n, time) FROM m", "Last Point Scan"),
    ("SELECT DISTINCT ON (device) device, time, value, n, note FROM m ORDER BY device, time DESC", "Last Point Scan"),
    (
        "SELECT DISTINCT ON (device) device, n FROM m WHERE device IN ('d1', 'd5', 'd9') ORDER BY device, time DESC",
        "Last Point Scan",
    ),
    ("SELECT DISTINCT ON (device) device, n FROM m ORDER BY device, time", "First Point Scan"),
    ("SELECT DISTINCT ON (device) * FROM m ORDER BY device, time DESC NULLS LAST LIMIT 3 OFFSET 2", "Last Point Scan"),
    (
        "SELECT DISTINCT ON (device) device, time, note FROM m WHERE time < '2024-01-02 11:00Z' ORDER BY device, time DESC, n",
        "Last Point Scan",
    ),
    ("SELECT DISTINCT ON (device) device, time, value FROM m WHERE value < 3 ORDER BY device, time DESC", "First Rows"),
    ("SELECT DISTINCT ON (device) device, value, n, time FROM m ORDER BY device, value DESC, n, time", "First Rows"),
    (
        "SELECT DISTINCT ON (note, upper(device)) note, upper(device), time FROM m ORDER BY upper(device), note, time DESC",
        "First Rows",
    ),
    (
        "SELECT DISTINCT ON (time_bucket('6 hours', time), device) time_bucket('6 hours', time), device, n, value FROM m \
         ORDER BY time_bucket('6 hours', time), device, time DESC",
        "First Rows",
    ),
    (
        "SELECT count(*), sum(n) FROM (SELECT DISTINCT ON (device) device, n FROM m ORDER BY device, time DESC) AS latest",
        "First Rows",
    ),
    ("SELECT DISTINCT device FROM m ORDER BY 1", "Skip Scan"),
    ("SELECT DISTINCT device FROM m WHERE time < '2024-01-01 02:00Z' ORDER BY 1", "Skip Scan"),
    ("SELECT count(DISTINCT device) FROM m", "Skip Scan"),
    ("SELECT upper(device), count(*) FROM m GROUP BY 1 ORDER BY 1", "Chunk Scan"),
    ("SELECT sum(n), count(*) FROM m WHERE value > 5 AND device = 'd2'", "Chunk Scan"),
    ("SELECT device, count(*), count(note), min(value), max(n) FROM m GROUP BY device ORDER BY 1", "Bucket Scan"),
    (
        "SELECT time_bucket('1 hour', time) AS hour, device, count(*), max(value), round(avg(value)::numeric, 6) FROM m \
         WHERE time >= '2024-01-01 03:10Z' AND time < '2024-01-02 11:50Z' GROUP BY hour, device ORDER BY hour, device",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 minute', time) AS minute, min(value), max(value), first(n, time), last(value, time) FROM m \
         WHERE device IN ('d1', 'd7', 'none') AND time BETWEEN '2024-01-01 12:00Z' AND '2024-01-01 13:00Z' \
         GROUP BY minute ORDER BY minute",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('7 minutes', time) AS span, count(*), max(n) FROM m WHERE device IS NOT NULL GROUP BY span \
         ORDER BY span DESC LIMIT 5",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('2 hours', time) AS span, device, max(n) FROM m WHERE time > '2024-01-01 05:00Z' \
         GROUP BY span, device ORDER BY span, device LIMIT 12",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 day', time) AS day, count(*) FROM m GROUP BY day HAVING count(*) > 100 ORDER BY day DESC \
         LIMIT 2",
        "Bucket Scan",
    ),
    (
        "SELECT device, sum(n), avg(n), sum(i), avg(i), sum(s), avg(s) FROM m GROUP BY device ORDER BY device",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 hour', time) AS hour, sum(i), avg(n), max(s), sum(n) FROM m WHERE device <> 'd3' \
         AND time > '2024-01-01 03:10Z' GROUP BY hour ORDER BY hour",
        "Bucket Scan",
    ),
    (
        "SELECT device, sum(r), min(r), max(r), last(r, time), first(r, time) FROM m GROUP BY device ORDER BY device",
        "Bucket Scan",
    ),
    ("SELECT time_bucket('1 hour', time) AS hour, avg(r), count(r) FROM m GROUP BY hour ORDER BY hour", "Bucket Scan"),
    ("SELECT min(price), max(price), min(amount), max(amount), count(price) FROM m", "Metadata Aggregate"),
    ("SELECT sum(price), avg(price), sum(amount), avg(amount), max(price) FROM m", "Bucket Scan"),
    (
        "SELECT device, sum(price), avg(price), min(price), last(price, time), first(amount, time), avg(amount) FROM m \
         GROUP BY device ORDER BY device",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 hour', time) AS hour, sum(amount), avg(price), max(amount) FROM m WHERE device <> 'd3' \
         AND time > '2024-01-01 03:10Z' GROUP BY hour ORDER BY hour",
        "Bucket Scan",
    ),
    ("SELECT device, avg(rare), count(rare), sum(rare) FROM m GROUP BY device ORDER BY device", "Bucket Scan"),
    (
        "SELECT time_bucket('5 hours', time) AS span, avg(rare), max(rare) FROM m GROUP BY span ORDER BY span",
        "Bucket Scan",
    ),
    ("SELECT max(value), count(*) FROM m WHERE device LIKE 'd%' AND device <> 'd3'", "Bucket Scan"),
    (
        "SELECT time_bucket('90 minutes', time, '20 minutes'::interval) AS span, count(*), max(n) FROM m GROUP BY span \
         ORDER BY span",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('7 hours', time, timestamptz '2024-01-01 00:30Z') AS span, device, sum(n) FROM m \
         WHERE time < '2024-01-03 00:10Z' GROUP BY span, device ORDER BY span, device",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 day', time, 'UTC') AS day, sum(n), count(*) FROM m GROUP BY day ORDER BY day",
        "Bucket Scan",
    ),
    (
        "SELECT time_bucket('1 day', time, 'Asia/Kathmandu') AS day, count(*) FROM m GROUP BY day ORDER BY day",
        "Chunk Scan",
    ),
    ("SELECT time_bucket('1 month', time) AS month, count(*) FROM m GROUP BY month ORDER BY 1", "Chunk Scan"),
    (
        "SELECT n FROM m WHERE device = 'd2' AND time BETWEEN '2024-01-02Z' AND '2024-01-02 01:00Z' ORDER BY n",
        "Chunk Scan",
    ),
    ("SELECT count(*) FROM m WHERE n % 2 = 0", "Chunk Scan"),
    ("SELECT * FROM m ORDER BY time DESC LIMIT 7", "Chunk Scan"),
    ("SELECT time, n FROM m WHERE value > 5 ORDER BY time DESC, n LIMIT 5 OFFSET 3000", "Chunk Scan"),
    ("SELECT device, time FROM m WHERE note IS NULL ORDER BY time LIMIT 9", "Chunk Scan"),
    ("SELECT time, n + 1 AS more FROM m ORDER BY time NULLS FIRST, more DESC LIMIT 4", "Chunk Scan"),
    ("SELECT device, time, n FROM m ORDER BY device, time LIMIT 25", "Merge Scan"),
    ("SELECT * FROM m ORDER BY device DESC, time DESC LIMIT 25 OFFSET 9000", "Merge Scan"),
    ("SELECT device, n FROM m WHERE n > 200 ORDER BY device NULLS FIRST, time DESC LIMIT 9000", "Merge Scan"),
    ("SELECT time, n FROM m WHERE device = 'd3' ORDER BY time DESC LIMIT 10", "Merge Scan"),
    (
        "SELECT time, n, note FROM m WHERE device = 'd8' AND time < '2024-01-02 11:00Z' AND note IS NOT NULL ORDER BY time",
        "Merge Scan",
    ),
    ("SELECT device, median(value), bit_xor(n) FROM m GROUP BY device ORDER BY device", "Merge Scan"),
    ("SELECT device, count(DISTINCT n), count(DISTINCT note) FROM m GROUP BY device ORDER BY device", "Merge Scan"),
    (
        "SELECT device, count(*) FILTER (WHERE note IS NULL), sum(n + 1) FROM m WHERE value > 2 GROUP BY device \
         ORDER BY device LIMIT 3",
        "Merge Scan",
    ),
    (
        "SELECT device, count(d), sum(d), max(d) FROM (SELECT device, n - lag(n) OVER (PARTITION BY device ORDER BY time) \
         AS d FROM m) AS steps GROUP BY device ORDER BY device",
        "Merge Scan",
    ),
    (
        "SELECT device, time, row_number() OVER (PARTITION BY device ORDER BY time DESC) FROM m \
         WHERE time > '2024-01-02 20:00Z' ORDER BY device, time",
        "Merge Scan",
    ),
];

/// Conditions by which series and row groups are left out, and the same in a form that leaves out nothing.
const CONDITIONS: &[(&str, &str)] = &[
    ("device IN ('d1', 'd5', 'd9') AND value > 9.5", "device || '' IN ('d1', 'd5', 'd9') AND value + 0 > 9.5"),
    ("device IN ('d2', NULL, 'none', 'd7') AND n < 300", "device || '' IN ('d2', 'none', 'd7') AND n + 0 < 300"),
    (
        "(device = 'd1' AND n < 40) OR (device = 'd4' AND value < 0.05)",
        "(device || '' = 'd1' AND n + 0 < 40) OR (device || '' = 'd4' AND value + 0 < 0.05)",
    ),
    ("device LIKE '%3' AND n <= 500", "device || '' LIKE '%3' AND n + 0 <= 500"),
    ("device IS NULL AND value > 9", "upper(device) IS NULL AND value + 0 > 9"),
    ("n IN (31, 62, 9999) OR value < 0.01", "n + 0 IN (31, 62, 9999) OR value + 0 < 0.01"),
    ("device NOT IN ('d1', 'd2') AND value >= 9.9", "device || '' NOT IN ('d1', 'd2') AND value + 0 >= 9.9"),
];

async fn create(sql: &Sql) {
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, device text, value float8, n bigint, note text, rare float8, i int, s smallint, \
             price numeric(12,2), amount numeric, r real)")
        .await;
    sql.run("SELECT create_hypertable('m', 'time', chunk_time_interval => INTERVAL '1 day', partitioning_column => 'device', number_partitions => 4)").await;
    sql.run("SET timezone = 'UTC'").await;
}

/// Rows from `first` on: ten devices, one of them without a name, a row every 40 seconds; no two of a device at one time.
async fn copy_rows(sql: &Sql, first: usize, count: usize) {
    let mut lines = String::new();
    for row in first..first + count {
        let seconds = row * 4;
        let (day, hour, minute, second) = (1 + seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let device = match row % 10 {
            0 => "\\N".to_owned(),
            device => format!("d{device}"),
        };
        let value = (row * 7919 % 1000) as f64 / 100.0;
        let note = if row % 3 == 0 { "\\N" } else { "noted" };
        let rare = if row % 10 < 3 && seconds > 100_000 { "0.5" } else { "\\N" };
        lines.push_str(&format!(
            "2024-01-{day:02} {hour:02}:{minute:02}:{second:02}Z,{device},{value},{},{note},{rare},{},{},{},{},{}\n",
            row * 31 % 10_007,
            row * 7 % 2_000_003,
            row % 30_000,
            if row % 7 == 0 { "\\N".to_owned() } else { format!("{}.{:02}", row % 500, row % 97) },
            format_args!("-{}.{}", row % 1000, row % 13),
            // Halves, so that sums are exact in any order.
            (row % 4000) as f32 / 2.0
        ));
    }
    sql.copy("COPY m FROM STDIN WITH (FORMAT csv, NULL '\\N')", &lines).await.unwrap();
}

async fn check_all(sql: &Sql) {
    for (condition, plain) in CONDITIONS {
        let rows =
            async |condition| sql.rows(&format!("SELECT * FROM m WHERE {condition} ORDER BY time, n, value")).await;
        let expected = rows(plain).await;
        assert!(!expected.is_empty(), "{plain}");
        assert_eq!(rows(condition).await, expected, "{condition}");
    }
    for (query, leaf) in QUERIES {
        sql.run("SET meridian.enable_leaves = off").await;
        let expected = sql.rows(query).await;
        let plain = sql.rows(&format!("EXPLAIN {query}")).await.join("\n");
        sql.run("SET meridian.enable_leaves = on").await;
        let plan = sql.rows(&format!("EXPLAIN {query}")).await.join("\n");
        assert!(plan.contains(leaf), "{query}: no {leaf} in\n{plan}");
        assert!(
            plain.contains("Chunk Scan")
                && ["Metadata Aggregate", "Bucket Scan", "First Rows"].iter().all(|name| !plain.contains(name)),
            "{query}:\n{plain}"
        );
        // Twice: from the file, then from what was kept of it.
        for _ in 0..2 {
            assert_eq!(sql.rows(query).await, expected, "{query}\n{plan}");
        }
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn leaves_give_the_rows_of_the_plain_scan_over_segments_and_fresh_rows() {
    let node = Node::start_with(&["--shards", "2", "--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    create(&sql).await;
    for part in 0..3 {
        copy_rows(&sql, part * 20_000, 20_000).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while segments(node.folder()).is_empty() {
        assert!(Instant::now() < deadline, "no segment was flushed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check_all(&sql).await;
    // Of four slots with three days each, the newest day's chunks tell that no other row is among the last ones.
    let plan = sql.rows("EXPLAIN ANALYZE SELECT time, n FROM m ORDER BY time DESC LIMIT 3").await.join("\n");
    let scanned = plan.split(" rows scanned").next().and_then(|before| before.rsplit([' ', ',']).next());
    let scanned: u64 = scanned.and_then(|rows| rows.parse().ok()).unwrap_or_else(|| panic!("{plan}"));
    assert!((3..30_000).contains(&scanned), "{plan}");
    // Late and new rows beside the segments.
    sql.run(
        "INSERT INTO m VALUES ('2024-01-01 00:00:00.5Z', 'd1', -1, -5, 'late'), ('2024-01-09Z', 'new', 0, 0, NULL)",
    )
    .await;
    check_all(&sql).await;
    // A transaction's own rows, and none of anybody else's.
    sql.run("BEGIN; INSERT INTO m VALUES ('2024-01-10Z', 'd2', 1e9, 77, 'mine'), ('2024-01-10Z', NULL, 1, 1, 'mine')")
        .await;
    let other = node.connect().await;
    assert_eq!(other.one("SELECT count(*) FROM m WHERE note = 'mine'").await, "0");
    let before = other.one("SELECT count(*) FROM m").await;
    check_all(&sql).await;
    sql.run("COMMIT").await;
    assert_eq!(other.one("SELECT count(*) FROM m").await, (before.parse::<u64>().unwrap() + 2).to_string());
    check_all(&other).await;
    // Some chunks compressed, with late rows beside them, others as they were.
    sql.run("ALTER TABLE m SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    sql.run("SELECT compress_chunk(c) FROM show_chunks('m', older_than => '2024-01-03'::timestamptz) AS c").await;
    check_all(&sql).await;
    sql.run("INSERT INTO m VALUES ('2024-01-01 13:00:00.5Z', 'd4', -1, -5, 'late'), ('2024-01-08Z', 'd4', 0, 0, NULL)")
        .await;
    check_all(&sql).await;
}

#[tokio::test]
async fn first_rows_of_more_keys_than_memory_holds_go_on_on_disk() {
    let node = Node::start_with(&["--shards", "2", "--set", "sql.memory=48MiB"]);
    let sql = node.connect().await;
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, id bigint, n bigint, note text)").await;
    sql.run("SELECT create_hypertable('m', 'time')").await;
    // Two rows of each key, of some 150 bytes; a quarter of the memory holds less than a fifth of the keys.
    let (keys, note) = (400_000_u64, "x".repeat(100));
    for (round, day) in ["2024-01-02", "2024-01-01"].iter().enumerate() {
        let mut lines = String::new();
        for id in 0..keys {
            lines.push_str(&format!("{day} 00:00Z,{},{},{id}{note}\n", id * 7919 % keys, id + round as u64 * keys));
        }
        sql.copy("COPY m FROM STDIN WITH (FORMAT csv)", &lines).await.unwrap();
    }
    let latest = "SELECT DISTINCT ON (id) id, n, note FROM m ORDER BY id, time DESC";
    let sums =
        sql.one(&format!("SELECT count(*) || ' ' || sum(n) || ' ' || count(note) FROM ({latest}) AS latest")).await;
    assert_eq!(sums, format!("{keys} {} {keys}", keys * (keys - 1) / 2));
    let first = sql.rows(&format!("SELECT id FROM ({latest} LIMIT 3) AS latest ORDER BY id")).await;
    assert_eq!(first, ["0", "1", "2"]);
}

/// The number before a word in the plan's lines, all of them together.
fn sum_before(plan: &[String], word: &str) -> u64 {
    let number = |line: &String| line.split(word).next()?.rsplit([',', ':']).next()?.trim().parse::<u64>().ok();
    plan.iter().filter(|line| line.contains(word)).filter_map(number).sum()
}

#[tokio::test]
async fn a_limit_on_sorted_rows_reads_little() {
    let node = Node::start_with(&["--shards", "2"]);
    let sql = node.connect().await;
    create(&sql).await;
    copy_rows(&sql, 0, 60_000).await;
    sql.run("ALTER TABLE m SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    sql.run("SELECT compress_chunk(c) FROM show_chunks('m') AS c").await;
    let of_device = "SELECT time, n FROM m WHERE device = 'd3' ORDER BY time DESC LIMIT 10";
    let plan = sql.rows(&format!("EXPLAIN ANALYZE {of_device}")).await;
    // A chunk has 2160 rows of the device, and there are three chunks of it.
    assert!((10..2160).contains(&sum_before(&plan, " rows scanned")), "{}", plan.join("\n"));
    assert_eq!(sum_before(&plan, " rows returned"), 10, "{}", plan.join("\n"));
    let of_all = "SELECT device, time, n FROM m ORDER BY device, time LIMIT 10";
    let plan = sql.rows(&format!("EXPLAIN ANALYZE {of_all}")).await;
    assert!((10..=20).contains(&sum_before(&plan, " rows returned")), "{}", plan.join("\n"));
}

#[tokio::test]
async fn leaves_work_on_several_data_nodes() {
    let cluster = Cluster::start(1, 3);
    let sql = cluster.connect().await;
    create(&sql).await;
    copy_rows(&sql, 0, 60_000).await;
    check_all(&sql).await;
    assert_eq!(sql.one("SELECT count(*) FROM m").await, "60000");
}

/// Sums that pass what a numeric holds on their way, and averages whose sums do not come back.
#[tokio::test]
async fn sums_of_great_numerics_are_those_of_the_plain_scan() {
    let node = Node::start_with(&["--shards", "2"]);
    let sql = node.connect().await;
    sql.run("CREATE TABLE great (time timestamptz NOT NULL, device text, v numeric(38,0), w numeric)").await;
    sql.run("SELECT create_hypertable('great', 'time')").await;
    let mut lines = String::new();
    for row in 0..45_000_u32 {
        let v = match row / 2000 {
            0 => "95000000000000000000000000000000000000",
            1 => "-95000000000000000000000000000000000000",
            _ => "0",
        };
        lines.push_str(&format!(
            "2024-01-01 {:02}:{:02}:{:02}Z,d,{v},500000000000000000\n",
            row / 3600,
            row / 60 % 60,
            row % 60
        ));
    }
    sql.copy("COPY great FROM STDIN WITH (FORMAT csv)", &lines).await.unwrap();
    sql.run("ALTER TABLE great SET (timescaledb.compress, timescaledb.compress_segmentby = 'device')").await;
    for _ in 0..2 {
        for question in ["avg(v), avg(w)", "sum(v), count(w)", "max(v), min(v), last(v, time)"] {
            for group in ["", "GROUP BY device", "GROUP BY time_bucket('1 day', time)"] {
                let query = format!("SELECT {question} FROM great {group}");
                sql.run("SET meridian.enable_leaves = off").await;
                let expected = sql.rows(&query).await;
                sql.run("SET meridian.enable_leaves = on").await;
                assert_eq!(sql.rows(&query).await, expected, "{query}");
            }
        }
        let average = sql.one("SELECT avg(w)::numeric(30,2) FROM great").await;
        assert_eq!(average, "500000000000000000.00");
        sql.run("SELECT compress_chunk(c, true) FROM show_chunks('great') AS c").await;
    }
    // By hour: no sum fits that is made of the first rows alone.
    let (sqlstate, message) = sql.fail("SELECT sum(v) FROM great WHERE time < '2024-01-01 00:30Z'").await;
    assert_eq!((sqlstate.as_str(), message.as_str()), ("22003", "numeric field overflow"));
}
