//! Functions and views about chunks: their rows, their effects, their errors.

use meridian_proto::ColumnId;
use meridian_proto::catalog::{Hypertable, Table, TableKind};
use meridian_proto::compression::{Compression, OrderBy};

use super::*;

const FIRST: &str = "_timescaledb_internal._dist_hyper_1_100_chunk";

/// With compression enabled on `metrics`, by `host`.
fn compressing() -> Bench {
    let mut bench = Bench::new();
    let table = Arc::clone(bench.catalog.view.table_by_name("public", "metrics").unwrap());
    let compression = Compression { segment_by: vec![ColumnId(2)], order_by: vec![OrderBy::newest_first(ColumnId(1))] };
    let hypertable = Hypertable { compression: Some(compression), ..table.hypertable().unwrap().clone() };
    let table = Table { kind: TableKind::Hypertable(hypertable), ..Table::clone(&table) };
    let altered = BTreeMap::from([(table.id, Arc::new(table))]);
    bench.catalog.overlay = Arc::new(Overlay { altered, ..Overlay::default() });
    bench
}

fn notices(bench: &Bench) -> Vec<String> {
    bench.environment.notices.lock().unwrap().drain(..).map(|notice| notice.message).collect()
}

#[track_caller]
fn refused(bench: &Bench, sql: &str, sqlstate: &str, message: &str) {
    let error = bench.error(sql);
    assert_eq!((error.sqlstate.as_str(), error.message.as_str()), (sqlstate, message), "{sql}");
}

#[test]
fn chunks_are_shown_within_bounds_of_time() {
    let bench = Bench::new();
    let all = bench.texts("SELECT * FROM show_chunks('metrics')");
    assert_eq!((all.len(), all[0].as_str()), (12, FIRST));
    let count = |arguments: &str| bench.texts(&format!("SELECT count(*) FROM show_chunks({arguments})")).remove(0);
    for all in
        ["'public.metrics'", "'\"metrics\"'", "'METRICS'", "'metrics'::regclass", "20000", "relation => 'metrics'"]
    {
        assert_eq!(count(all), "12", "{all}");
    }
    assert_eq!(count("'metrics', older_than => '1970-01-02'::timestamptz"), "4");
    assert_eq!(count("'metrics', older_than => '1970-01-02 00:00:00+00'"), "4");
    assert_eq!(count("'metrics', older_than => date '1970-01-02'"), "4");
    assert_eq!(count("'metrics', older_than => timestamp '1970-01-01 23:59:59'"), "0");
    assert_eq!(count("'metrics', newer_than => '1970-01-02'"), "8");
    assert_eq!(count("'metrics', '1970-01-03', '1970-01-02'"), "4");
    assert_eq!(count("'metrics', older_than => INTERVAL '1 day'"), "12");
    assert_eq!(count("'metrics', older_than => now() - INTERVAL '1 day'"), "12");
    assert_eq!(count("'metrics', newer_than => INTERVAL '1 month'"), "0");
    assert_eq!(bench.texts("SELECT show_chunks('metrics', older_than => '1970-01-02') LIMIT 1"), [FIRST]);
    assert_eq!(bench.texts("SELECT c FROM show_chunks('metrics') AS c WHERE c::text LIKE '%_100_%'"), [FIRST]);
}

#[test]
fn what_has_no_chunks_to_show_is_refused_as_timescaledb_does() {
    let bench = Bench::new();
    let check = |sql: &str, sqlstate: &str, message: &str| refused(&bench, sql, sqlstate, message);
    check("SELECT show_chunks('nowhere')", "42P01", "relation \"nowhere\" does not exist");
    check("SELECT show_chunks('a b')", "42602", "invalid name syntax: \"a b\"");
    check("SELECT show_chunks(NULL)", "42P01", "invalid hypertable or continuous aggregate");
    check("SELECT show_chunks('hosts')", "TS001", "\"hosts\" is not a hypertable or a continuous aggregate");
    check("SELECT show_chunks(true)", "42883", "function show_chunks(boolean) does not exist");
    check("SELECT show_chunks($1)", "42P02", "there is no parameter $1");
    check("SELECT show_chunks('metrics', '1970-01-02', '1970-01-02')", "22023", "invalid time range");
    check("SELECT show_chunks('metrics', 5)", "22023", "invalid time argument type \"integer\"");
    check(
        "SELECT show_chunks('metrics', 'soon')",
        "22007",
        "invalid input syntax for type timestamp with time zone: \"soon\"",
    );
    let created = "created_before and created_after of show_chunks are not supported";
    check("SELECT show_chunks('metrics', created_before => now())", "0A000", created);
}

