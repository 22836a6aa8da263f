//! What the parts of the process count, collected when somebody asks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

type Reading = Pin<Box<dyn Future<Output = Figures> + Send>>;
type Read = Box<dyn Fn(Figures) -> Reading + Send + Sync>;

/// Parts that can be asked for figures, one per role of the process; they come up one after the other.
#[derive(Clone, Default)]
pub struct Sources {
    access: Arc<OnceLock<Read>>,
    data: Arc<OnceLock<Read>>,
}

/// Everything `/metrics` shows, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub connections_open: u64,
    pub connections_total: u64,
    pub statements_total: u64,
    pub errors_total: u64,
    pub rows_sent_total: u64,
    pub rows_received_total: u64,
    pub bytes_sent_total: u64,
    pub bytes_received_total: u64,
    pub plan_cache_hits_total: u64,
    pub plan_cache_misses_total: u64,
    pub plan_cache_plans: u64,
    pub plan_cache_bytes: u64,
    pub catalog_version: u64,
    pub raft_term: u64,
    pub raft_applied: u64,
    pub raft_is_leader: bool,
    pub raft_is_short_of_space: bool,
    pub shards: Vec<ShardFigures>,
}

#[derive(Clone, Debug, Default)]
pub struct ShardFigures {
    pub shard: u32,
    pub chunks: u64,
    pub segments: u64,
    pub rows: u64,
    pub memtable_bytes: u64,
    pub segment_bytes: u64,
    pub wal_bytes: u64,
    pub footer_bytes: u64,
    pub page_cache_bytes: u64,
    pub page_cache_hits: u64,
    pub page_cache_misses: u64,
    pub leaf_cache_bytes: u64,
    pub scan_bytes: u64,
    pub page_read_ahead: u64,
}

impl Sources {
    /// `read` adds the access node's figures to those it is given.
    pub fn set_access<F>(&self, read: impl Fn(Figures) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Figures> + Send + 'static,
    {
        // A role starts once; a second source would only repeat the first.
        let _ = self.access.set(Box::new(move |figures| Box::pin(read(figures))));
    }

    /// `read` adds the data node's figures to those it is given.
    pub fn set_data<F>(&self, read: impl Fn(Figures) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Figures> + Send + 'static,
    {
        let _ = self.data.set(Box::new(move |figures| Box::pin(read(figures))));
    }

    pub async fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for source in [&self.access, &self.data] {
            if let Some(read) = source.get() {
                figures = read(figures).await;
            }
        }
        figures
    }
}
