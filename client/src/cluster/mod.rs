//! What a node needs of the others. Modules in order: channels, meta's client, the catalog view and its watch, the data
//! path's calls, those within the process, seals, the upkeep of whole chunks, the coordinator's core and its runner.

pub mod channel;
pub mod coordinator;
pub mod data;
pub mod local;
pub mod meta;
pub mod scan;
pub mod seal;
pub mod split;
pub mod transaction;
pub mod upkeep;
pub mod view;
pub mod watch;

pub use channel::{Channels, LocalListener};
pub use data::SendError;
pub use local::{Fragment, LocalDataNode, LocalMember, PlanObject, ScanPart, ScanParts};
pub use meta::MetaClient;
pub use scan::ScanStream;
pub use seal::Sealed;
pub use transaction::{CommitError, Transaction, Transactions};
pub use upkeep::{ChunkSizes, Maintained, Maintenance};
pub use view::CatalogView;
pub use watch::CatalogWatch;

/// The cluster as one node sees it: channels to every node, the meta group, and the newest catalog view.
#[derive(Clone)]
pub struct Cluster {
    pub channels: Channels,
    pub meta: MetaClient,
    pub catalog: CatalogWatch,
}

impl Cluster {
    /// Starts to follow the catalog through the access nodes at `addresses`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(channels: Channels, addresses: Vec<String>) -> Self {
        let meta = MetaClient::new(channels.clone(), addresses);
        let catalog = CatalogWatch::start(meta.clone());
        Self { channels, meta, catalog }
    }
}
