//! Streams that end when their statement is cancelled.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::heavy;
use super::texts::{Texts, texts_of};
use crate::context::GatewayContext;
use crate::error::SqlError;
use crate::outcome::RowStream;
use crate::sql::errors::canceled;

/// How long a client may leave rows that it was given before its statement's turn goes to another one.
const UNASKED_MAX: Duration = Duration::from_millis(200);

/// Waits for `work`, but no longer than until the statement is cancelled; the work is dropped then.
pub(crate) async fn cancellable<T, E: Into<SqlError>>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SqlError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(canceled()),
        result = work => result.map_err(Into::into),
    }
}

pub(crate) fn check(cancel: &CancellationToken) -> Result<(), SqlError> {
    if cancel.is_cancelled() { Err(canceled()) } else { Ok(()) }
}

/// Starts a plan. Dropping the stream ends it everywhere, cancelling ends it with 57014.
pub(crate) fn start(
    plan: Arc<dyn ExecutionPlan>,
    gateway: &Arc<GatewayContext>,
    cancel: &CancellationToken,
) -> Result<RowStream, SqlError> {
    let texts = texts_of(plan.as_ref());
    let rows = match texts {
        Texts::Long => in_turn(plan, Arc::clone(gateway)),
        Texts::None | Texts::Short => run(plan, gateway, texts)?,
    };
    Ok(with_cancel(rows, cancel.clone()))
}

fn run(plan: Arc<dyn ExecutionPlan>, gateway: &GatewayContext, texts: Texts) -> Result<RowStream, SqlError> {
    let tasks = gateway.tasks_for(texts);
    Ok(if heavy::is_heavy(plan.as_ref()) {
        heavy::run(plan, tasks, &gateway.heavy)
    } else {
        execute_stream(plan, tasks)?.map(|batch| batch.map_err(SqlError::from)).boxed()
    })
}

/// Runs a plan that holds long texts when its turn comes. The turn ends with the rows, or when the client does not ask for
/// more of them: one that takes its time holds up nobody.
fn in_turn(plan: Arc<dyn ExecutionPlan>, gateway: Arc<GatewayContext>) -> RowStream {
    let begin = async move {
        let permit = Arc::clone(&gateway.turns).acquire_owned().await.map_err(|_| canceled())?;
        let rows = run(plan, &gateway, Texts::Long)?;
        let turn = Arc::new(Turn { permit: Mutex::new(Some(permit)), steps: AtomicU64::new(0) });
        tokio::spawn(end_unless_asked(Arc::downgrade(&turn)));
        Ok::<_, SqlError>(stream::unfold((rows, turn), |(mut rows, turn)| async move {
            turn.steps.fetch_add(1, Ordering::Relaxed);
            let next = rows.next().await?;
            turn.steps.fetch_add(1, Ordering::Relaxed);
            Some((next, (rows, turn)))
        }))
    };
    stream::once(begin).try_flatten().boxed()
}

/// Of a statement that holds long texts.
struct Turn {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// Rows asked for and handed out: odd while they are waited for.
    steps: AtomicU64,
}

async fn end_unless_asked(turn: Weak<Turn>) {
    let mut seen = 1;
    loop {
        tokio::time::sleep(UNASKED_MAX).await;
        let Some(turn) = turn.upgrade() else { return };
        let steps = turn.steps.load(Ordering::Relaxed);
        if steps.is_multiple_of(2) && steps == seen {
            drop(turn.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
            return;
        }
        seen = steps;
    }
}

fn with_cancel(rows: RowStream, cancel: CancellationToken) -> RowStream {
    Box::pin(stream::unfold(Some((rows, cancel)), |state| async move {
        let (mut rows, cancel) = state?;
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => Some(Err(canceled())),
            next = rows.next() => next,
        };
        match next {
            Some(Ok(batch)) => Some((Ok(batch), Some((rows, cancel)))),
            // The first error ends it, and drops what still runs.
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    }))
}

/// Rows that are there already.
pub(crate) fn ready(batch: RecordBatch) -> RowStream {
    Box::pin(stream::once(async move { Ok(batch) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_stream_ends_with_57014() {
        let rows: RowStream = Box::pin(stream::pending());
        let cancel = CancellationToken::new();
        let mut rows = with_cancel(rows, cancel.clone());
        tokio::spawn(async move { cancel.cancel() });
        let error = rows.next().await.unwrap().unwrap_err();
        assert_eq!(error.sqlstate, "57014");
        assert!(rows.next().await.is_none());
    }
}