#[test]
fn chunks_are_compressed_and_decompressed_once() {
    let bench = compressing();
    assert_eq!(bench.texts(&format!("SELECT compress_chunk('{FIRST}')")), [FIRST]);
    refused(
        &bench,
        &format!("SELECT compress_chunk('{FIRST}')"),
        "42710",
        "chunk \"_dist_hyper_1_100_chunk\" is already compressed",
    );
    let all = "SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('metrics') c";
    assert_eq!(bench.texts(all), bench.texts("SELECT show_chunks('metrics')"));
    assert_eq!(notices(&bench), ["chunk \"_dist_hyper_1_100_chunk\" is already compressed"]);
    assert_eq!(bench.source.compressed.lock().unwrap().len(), 12);

    let one = format!("SELECT decompress_chunk('{FIRST}')");
    assert_eq!(bench.texts(&one), [FIRST]);
    refused(&bench, &one, "55000", "chunk \"_dist_hyper_1_100_chunk\" is not compressed");
    assert_eq!(bench.texts(&format!("SELECT decompress_chunk('{FIRST}', true)")), ["NULL"]);
    assert_eq!(notices(&bench), ["chunk \"_dist_hyper_1_100_chunk\" is not compressed"]);
    assert_eq!(bench.texts("SELECT count(decompress_chunk(c, true)) FROM show_chunks('metrics') c"), ["11"]);
    assert_eq!(bench.texts("SELECT count(compress_chunk(show_chunks('metrics')))"), ["12"]);
    assert_eq!(bench.texts("SELECT compress_chunk(NULL)"), ["NULL"]);
}

#[test]
fn recompression_is_called_and_says_when_there_is_nothing_to_do() {
    let bench = compressing();
    let call = format!("CALL recompress_chunk('{FIRST}')");
    refused(&bench, &call, "P0001", "call compress_chunk instead of recompress_chunk");
    bench.texts(&format!("SELECT compress_chunk('{FIRST}')"));
    refused(&bench, &call, "P0001", "nothing to recompress in chunk \"_dist_hyper_1_100_chunk\"");
    bench.texts(&format!("CALL recompress_chunk('{FIRST}', if_not_compressed => true)"));
    assert_eq!(notices(&bench), ["nothing to recompress in chunk \"_dist_hyper_1_100_chunk\""]);
}

#[test]
fn only_chunks_of_tables_with_compression_are_compressed() {
    let bench = Bench::new();
    let check = |sql: &str, sqlstate: &str, message: &str| refused(&bench, sql, sqlstate, message);
    check(&format!("SELECT compress_chunk('{FIRST}')"), "0A000", "compression not enabled on \"metrics\"");
    check("SELECT compress_chunk('metrics')", "42704", "chunk not found");
    let nowhere = "_timescaledb_internal._dist_hyper_1_999_chunk";
    check(&format!("SELECT compress_chunk('{nowhere}')"), "42P01", &format!("relation \"{nowhere}\" does not exist"));
    let zeros = "_timescaledb_internal._dist_hyper_1_0100_chunk";
    check(&format!("SELECT compress_chunk('{zeros}')"), "42P01", &format!("relation \"{zeros}\" does not exist"));
    check("SELECT compress_chunk(1.5)", "42883", "function compress_chunk(numeric) does not exist");
    check("SELECT compress_chunk(true)", "42883", "function compress_chunk(boolean) does not exist");
    check("SELECT recompress_chunk('c')", "42809", "recompress_chunk(unknown) is a procedure");
}

