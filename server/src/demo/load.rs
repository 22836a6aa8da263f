//! Creates the tables and loads them through COPY, as any client would.

use std::io::{IsTerminal, Read};
use std::time::Instant;

use bytes::Bytes;
use futures::SinkExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_postgres::Client;

use super::data::{DATASETS, Dataset};
use super::sql_error;
use crate::failure::Failure;

/// Of one CopyData message.
const PIECE_BYTES: usize = 64 << 10;

pub async fn load(client: &Client) -> Result<(), Failure> {
    for dataset in DATASETS {
        for statement in dataset.statements {
            client.simple_query(statement).await.map_err(|error| {
                Failure::failed(format!("could not create {}: {}", dataset.table, sql_error(&error)))
            })?;
        }
    }
    println!("Loading nycflights13 (all flights from New York City in 2013) through COPY:");
    for dataset in DATASETS {
        let started = Instant::now();
        let rows = copy(client, dataset)
            .await
            .map_err(|reason| Failure::failed(format!("could not load {}: {reason}", dataset.table)))?;
        let seconds = started.elapsed().as_secs_f64();
        println!("  {:<9} {rows:>7} rows in {seconds:.2} s", dataset.table);
        if rows != dataset.rows {
            return Err(Failure::failed(format!("{} should have {} rows", dataset.table, dataset.rows)));
        }
    }
    Ok(())
}

/// One COPY; answers the rows that the server counted.
async fn copy(client: &Client, dataset: &Dataset) -> Result<u64, String> {
    let statement = format!("COPY {} FROM STDIN WITH (FORMAT csv, HEADER true, NULL 'NA')", dataset.table);
    let sink = client.copy_in::<_, Bytes>(&statement).await.map_err(|error| sql_error(&error))?;
    let mut sink = std::pin::pin!(sink);
    let bar = progress_bar(dataset);
    let mut reader = dataset.reader().map_err(|error| error.to_string())?;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(|error| error.to_string())?;
        if piece.is_empty() {
            break;
        }
        bar.inc(piece.len() as u64);
        sink.send(Bytes::from(piece)).await.map_err(|error| sql_error(&error))?;
    }
    let rows = sink.finish().await.map_err(|error| sql_error(&error));
    bar.finish_and_clear();
    rows
}

/// A bar on a terminal; elsewhere nothing, so that logs stay readable.
fn progress_bar(dataset: &Dataset) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(dataset.bytes), target);
    let style = ProgressStyle::with_template("  {msg:<9} [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(dataset.table);
    bar
}
