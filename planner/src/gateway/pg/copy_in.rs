//! COPY FROM STDIN. Three stages that run at the same time, joined by short queues:
//!
//! ```text
//! socket -> blocks -> | decoder, a task of its own | -> batches -> session
//! ```
//!
//! The first and the last share the connection's task. After an error the rest of the client's data is skipped as any
//! message out of place is: by [`Wire::next_frame`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::{Bytes, BytesMut};
use meridian_pgtypes::copy::{CopyDecoder, CopyError, CopyFormat};
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use super::backend;
use super::budget::{Budget, Held};
use super::cancel::Running;
use super::connection::Connection;
use super::failure::{Ended, Failure};
use super::wire::{COPY_READ_BYTES, CopyStep, Wire};
use crate::error::SqlError;
use crate::outcome::CopyIn;
use crate::session::Session;

/// 350,000 CSV rows of 200 bytes a second are 270 blocks.
const BLOCK_BYTES_MAX: usize = 256 << 10;
/// Blocks that wait for the decoder: 1 MiB per COPY.
const BLOCKS_MAX: usize = 4;
/// Batches that wait for the session, beside the one it writes: one ready is enough to keep it busy.
const BATCHES_MAX: usize = 2;
/// Rows of a batch, the last one and those of long rows excepted. Each batch is a write per chunk that it touches.
const BATCH_ROWS_MIN: usize = 8192;
/// What the decoder of a COPY holds without asking: a batch of long rows. Beyond it lie single rows, which are bounded
/// by the budget of messages.
const DECODER_SHARE_BYTES: usize = 8 << 20;

/// Receives a COPY to its end; returns its tag.
pub async fn receive(connection: &mut Connection<'_>, running: &Running, copy: CopyIn) -> Result<String, Failure> {
    let Connection { wire, session, door, .. } = connection;
    let is_binary = copy.options.format == CopyFormat::Binary;
    backend::copy_in_response(wire.output(), is_binary, copy.columns.len());
    let transferred = match wire.flush().await {
        Ok(()) => transfer(wire, session, running, copy, Arc::clone(&door.budget)).await,
        Err(error) => Err(error.into()),
    };
    if let Err(failure) = transferred {
        session.copy_abort(&reason(&failure)).await;
        return Err(failure);
    }
    let finished = running.watch(wire, session.copy_finish()).await;
    let rows = finished.map_err(|error| running.explain(error))?;
    door.counters.rows_copied.add(rows);
    Ok(format!("COPY {rows}"))
}

fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Error(error) | Failure::Ended(Ended::Fatal(error)) => error.message.clone(),
        Failure::Ended(Ended::Closed) => "the client went away".to_owned(),
    }
}

async fn transfer(
    wire: &mut Wire,
    session: &mut Session,
    running: &Running,
    copy: CopyIn,
    budget: Arc<Budget>,
) -> Result<(), Failure> {
    let (block_sender, blocks) = mpsc::channel(BLOCKS_MAX);
    let (batch_sender, batches) = mpsc::channel(BATCHES_MAX);
    let decoder = CopyDecoder::new(copy.options, &copy.columns, session.format());
    let decoder = decoder.with_modifiers(&copy.modifiers);
    tokio::spawn(decode(decoder, copy.table, budget, blocks, batch_sender));

    let mut stored = std::pin::pin!(store(session, batches));
    tokio::select! {
        biased;
        () = running.stopped() => return Err(running.explain(SqlError::new("57014", "canceling statement"))),
        // Before the client's end only an error ends it.
        error = &mut stored => return Err(ended_early(error, running)),
        fed = feed(wire, block_sender) => fed?,
    }
    running.guard(wire, stored).await
}

fn ended_early(stored: Result<(), SqlError>, running: &Running) -> Failure {
    running.explain(stored.err().unwrap_or_else(decoder_lost))
}

fn decoder_lost() -> SqlError {
    SqlError::new("XX000", "internal error: the COPY decoder ended before its data")
}

/// Passes the client's data on until CopyDone.
async fn feed(wire: &mut Wire, blocks: Sender<Bytes>) -> Result<(), Failure> {
    let mut block = BytesMut::with_capacity(BLOCK_BYTES_MAX);
    loop {
        match wire.take_copy(&mut block, BLOCK_BYTES_MAX)? {
            CopyStep::Full => send(&blocks, next_block(&mut block)).await,
            CopyStep::Empty => {
                // A decoder that has nothing to do gets what there is; a busy one gets fuller blocks.
                if !block.is_empty() && blocks.capacity() > 0 {
                    try_send(&blocks, next_block(&mut block)).await;
                }
                wire.fill_or_close(COPY_READ_BYTES).await?;
            }
            CopyStep::Done => {
                if !block.is_empty() {
                    send(&blocks, block.freeze()).await;
                }
                return Ok(());
            }
            CopyStep::Failed(reason) => {
                return Err(SqlError::new("57014", format!("COPY from stdin failed: {reason}")).into());
            }
        }
    }
}

