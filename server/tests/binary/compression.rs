//! Compression through SQL: the rows stay what they were through compress, new rows, recompress, decompress, restarts
//! and kills; sizes and views tell what happened; what cannot be is refused as TimescaleDB does.

use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use crate::common::{Cluster, Node, Sql, sqlstate_of};

/// Rows of the first load: 3 days x 24 devices x 250.
const ROWS: usize = 18_000;
const ENABLE: &str = "ALTER TABLE m SET (timescaledb.compress, timescaledb.compress_segmentby = 'device', \
                      timescaledb.compress_orderby = 'time DESC NULLS LAST')";
const COMPRESS_ALL: &str = "SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('m') c";

/// A hypertable of one-day chunks in four slots, with rows in no particular order and some NULLs.
async fn create(sql: &Sql) {
    sql.run("CREATE TABLE m (time timestamptz NOT NULL, device text, site text, v double precision, n bigint)").await;
    sql.run("SELECT create_hypertable('m', 'time', 'device', 4, chunk_time_interval => INTERVAL '1 day')").await;
}

async fn load(sql: &Sql) {
    let line = |number: usize| {
        // 7919 is prime to the number of rows: every row once, far from its neighbours in time.
        let row = number * 7919 % ROWS;
        let (day, device, second) = (1 + row % 3, row / 3 % 24, row / 72 * 300);
        let time = format!("2024-05-0{day} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
        let value = if row.is_multiple_of(97) { String::new() } else { format!("{}.25", row % 40) };
        format!("{time},device_{device},site_{},{value},{row}\n", device % 3)
    };
    let data: String = (0..ROWS).map(line).collect();
    assert_eq!(sql.copy("COPY m FROM STDIN WITH (FORMAT csv)", &data).await.unwrap(), ROWS as u64);
}

/// What queries of every kind answer.
async fn answers(sql: &Sql) -> Vec<String> {
    let mut answers = sql.rows("SELECT time, device, site, v, n FROM m ORDER BY n, time, device").await;
    for query in [
        "SELECT count(*), count(v), sum(n), min(time), max(time) FROM m",
        "SELECT device, last(v, time), first(n, time) FROM m GROUP BY device ORDER BY device",
        "SELECT time_bucket('1 hour', time) AS hour, avg(v), max(n) FROM m WHERE site = 'site_1' GROUP BY hour ORDER BY hour",
        "SELECT DISTINCT ON (device) device, time, v FROM m ORDER BY device, time DESC",
        "SELECT count(*) FROM m WHERE v IS NULL AND time >= '2024-05-02Z' AND time < '2024-05-03Z'",
        "SELECT n FROM m WHERE device = 'device_7' AND v > 20 ORDER BY time DESC, n LIMIT 10",
    ] {
        answers.extend(sql.rows(query).await);
    }
    answers
}

#[track_caller]
fn assert_same(found: &[String], expected: &[String]) {
    let first = found.iter().zip(expected).find(|(found, expected)| found != expected);
    let sizes = (found.len(), expected.len());
    assert!(found == expected, "{sizes:?} answers, the first difference is {first:?}");
}

async fn compressed_count(sql: &Sql) -> usize {
    let count = sql.one("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed").await;
    count.parse().expect("a count")
}

/// The notices are lost to the driver; the rows are not.
async fn compress_all(sql: &Sql) -> Vec<String> {
    sql.rows(COMPRESS_ALL).await
}

#[tokio::test]
async fn rows_are_the_same_before_and_after_compress_and_decompress() {
    let node = Node::start();
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    let expected = answers(&sql).await;
    sql.run(ENABLE).await;
    let chunks = sql.rows("SELECT show_chunks('m')").await;
    assert_eq!(chunks.len(), 12);
    assert!(chunks.iter().all(|name| name.starts_with("_timescaledb_internal._dist_hyper_1_")), "{chunks:?}");
    assert_eq!(sql.rows("SELECT compress_chunk(c) FROM show_chunks('m') c").await, chunks);
    assert_eq!(compressed_count(&sql).await, 12);
    assert_same(&answers(&sql).await, &expected);

    let one = sql.rows(&format!("SELECT decompress_chunk('{}')", chunks[3])).await;
    assert_eq!((one, compressed_count(&sql).await), (vec![chunks[3].clone()], 11));
    assert_same(&answers(&sql).await, &expected);
    let others = sql.rows("SELECT decompress_chunk(c, if_compressed => true) FROM show_chunks('m') c").await;
    assert_eq!(others.iter().filter(|name| *name == "-").count(), 1, "NULL for the chunk that was not compressed");
    assert_eq!(compressed_count(&sql).await, 0);
    assert_same(&answers(&sql).await, &expected);
    node.assert_no_panic();
}

#[tokio::test]
async fn a_compressed_chunk_takes_new_rows_and_is_recompressed() {
    let node = Node::start();
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    sql.run(ENABLE).await;
    compress_all(&sql).await;
    sql.run(
        "INSERT INTO m SELECT time + INTERVAL '1 second', device, site, NULL, n + 100000 FROM m \
         WHERE time < '2024-05-02Z' AND n % 5 = 0",
    )
    .await;
    sql.run("BEGIN").await;
    sql.run("INSERT INTO m VALUES ('2024-05-01 12:00:00Z', 'device_1', 'late', 1, -1)").await;
    sql.run("INSERT INTO m VALUES ('2024-05-03 12:00:00Z', 'device_2', 'late', 2, -2)").await;
    assert_eq!(sql.one("SELECT count(*) FROM m WHERE site = 'late'").await, "2");
    sql.run("COMMIT").await;
    let expected = answers(&sql).await;
    assert_eq!(compressed_count(&sql).await, 12, "a chunk with new rows is still a compressed one");

    let chunk = sql.one("SELECT show_chunks('m', older_than => '2024-05-02Z'::timestamptz) LIMIT 1").await;
    let recompress = format!("CALL recompress_chunk('{chunk}')");
    sql.run(&recompress).await;
    assert_same(&answers(&sql).await, &expected);
    let short = chunk.trim_start_matches("_timescaledb_internal.");
    let (state, message) = sql.fail(&recompress).await;
    assert_eq!((state, message), ("P0001".to_owned(), format!("nothing to recompress in chunk \"{short}\"")));
    sql.run(&format!("CALL recompress_chunk('{chunk}', if_not_compressed => true)")).await;

    // Decompressing and compressing anew takes the new rows along.
    sql.rows("SELECT decompress_chunk(c) FROM show_chunks('m') c").await;
    assert_same(&answers(&sql).await, &expected);
    compress_all(&sql).await;
    assert_same(&answers(&sql).await, &expected);
    node.assert_no_panic();
}

#[tokio::test]
async fn compression_outlives_restarts_and_kills() {
    let mut node = Node::start_with(&["--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    sql.run(ENABLE).await;
    compress_all(&sql).await;
    sql.run("INSERT INTO m VALUES ('2024-05-02 01:00:00Z', 'device_3', 'new', 3, -3)").await;
    let expected = answers(&sql).await;

    assert_eq!(node.stop(), Some(0));
    node.run();
    node.wait_ready();
    let sql = node.connect().await;
    assert_eq!(compressed_count(&sql).await, 12);
    assert_same(&answers(&sql).await, &expected);
    let settings = "SELECT attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst \
                    FROM timescaledb_information.compression_settings";
    assert_eq!(sql.rows(settings).await, ["device|1|-|-|-", "time|-|1|f|f"]);

    sql.rows("SELECT decompress_chunk(c) FROM show_chunks('m', newer_than => '2024-05-03Z') c").await;
    node.restart();
    let sql = node.connect().await;
    assert_eq!(compressed_count(&sql).await, 8);
    assert_same(&answers(&sql).await, &expected);
    node.assert_no_panic();
}

#[tokio::test]
async fn a_kill_while_chunks_are_rewritten_leaves_every_row_once() {
    let mut node = Node::start_with(&["--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    sql.run(ENABLE).await;
    let expected = answers(&sql).await;
    for round in 0..6_u64 {
        let sql = node.connect().await;
        let rewrite = if round % 2 == 0 {
            COMPRESS_ALL
        } else {
            "SELECT decompress_chunk(c, if_compressed => true) FROM show_chunks('m') c"
        };
        let rewriting = tokio::spawn(async move { sql.try_rows(rewrite).await.map(|rows| rows.len()) });
        tokio::time::sleep(Duration::from_millis(5 + 23 * round)).await;
        node.kill();
        // Answered in full before the kill, or an error; never half an answer taken for a whole one.
        if let Ok(rows) = rewriting.await.unwrap() {
            assert_eq!(rows, 12, "round {round}");
        }
        node.run();
        node.wait_ready();
        assert_same(&answers(&node.connect().await).await, &expected);
    }
    let sql = node.connect().await;
    compress_all(&sql).await;
    assert_eq!(compressed_count(&sql).await, 12);
    assert_same(&answers(&sql).await, &expected);
    node.assert_no_panic();
}

#[tokio::test]
async fn compressed_chunks_are_smaller_and_the_statistics_say_so() {
    let node = Node::start_with(&["--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    create(&sql).await;
    for _ in 0..4 {
        load(&sql).await;
    }
    let number = |text: String| text.parse::<u64>().expect("a number");
    let stats = "SELECT total_chunks, number_compressed_chunks FROM hypertable_compression_stats('m')";
    assert!(sql.rows(stats).await.is_empty(), "compression is not enabled");
    sql.run(ENABLE).await;
    assert_eq!(sql.rows(stats).await, ["12|0"]);
    let before = "SELECT before_compression_total_bytes FROM hypertable_compression_stats('m')";
    assert_eq!(sql.one(before).await, "-");
    compress_all(&sql).await;
    assert_eq!(sql.rows(stats).await, ["12|12"]);
    let before = number(sql.one(before).await);
    let after = number(sql.one("SELECT after_compression_total_bytes FROM hypertable_compression_stats('m')").await);
    assert!(0 < after && after < before, "{before} bytes became {after}");
    assert_eq!(number(sql.one("SELECT hypertable_size('m')").await), after);
    assert_eq!(number(sql.one("SELECT sum(total_bytes) FROM chunks_detailed_size('m')").await), after);
    let detailed =
        sql.rows("SELECT total_bytes, node_name FROM hypertable_detailed_size('m') ORDER BY node_name").await;
    assert_eq!(detailed.len(), 2, "the data node and the access node: {detailed:?}");
    assert!(detailed[0].starts_with(&format!("{after}|")), "{detailed:?}");
    assert_eq!(detailed[1], "0|-");
    assert_eq!(sql.one("SELECT approximate_row_count('m')").await, (4 * ROWS).to_string());
    let statuses = "SELECT compression_status, count(*) FROM chunk_compression_stats('m') GROUP BY 1";
    assert_eq!(sql.rows(statuses).await, ["Compressed|12"]);
}

#[tokio::test]
async fn settings_are_checked_as_timescaledb_does() {
    let node = Node::start();
    let sql = node.connect().await;
    create(&sql).await;
    sql.run("CREATE TABLE plain (a int)").await;
    let set = |options: &str| format!("ALTER TABLE m SET ({options})");
    let on = "timescaledb.compress, timescaledb";
    for (statement, state, message) in [
        ("ALTER TABLE nowhere SET (timescaledb.compress)".to_owned(), "42P01", "relation \"nowhere\" does not exist"),
        (
            "ALTER TABLE plain SET (timescaledb.compress)".to_owned(),
            "22023",
            "unrecognized parameter namespace \"timescaledb\"",
        ),
        (set("timescaledb.nothing = 1"), "22023", "unrecognized parameter \"timescaledb.nothing\""),
        (set("timescaledb.compress = maybe"), "22023", "invalid value for timescaledb.compress 'maybe'"),
        (set(&format!("{on}.compress_segmentby = 'x'")), "42601", "column \"x\" does not exist"),
        (set(&format!("{on}.compress_orderby = 'x'")), "42601", "column \"x\" does not exist"),
        (set(&format!("{on}.compress_segmentby = 'v + 1'")), "42601", "unable to parse segmenting option \"v + 1\""),
        (set(&format!("{on}.compress_orderby = 'v,,n'")), "42601", "unable to parse ordering option \"v,,n\""),
        (set(&format!("{on}.compress_segmentby = 'device, device'")), "42601", "duplicate column name \"device\""),
        (
            set(&format!("{on}.compress_segmentby = 'time'")),
            "42601",
            "cannot use column \"time\" for both ordering and segmenting",
        ),
        (
            set(&format!("{on}.compress_chunk_time_interval = '1 day'")),
            "0A000",
            "parameter \"timescaledb.compress_chunk_time_interval\" is not supported",
        ),
        ("ALTER TABLE m ADD COLUMN w int".to_owned(), "0A000", "ALTER TABLE is not supported"),
    ] {
        assert_eq!(sql.fail(&statement).await, (state.to_owned(), message.to_owned()), "{statement}");
    }
    sql.run("ALTER TABLE IF EXISTS nowhere SET (timescaledb.compress)").await;
    let enabled = "SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables";
    assert_eq!(sql.rows(enabled).await, ["m|f"]);
    sql.run(ENABLE).await;
    assert_eq!(sql.rows(enabled).await, ["m|t"]);
    let unsaid = "must specify a column to segment by".to_owned();
    assert_eq!(sql.fail(&set("timescaledb.compress")).await, ("0A000".to_owned(), unsaid));

    load(&sql).await;
    let chunk = sql.one("SELECT show_chunks('m') LIMIT 1").await;
    sql.run(&format!("SELECT compress_chunk('{chunk}')")).await;
    let fixed = ("0A000".to_owned(), "cannot change configuration on already compressed chunks".to_owned());
    assert_eq!(sql.fail(ENABLE).await, fixed);
    assert_eq!(sql.fail(&set("timescaledb.compress = false")).await, fixed);
    sql.run(&format!("SELECT decompress_chunk('{chunk}')")).await;
    sql.run(&set("timescaledb.compress = false")).await;
    assert_eq!(sql.rows(enabled).await, ["m|f"]);
    let off = ("0A000".to_owned(), "compression not enabled on \"m\"".to_owned());
    assert_eq!(sql.fail(&format!("SELECT compress_chunk('{chunk}')")).await, off);
}

#[tokio::test]
async fn settings_of_a_transaction_come_with_its_commit() {
    let node = Node::start();
    let sql = node.connect().await;
    let enabled = "SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables ORDER BY 1";
    sql.run("BEGIN").await;
    create(&sql).await;
    sql.run(ENABLE).await;
    assert_eq!(sql.rows(enabled).await, ["m|t"]);
    assert!(node.connect().await.rows(enabled).await.is_empty(), "nobody else sees it yet");
    sql.run("COMMIT").await;
    assert_eq!(node.connect().await.rows(enabled).await, ["m|t"]);
    sql.run("BEGIN").await;
    sql.run("ALTER TABLE m SET (timescaledb.compress = off)").await;
    assert_eq!(sql.rows(enabled).await, ["m|f"]);
    sql.run("ROLLBACK").await;
    assert_eq!(sql.rows(enabled).await, ["m|t"]);
}

#[tokio::test]
async fn chunks_are_named_in_every_form_and_mistakes_have_postgresqls_errors() {
    let node = Node::start();
    let sql = node.connect().await;
    sql.run("CREATE TABLE \"Odd Name\" (\"Time\" timestamptz NOT NULL, \"D\" text)").await;
    sql.run("SELECT create_hypertable('\"Odd Name\"', 'Time')").await;
    sql.run("INSERT INTO \"Odd Name\" VALUES ('2024-01-01Z', 'a'), ('2024-02-01Z', 'b')").await;
    sql.run("ALTER TABLE public.\"Odd Name\" SET (timescaledb.compress, timescaledb.compress_segmentby = '\"D\"')")
        .await;
    let chunks = sql.rows("SELECT show_chunks('public.\"Odd Name\"')").await;
    assert_eq!(sql.rows("SELECT * FROM show_chunks('\"Odd Name\"'::regclass)").await, chunks);
    let (schema, name) = chunks[0].split_once('.').expect("a schema");
    sql.run(&format!("SELECT compress_chunk('\"{schema}\".\"{name}\"'::regclass)")).await;
    sql.run(&format!("SELECT compress_chunk(uncompressed_chunk => '{}')", chunks[1])).await;
    sql.run("SELECT public.decompress_chunk(chunk_schema || '.' || chunk_name) FROM timescaledb_information.chunks")
        .await;
    let chunk = &chunks[0];
    for (statement, state, message) in [
        (format!("SELECT compress_chunk('{name}')"), "42P01", format!("relation \"{name}\" does not exist")),
        ("SELECT compress_chunk('\"Odd Name\"')".to_owned(), "42704", "chunk not found".to_owned()),
        ("SELECT compress_chunk('a b')".to_owned(), "42602", "invalid name syntax: \"a b\"".to_owned()),
        ("SELECT compress_chunk()".to_owned(), "42883", "function compress_chunk() does not exist".to_owned()),
        (
            "SELECT compress_chunk(1.5)".to_owned(),
            "42883",
            "function compress_chunk(numeric) does not exist".to_owned(),
        ),
        (
            format!("SELECT compress_chunk('{chunk}', nothing => true)"),
            "42883",
            "function compress_chunk(unknown, unknown) does not exist".to_owned(),
        ),
        (format!("SELECT decompress_chunk('{chunk}')"), "55000", format!("chunk \"{name}\" is not compressed")),
        (
            format!("CALL recompress_chunk('{chunk}')"),
            "P0001",
            "call compress_chunk instead of recompress_chunk".to_owned(),
        ),
        (format!("CALL compress_chunk('{chunk}')"), "42809", "compress_chunk(unknown) is not a procedure".to_owned()),
        ("SELECT show_chunks('nowhere')".to_owned(), "42P01", "relation \"nowhere\" does not exist".to_owned()),
    ] {
        assert_eq!(sql.fail(&statement).await, (state.to_owned(), message), "{statement}");
    }
    sql.run("BEGIN READ ONLY").await;
    let (state, _) = sql.fail(&format!("SELECT compress_chunk('{chunk}')")).await;
    assert_eq!(state, "25006");
    sql.run("ROLLBACK").await;
    node.assert_no_panic();
}

#[tokio::test]
async fn calls_work_with_parameters_in_the_extended_protocol() {
    let node = Node::start();
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    sql.run(ENABLE).await;
    let rows = sql.client.query("SELECT * FROM show_chunks($1, older_than => $2)", &[&"m", &"2024-05-02Z"]).await;
    let chunks: Vec<String> = rows.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(chunks.len(), 4);
    let compress = sql.client.prepare("SELECT compress_chunk($1, $2)").await.unwrap();
    for _ in 0..2 {
        let row = sql.client.query_one(&compress, &[&chunks[0], &true]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), chunks[0]);
    }
    let error = sql.client.query_one(&compress, &[&chunks[0], &false]).await.unwrap_err();
    assert_eq!(sqlstate_of(&error), "42710");
    sql.run("INSERT INTO m SELECT * FROM m").await;
    // The chunk hears a moment after the statement that its rows are committed.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = sql.client.execute("CALL recompress_chunk($1)", &[&chunks[0]]).await {
        assert_eq!(sqlstate_of(&error), "P0001");
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = "SELECT number_compressed_chunks FROM hypertable_compression_stats($1)";
    assert_eq!(sql.client.query_one(rows, &[&"m"]).await.unwrap().get::<_, i64>(0), 1);
    let size = sql.client.query_one("SELECT hypertable_size($1)", &[&"m"]).await.unwrap();
    assert!(size.get::<_, i64>(0) > 0);
    sql.run(&format!("PREPARE back AS SELECT decompress_chunk($1); EXECUTE back('{}')", chunks[0])).await;
    assert_eq!(compressed_count(&sql).await, 0);
}

#[tokio::test]
async fn chunks_of_every_data_node_are_compressed_and_counted() {
    let mut cluster = Cluster::start(1, 3);
    let sql = cluster.connect().await;
    create(&sql).await;
    load(&sql).await;
    let expected = answers(&sql).await;
    sql.run(ENABLE).await;
    assert_eq!(compress_all(&sql).await.len(), 12);
    assert_same(&answers(&sql).await, &expected);
    let nodes =
        sql.rows("SELECT node_name, total_chunks, number_compressed_chunks FROM hypertable_compression_stats('m')");
    let nodes = nodes.await;
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let total: u64 = nodes
        .iter()
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            assert_eq!(cells[1], cells[2], "{row}");
            cells[1].parse::<u64>().unwrap()
        })
        .sum();
    assert_eq!(total, 12);
    let views = sql.rows("SELECT hypertable_name, data_nodes FROM timescaledb_information.hypertables").await;
    assert_eq!(views, ["m|{dn1,dn2,dn3}"]);

    cluster.data[1].kill();
    assert_eq!(sql.one("SELECT count(*) FROM timescaledb_information.chunks").await, "12", "the catalog knows");
    cluster.data[1].run();
    cluster.data[1].wait_ready();
    assert_same(&answers(&sql).await, &expected);
    assert_eq!(compressed_count(&sql).await, 12);
    cluster.assert_no_panic();
}

#[tokio::test]
async fn writes_go_on_while_chunks_are_compressed() {
    let node = Node::start_with(&["--set", "data.memtable=1MiB"]);
    let sql = node.connect().await;
    create(&sql).await;
    load(&sql).await;
    sql.run(ENABLE).await;
    let writer = node.connect().await;
    let writing = tokio::spawn(async move {
        for row in 0..200 {
            let insert =
                format!("INSERT INTO m VALUES ('2024-05-0{}Z', 'device_{}', 'busy', 1, {row})", 1 + row % 3, row % 24);
            writer.run(&insert).await;
        }
    });
    for _ in 0..3 {
        compress_all(&sql).await;
        sql.rows("SELECT decompress_chunk(c, if_compressed => true) FROM show_chunks('m') c").await;
    }
    writing.await.unwrap();
    compress_all(&sql).await;
    assert_eq!(sql.one("SELECT count(*) FROM m WHERE site = 'busy'").await, "200");
    assert_eq!(sql.one("SELECT count(*) FROM m").await, (ROWS + 200).to_string());
    node.assert_no_panic();
}

#[tokio::test]
async fn what_was_done_already_is_a_notice_when_asked_for() {
    let node = Node::start();
    let (client, mut connection) = {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(node.sql_port()).user("meridian").dbname("meridian");
        config.connect(tokio_postgres::NoTls).await.unwrap()
    };
    let (sender, notices) = std::sync::mpsc::channel();
    let messages = tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                // The test has ended.
                let _ = sender.send(notice.message().to_owned());
            }
        }
    });
    let sql = node.connect().await;
    create(&sql).await;
    sql.run("INSERT INTO m VALUES ('2024-05-01Z', 'device_1', 'a', 1, 1)").await;
    sql.run(ENABLE).await;
    for _ in 0..2 {
        let answer = client.simple_query(COMPRESS_ALL).await.unwrap();
        assert_eq!(answer.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count(), 1);
    }
    drop(client);
    messages.await.unwrap();
    let notices: Vec<String> = notices.iter().collect();
    let name = sql.one("SELECT chunk_name FROM timescaledb_information.chunks").await;
    assert_eq!(notices, [format!("chunk \"{name}\" is already compressed")]);
}
