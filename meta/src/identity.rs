//! Who a folder belongs to: `meta/identity`, written once and then only to count starts.

use std::io::Read;
use std::path::{Path, PathBuf};

use meridian_proto::start::{PastStart, Start};
use meridian_proto::{ClusterId, Incarnation, NodeId, StartMark, wire};
use prost::Message;

use crate::error::MetaError;
use crate::log::{LogError, read_whole, write_whole};

const IDENTITY_KIND: u8 = 1;
/// Format of the whole folder. A newer one is refused by name.
const FORMAT_VERSION: u32 = 1;
/// Starts that are remembered while the cluster cannot hear of any. Of more, the first and the last ones: the cluster
/// knows of that first one, or of one whose answer was lost.
const STARTS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Starts of this node so far, the present one included.
    pub incarnation: Incarnation,
    /// Marks of the last starts, from the last one that the cluster is known to have heard of to the present one.
    pub starts: Vec<PastStart>,
    /// What the folder's log must hold by now.
    pub stage: Stage,
}

/// How far a new member has come. A folder that is behind its stage has lost its log, and with it perhaps a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The cluster is being made here: this member alone begins the group, and puts into the catalog how many copies of
    /// each chunk there are to be unless a hypertable says.
    Founding { replication_factor: u16 },
    /// Let in; the leader may not have sent anything yet.
    Joining,
    /// There is a log.
    Settled,
}

#[derive(Clone, PartialEq, Message)]
struct IdentityMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(uint64, tag = "3")]
    node: u64,
    #[prost(uint64, tag = "4")]
    incarnation: u64,
    #[prost(enumeration = "StageNumber", tag = "5")]
    stage: i32,
    /// While founding.
    #[prost(uint32, tag = "6")]
    replication_factor: u32,
    #[prost(message, repeated, tag = "7")]
    starts: Vec<wire::PastStart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum StageNumber {
    Unspecified = 0,
    Founding = 1,
    Joining = 2,
    Settled = 3,
}

#[derive(Clone, Debug)]
pub struct IdentityFile {
    path: PathBuf,
}

impl IdentityFile {
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("identity") }
    }

    /// `None` for a folder that belongs to nobody yet.
    ///
    /// # Errors
    /// When the file is damaged or of a newer format.
    pub fn read(&self) -> Result<Option<Identity>, MetaError> {
        let Some((kind, payload)) = read_whole(&self.path)? else { return Ok(None) };
        let damaged =
            || LogError::Damaged { path: self.path.clone(), position: 0, what: "it is no identity".to_owned() };
        let message = IdentityMessage::decode(payload.as_slice()).map_err(|_| damaged())?;
        if message.version > FORMAT_VERSION {
            let newer = LogError::Newer { path: self.path.clone(), found: message.version, known: FORMAT_VERSION };
            return Err(newer.into());
        }
        let cluster = message.cluster.parse().map_err(|_| damaged())?;
        let stage = match message.stage() {
            StageNumber::Founding => {
                let factor = u16::try_from(message.replication_factor).map_err(|_| damaged())?;
                Stage::Founding { replication_factor: factor.max(1) }
            }
            StageNumber::Joining => Stage::Joining,
            StageNumber::Settled => Stage::Settled,
            StageNumber::Unspecified => return Err(damaged().into()),
        };
        if kind != IDENTITY_KIND || message.node == 0 {
            return Err(damaged().into());
        }
        Ok(Some(Identity {
            cluster,
            node: NodeId(message.node),
            incarnation: Incarnation(message.incarnation),
            starts: message.starts.into_iter().map(Into::into).collect(),
            stage,
        }))
    }

    /// Returns once it is durable.
    pub fn save(&self, identity: &Identity) -> Result<(), MetaError> {
        let (stage, replication_factor) = match identity.stage {
            Stage::Founding { replication_factor } => (StageNumber::Founding, replication_factor),
            Stage::Joining => (StageNumber::Joining, 0),
            Stage::Settled => (StageNumber::Settled, 0),
        };
        let message = IdentityMessage {
            version: FORMAT_VERSION,
            cluster: identity.cluster.to_string(),
            node: identity.node.0,
            incarnation: identity.incarnation.0,
            stage: stage.into(),
            replication_factor: replication_factor.into(),
            starts: identity.starts.iter().copied().map(Into::into).collect(),
        };
        Ok(write_whole(&self.path, IDENTITY_KIND, &message.encode_to_vec())?)
    }

    /// Counts a start of the node, durably, before anything is done in its name (R3).
    pub fn count_start(&self, identity: &mut Identity, mark: StartMark) -> Result<(), MetaError> {
        identity.count_start(mark);
        self.save(identity)
    }
}

