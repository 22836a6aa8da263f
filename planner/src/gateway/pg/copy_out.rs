//! COPY TO STDOUT: one CopyData message per row, as clients that parse rows expect it.

use bytes::{BufMut, Bytes};
use meridian_pgtypes::copy::{CopyEncoder, CopyFormat, CopyOptions};

use super::backend::{self, begin_message, end_message};
use super::cancel::Running;
use super::connection::Connection;
use super::failure::Failure;
use super::rows::next_batch;
use super::wire::Wire;
use crate::outcome::{OutputColumn, RowStream};

/// Sends all rows; returns the tag.
pub async fn send(
    connection: &mut Connection<'_>,
    running: &Running,
    options: &CopyOptions,
    columns: &[OutputColumn],
    mut rows: RowStream,
) -> Result<String, Failure> {
    let Connection { wire, session, door, .. } = connection;
    backend::copy_out_response(wire.output(), options.format == CopyFormat::Binary, columns.len());
    let columns: Vec<_> = columns.iter().map(|column| (column.name.clone(), column.sql_type.clone())).collect();
    let mut encoder = CopyEncoder::new(options.clone(), &columns, session.format());
    let mut messages = Vec::new();
    let mut row_count = 0;
    while let Some(batch) = next_batch(&mut rows, wire, running).await? {
        row_count += batch.num_rows() as u64;
        encoder.encode(&batch, &mut messages);
        send_messages(wire, &mut messages).await?;
    }
    encoder.finish(&mut messages);
    send_messages(wire, &mut messages).await?;
    backend::copy_done(wire.output());
    door.counters.rows_sent.add(row_count);
    Ok(format!("COPY {row_count}"))
}

async fn send_messages(wire: &mut Wire, messages: &mut Vec<Bytes>) -> Result<(), Failure> {
    for payload in messages.drain(..) {
        let message = begin_message(wire.output(), b'd');
        wire.output().put_slice(&payload);
        end_message(wire.output(), message);
        wire.flush_if_large().await?;
    }
    Ok(())
}