fn next_block(block: &mut BytesMut) -> Bytes {
    std::mem::replace(block, BytesMut::with_capacity(BLOCK_BYTES_MAX)).freeze()
}

async fn try_send(blocks: &Sender<Bytes>, block: Bytes) {
    match blocks.try_send(block) {
        Ok(()) => {}
        Err(TrySendError::Full(block) | TrySendError::Closed(block)) => send(blocks, block).await,
    }
}

/// A decoder that is gone has left its error in the other queue, which ends this future by dropping it.
async fn send(blocks: &Sender<Bytes>, block: Bytes) {
    if blocks.send(block).await.is_err() {
        std::future::pending::<()>().await;
    }
}

enum Decoded {
    /// With what it takes of the gateway's memory.
    Batch(RecordBatch, Held),
    End,
}

/// `table`: its name, for the errors of its rows.
async fn decode(
    mut decoder: CopyDecoder,
    table: String,
    budget: Arc<Budget>,
    mut blocks: Receiver<Bytes>,
    batches: Sender<Result<Decoded, SqlError>>,
) {
    let mut held = Held::default();
    while let Some(block) = blocks.recv().await {
        let pushed = match decoder.push(&block) {
            Ok(()) => budget.cover(&mut held, decoder.held_bytes().saturating_sub(DECODER_SHARE_BYTES)).await,
            Err(error) => Err(refused(error, &table)),
        };
        if let Err(error) = pushed {
            // Nobody listens once the statement ended.
            let _ = batches.send(Err(error)).await;
            return;
        }
        while let Some(batch) = decoder.take_batch(BATCH_ROWS_MIN) {
            if batches.send(Ok(Decoded::Batch(batch, std::mem::take(&mut held)))).await.is_err() {
                return;
            }
        }
    }
    loop {
        let last = decoder.finish().map(|batch| match batch {
            Some(batch) => Decoded::Batch(batch, std::mem::take(&mut held)),
            None => Decoded::End,
        });
        let last = last.map_err(|error| refused(error, &table));
        let is_end = !matches!(last, Ok(Decoded::Batch(..)));
        if batches.send(last).await.is_err() || is_end {
            return;
        }
    }
}

/// Writes batches until the decoder's end.
async fn store(session: &mut Session, mut batches: Receiver<Result<Decoded, SqlError>>) -> Result<(), SqlError> {
    while let Some(decoded) = batches.recv().await {
        match decoded? {
            Decoded::Batch(batch, _held) => session.copy_batch(batch).await?,
            Decoded::End => return Ok(()),
        }
    }
    Err(decoder_lost())
}

fn refused(error: CopyError, table: &str) -> SqlError {
    let context = error.context(table);
    let mut refused = SqlError::new(error.sqlstate, error.message);
    refused.detail = error.detail;
    refused.hint = error.hint;
    refused.context = context;
    refused
}

#[cfg(test)]
mod tests {
    use meridian_pgtypes::Format;
    use meridian_pgtypes::copy::CopyOptions;
    use meridian_proto::SqlType;

    use super::*;

    async fn decoded(data: &'static [u8], slice_bytes: usize) -> Result<usize, SqlError> {
        let columns = [("a".to_owned(), SqlType::Int4), ("b".to_owned(), SqlType::Text)];
        let decoder = CopyDecoder::new(CopyOptions::of_format(CopyFormat::Csv), &columns, Format::default());
        let (block_sender, blocks) = mpsc::channel(BLOCKS_MAX);
        let (batch_sender, mut batches) = mpsc::channel(BATCHES_MAX);
        let budget = Arc::new(Budget::new(0));
        tokio::spawn(decode(decoder, "t".to_owned(), budget, blocks, batch_sender));
        tokio::spawn(async move {
            for slice in data.chunks(slice_bytes) {
                send(&block_sender, Bytes::from_static(slice)).await;
            }
        });
        let mut rows = 0;
        loop {
            match batches.recv().await.expect("the decoder tells its end")? {
                Decoded::Batch(batch, _) => rows += batch.num_rows(),
                Decoded::End => return Ok(rows),
            }
        }
    }

    #[tokio::test]
    async fn blocks_become_rows_wherever_they_are_cut() {
        for slice_bytes in 1..12 {
            assert_eq!(decoded(b"1,x\n2,\"y\nz\"\n3,w", slice_bytes).await, Ok(3));
        }
        assert_eq!(decoded(b"", 1).await, Ok(0));
    }

    #[tokio::test]
    async fn a_bad_row_is_told_with_its_place() {
        let error = decoded(b"1,x\nq,y\n", 3).await.unwrap_err();
        assert_eq!(error.sqlstate, "22P02");
        assert_eq!(error.context.as_deref(), Some("COPY t, line 2, column a: \"q\""));
    }
}