#[test]
fn statistics_show_what_compression_saved() {
    let bench = compressing();
    let stats = "SELECT chunk_name, compression_status, before_compression_total_bytes, after_compression_total_bytes \
                 FROM chunk_compression_stats('metrics') ORDER BY chunk_name LIMIT 1";
    assert_eq!(bench.texts(stats), ["_dist_hyper_1_100_chunk|Uncompressed|NULL|NULL"]);
    bench.texts(&format!("SELECT compress_chunk('{FIRST}')"));
    assert_eq!(bench.texts(stats), ["_dist_hyper_1_100_chunk|Compressed|1000|250"]);
    assert_eq!(
        bench.texts("SELECT * FROM hypertable_compression_stats('metrics') ORDER BY node_name"),
        ["6|1|1000|0|0|1000|250|0|0|250|dn2", "6|0|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|dn3"]
    );
    assert_eq!(bench.texts("SELECT hypertable_size('metrics')"), ["11250"]);
    assert_eq!(bench.texts("SELECT hypertable_size('hosts')"), ["NULL"]);
    assert_eq!(bench.texts("SELECT approximate_row_count('metrics')"), ["480"]);
    assert_eq!(
        bench.texts("SELECT total_bytes, node_name FROM hypertable_detailed_size('metrics') ORDER BY node_name"),
        ["5250|dn2", "6000|dn3", "0|NULL"]
    );
    assert_eq!(bench.texts("SELECT sum(total_bytes), count(*) FROM chunks_detailed_size('metrics')"), ["11250|12"]);
    assert_eq!(bench.texts("SELECT count(*) FROM chunks_detailed_size('hosts')"), ["0"]);
    let off = Bench::new();
    assert_eq!(off.texts("SELECT count(*) FROM chunk_compression_stats('metrics')"), ["0"]);
    assert_eq!(off.texts("SELECT count(*) FROM hypertable_compression_stats('metrics')"), ["0"]);
}

#[test]
fn views_show_hypertables_chunks_and_settings() {
    let bench = compressing();
    bench.texts(&format!("SELECT compress_chunk('{FIRST}')"));
    let hypertables = "SELECT hypertable_schema, hypertable_name, num_dimensions, num_chunks, compression_enabled, \
                       is_distributed, replication_factor FROM timescaledb_information.hypertables";
    assert_eq!(bench.texts(hypertables), ["public|metrics|2|12|t|t|1"]);
    let chunks = "SELECT chunk_schema || '.' || chunk_name, primary_dimension, primary_dimension_type, range_start, \
                  range_end, range_start_integer, data_nodes FROM timescaledb_information.chunks WHERE is_compressed";
    assert_eq!(
        bench.texts(chunks),
        [format!("{FIRST}|time|timestamp with time zone|1970-01-01 00:00:00+00|1970-01-02 00:00:00+00|NULL|{{dn2}}")]
    );
    assert_eq!(bench.texts("SELECT count(*) FROM timescaledb_information.chunks WHERE NOT is_compressed"), ["11"]);
    let settings = "SELECT attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst \
                    FROM timescaledb_information.compression_settings";
    assert_eq!(bench.texts(settings), ["host|1|NULL|NULL|NULL", "time|NULL|1|f|t"]);
    let dimensions = "SELECT dimension_number, column_name, column_type, dimension_type, time_interval, num_partitions \
                      FROM timescaledb_information.dimensions ORDER BY 1";
    assert_eq!(
        bench.texts(dimensions),
        ["1|time|timestamp with time zone|Time|1 day|NULL", "2|host|text|Space|NULL|4"]
    );
    assert_eq!(bench.texts("SELECT count(*) FROM timescaledb_information.data_nodes"), ["2"]);
    let error = bench.error("SELECT * FROM timescaledb_information.nothing");
    assert_eq!(error.message, "relation \"timescaledb_information.nothing\" does not exist");
}
