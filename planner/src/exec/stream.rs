//! Streams that end when their statement is cancelled.

use std::future::Future;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::heavy;
use super::texts::{Texts, texts_of};
use crate::context::GatewayContext;
use crate::error::SqlError;
use crate::outcome::RowStream;
use crate::sql::errors::canceled;

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

/// Runs a plan that holds long texts when its turn comes. The turn ends with the first rows: what had to be held has been
/// read then, and a client that takes its time holds up nobody.
fn in_turn(plan: Arc<dyn ExecutionPlan>, gateway: Arc<GatewayContext>) -> RowStream {
    let begin = async move {
        let turn = gateway.turns.acquire().await.map_err(|_| canceled())?;
        let mut rows = run(plan, &gateway, Texts::Long)?;
        let first = rows.next().await;
        drop(turn);
        Ok::<_, SqlError>(stream::iter(first).chain(rows))
    };
    stream::once(begin).try_flatten().boxed()
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
