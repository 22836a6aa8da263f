//! Five telling queries: each with its rows, its time, and one line on what ran where.

use std::time::Instant;

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::sql_error;
use crate::cli::table::Table;
use crate::failure::Failure;

pub struct Query {
    pub title: &'static str,
    pub sql: &'static str,
}

pub const QUERIES: &[Query] = &[
    Query {
        title: "Departures per hour and airport on Independence Day, with their mean delay in minutes",
        sql: "SELECT time_bucket('1 hour', time_hour) AS since, origin, count(*) AS flights,
       round(avg(dep_delay)::numeric, 1) AS mean_delay
FROM flights
WHERE time_hour >= '2013-07-04 12:00Z' AND time_hour < '2013-07-04 15:00Z'
GROUP BY since, origin
ORDER BY since, origin",
    },
    Query {
        title: "Mean arrival delay of each airline, by its name",
        sql: "SELECT airlines.name, count(*) AS flights, round(avg(arr_delay)::numeric, 1) AS mean_delay
FROM flights JOIN airlines ON airlines.carrier = flights.carrier
GROUP BY airlines.name
ORDER BY mean_delay DESC",
    },
    Query {
        title: "The ten worst hours of the year",
        sql: "SELECT time_hour, origin, count(*) AS flights, round(avg(dep_delay)::numeric, 1) AS mean_delay
FROM flights
GROUP BY time_hour, origin
HAVING count(dep_delay) >= 10
ORDER BY mean_delay DESC
LIMIT 10",
    },
    Query {
        title: "The latest weather at each airport",
        sql: "SELECT DISTINCT ON (origin) origin, time_hour, temp, humid, wind_speed, visib
FROM weather
ORDER BY origin, time_hour DESC",
    },
    Query {
        title: "Flights per month",
        sql: "SELECT date_trunc('month', time_hour) AS since, count(*) AS flights
FROM flights
GROUP BY since
ORDER BY since",
    },
];

/// Runs a query and prints what it answered.
pub async fn run(client: &Client, query: &Query) -> Result<(), Failure> {
    let failed = |error: tokio_postgres::Error| Failure::failed(format!("{}: {}", query.title, sql_error(&error)));
    for line in query.sql.lines() {
        println!("    {line}");
    }
    let started = Instant::now();
    let messages = client.simple_query(query.sql).await.map_err(failed)?;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    let (table, rows) = as_table(&messages);
    println!();
    for line in table.to_string().lines() {
        println!("  {line}");
    }
    let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) {}", query.sql);
    let explained = client.simple_query(&explain).await.map_err(failed)?;
    let document: Vec<String> = texts(&explained).into_iter().filter_map(|row| row.into_iter().next()).collect();
    println!("\n  {rows} rows in {milliseconds:.1} ms. {}", where_it_ran(&document.join("\n")));
    Ok(())
}

fn as_table(messages: &[SimpleQueryMessage]) -> (Table, usize) {
    let header = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => Some(columns.iter().map(|c| c.name().to_owned()).collect()),
        _ => None,
    });
    let mut table = Table::new::<String>(&header.unwrap_or_else(Vec::new));
    let rows = texts(messages);
    let count = rows.len();
    rows.into_iter().for_each(|row| table.push(row));
    (table, count)
}

/// The rows as texts; NULL is empty, as in psql.
fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<String>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect()).collect()
}

/// One sentence from an EXPLAIN ANALYZE: per table what ran on the data nodes, and how little of it travelled.
fn where_it_ran(document: &str) -> String {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let mut scans = Vec::new();
    collect_scans(&document[0]["Plan"], &mut scans);
    let parts: Vec<String> = scans.into_iter().map(|(table, scan)| sentence(table, scan)).collect();
    parts.join("; ")
}

fn collect_scans<'a>(plan: &'a Value, scans: &mut Vec<(&'a str, &'a Value)>) {
    if let Some(table) = plan["Node Type"].as_str().and_then(|title| title.strip_prefix("Remote Scan on ")) {
        scans.push((table, plan));
        return;
    }
    plan["Plans"].as_array().into_iter().flatten().for_each(|child| collect_scans(child, scans));
}

fn sentence(table: &str, scan: &Value) -> String {
    let nodes = scan["Data Node"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = nodes.iter().filter_map(|node| node["Node"].as_str()).collect();
    let sum = |field: &str| nodes.iter().filter_map(|node| node[field].as_u64()).sum::<u64>();
    let (scanned, pruned) = (&scan["Chunks"]["scanned"], &scan["Chunks"]["pruned"]);
    let ran = match scan["Pushed"].as_str() {
        Some(pushed) => format!("ran {pushed} there"),
        None => "read it there".to_owned(),
    };
    format!(
        "{table}: {} {ran} ({scanned} chunks scanned, {pruned} pruned); of {} rows {} travelled, in {:.1} KiB",
        names.join(", "),
        sum("rows scanned"),
        sum("rows returned"),
        sum("bytes") as f64 / 1024.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_becomes_one_sentence_per_table() {
        let plan = r#"[{"Plan": {"Node Type": "Sort", "Plans": [{"Node Type": "Hash Join", "Plans": [
            {"Node Type": "Remote Scan on flights", "Pushed": "filter, partial aggregate",
             "Chunks": {"scanned": 3, "pruned": 9}, "Data Node": [
                {"Node": "dn1", "rows scanned": 100, "rows returned": 2, "bytes": 1024},
                {"Node": "dn2", "rows scanned": 50, "rows returned": 1, "bytes": 512}]},
            {"Node Type": "Remote Scan on airlines", "Chunks": {"scanned": 1, "pruned": 0}, "Data Node": [
                {"Node": "dn3", "rows scanned": 16, "rows returned": 16, "bytes": 2048}]}]}]}}]"#;
        assert_eq!(
            where_it_ran(plan),
            "flights: dn1, dn2 ran filter, partial aggregate there (3 chunks scanned, 9 pruned); \
             of 150 rows 3 travelled, in 1.5 KiB; \
             airlines: dn3 read it there (1 chunks scanned, 0 pruned); of 16 rows 16 travelled, in 2.0 KiB"
        );
        assert_eq!(where_it_ran("no JSON"), "");
    }
}