impl Identity {
    /// Of a folder that nobody has started from yet.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, stage: Stage) -> Self {
        Self { cluster, node, incarnation: Incarnation(0), starts: Vec::new(), stage }
    }

    /// The present start, as others are told of it.
    #[must_use]
    pub fn start(&self) -> Start {
        let mut before = self.starts.clone();
        let present = before.pop_if(|last| last.incarnation == self.incarnation);
        let mark = present.map_or(StartMark::NONE, |present| present.mark);
        Start { node: self.node, incarnation: self.incarnation, mark, before }
    }

    /// The start that comes next, if it gets this mark.
    #[must_use]
    pub fn next_start(&self, mark: StartMark) -> Start {
        let mut next = self.clone();
        next.count_start(mark);
        next.start()
    }

    fn count_start(&mut self, mark: StartMark) {
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        self.starts.push(PastStart { incarnation: self.incarnation, mark });
        if self.starts.len() > STARTS_MAX {
            self.starts.remove(1);
        }
    }

    /// The cluster has heard of the present start: those before it are not asked for any more.
    pub fn note_heard(&mut self) {
        let present = self.incarnation;
        self.starts.retain(|start| start.incarnation == present);
    }
}

/// A mark for a start that is about to be made.
///
/// # Errors
/// When this machine gives no random numbers.
pub fn random_mark() -> Result<StartMark, MetaError> {
    let mark = u64::from_le_bytes(random_bytes()?);
    Ok(StartMark(mark.max(1)))
}

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], MetaError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| MetaError::Io { what: "read", path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_and_counts_starts() {
        let folder = tempfile::tempdir().unwrap();
        let file = IdentityFile::new(folder.path());
        assert_eq!(file.read().unwrap(), None);
        let stage = Stage::Founding { replication_factor: 2 };
        let mut identity = Identity::new(ClusterId(77), NodeId(3), stage);
        file.save(&identity).unwrap();
        file.count_start(&mut identity, StartMark(5)).unwrap();
        assert_eq!(identity.incarnation, Incarnation(1));
        assert_eq!(file.read().unwrap(), Some(identity));
    }

    #[test]
    fn starts_are_remembered_until_the_cluster_has_heard_of_one() {
        let mut identity = Identity::new(ClusterId(77), NodeId(3), Stage::Settled);
        let past = |incarnation, mark| PastStart { incarnation: Incarnation(incarnation), mark: StartMark(mark) };
        identity.count_start(StartMark(10));
        identity.note_heard();
        identity.count_start(StartMark(20));
        identity.count_start(StartMark(30));
        let start = identity.start();
        assert_eq!((start.incarnation.0, start.mark.0), (3, 30));
        assert_eq!(start.before, [past(1, 10), past(2, 20)]);
        assert_eq!(identity.next_start(StartMark(40)).before.last(), Some(&past(3, 30)));
        for mark in 0..1000 {
            identity.count_start(StartMark(100 + mark));
        }
        assert_eq!((identity.starts.len(), identity.starts[0]), (STARTS_MAX, past(1, 10)));
        identity.note_heard();
        assert_eq!(identity.start().before, []);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let message = IdentityMessage { version: 9, cluster: ClusterId(1).to_string(), node: 1, ..Default::default() };
        write_whole(&folder.path().join("identity"), IDENTITY_KIND, &message.encode_to_vec()).unwrap();
        let error = IdentityFile::new(folder.path()).read().unwrap_err().to_string();
        assert!(error.contains("format version 9"), "{error}");
    }
}
