//! Compresses the loaded table by TimescaleDB's names.

use std::time::Instant;

use tokio_postgres::Client;

use crate::ingest::Error;
use crate::report::Figure;

const SETTINGS: &str = "ALTER TABLE cpu SET (timescaledb.compress, timescaledb.compress_segmentby = 'hostname', \
     timescaledb.compress_orderby = 'time')";

/// Compresses every chunk; the time it took and what that makes of the table.
pub async fn run(client: &Client) -> Result<Vec<Figure>, Error> {
    let rows: i64 = client.query_one("SELECT count(*) FROM cpu", &[]).await?.get(0);
    client.batch_execute(SETTINGS).await?;
    let started = Instant::now();
    let chunks = client.simple_query("SELECT compress_chunk(c) FROM show_chunks('cpu') c").await?;
    let seconds = started.elapsed().as_secs_f64();
    if chunks.is_empty() {
        return Err("there is no chunk to compress".into());
    }
    let sizes = "SELECT sum(after_compression_total_bytes)::bigint FROM chunk_compression_stats('cpu')";
    let bytes: i64 = client.query_one(sizes, &[]).await?.get(0);
    Ok(vec![
        Figure::new("compress time", seconds, "s"),
        Figure::new("compress rate", rows as f64 / seconds, "rows/s"),
        Figure::new("compressed", bytes as f64 / rows as f64, "bytes/row"),
    ])
}
