//! Refusals, alone and as the details of a gRPC status.

use prost::Message;
use tonic::{Code, Status};

use super::{ConvertError, required};
use crate::ids::{CatalogVersion, ChunkId, Epoch, SchemaVersion, Ts};
use crate::refusal::Refusal;
use crate::wire;

/// Longest text of a refusal in a status. Status and details travel as HTTP/2 headers, which peers take 16 KiB of:
/// details in base64 (4/3) and a short percent-encoded message stay well below.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest message beside the details, before percent-encoding.
const MESSAGE_BYTES_MAX: usize = 512;

impl From<Refusal> for wire::Refusal {
    fn from(refusal: Refusal) -> Self {
        use wire::refusal::{self, Refusal as Wire};
        let refusal = match refusal {
            Refusal::StaleEpoch { chunk, asked, current } => {
                Wire::StaleEpoch(refusal::StaleEpoch { chunk: chunk.0, asked: asked.0, current: current.0 })
            }
            Refusal::NotPrimary { chunk, known } => {
                Wire::NotPrimary(refusal::NotPrimary { chunk: chunk.0, known: known.0 })
            }
            Refusal::Dropping(chunk) => Wire::Dropping(chunk.0),
            Refusal::SchemaVersion { asked, current } => {
                Wire::SchemaVersion(refusal::SchemaVersion { asked: asked.0, current: current.0 })
            }
            Refusal::Snapshot { snapshot, reason } => {
                Wire::Snapshot(refusal::Snapshot { snapshot: snapshot.0, reason })
            }
            Refusal::Aborted(text) => Wire::Aborted(text),
            Refusal::Conflict(text) => Wire::Conflict(text),
            Refusal::OutcomeUnknown(text) => Wire::OutcomeUnknown(text),
            Refusal::Memory(text) => Wire::Memory(text),
            Refusal::Overloaded(text) => Wire::Overloaded(text),
            Refusal::DiskFull(text) => Wire::DiskFull(text),
            Refusal::Unavailable(text) => Wire::Unavailable(text),
            Refusal::NodeDown(text) => Wire::NodeDown(text),
            Refusal::Corruption(text) => Wire::Corruption(text),
            Refusal::Protocol(text) => Wire::Protocol(text),
            Refusal::Canceled => Wire::Canceled(wire::Done {}),
            Refusal::Catalog { sqlstate, message, hint } => Wire::Catalog(refusal::Catalog { sqlstate, message, hint }),
            Refusal::Statement { sqlstate, message } => Wire::Statement(refusal::Statement { sqlstate, message }),
        };
        Self { refusal: Some(refusal) }
    }
}

impl TryFrom<wire::Refusal> for Refusal {
    type Error = ConvertError;

    fn try_from(wire: wire::Refusal) -> Result<Self, ConvertError> {
        use wire::refusal::Refusal as Wire;
        Ok(match required(wire.refusal, "refusal")? {
            Wire::StaleEpoch(stale) => Self::StaleEpoch {
                chunk: ChunkId(stale.chunk),
                asked: Epoch(stale.asked),
                current: Epoch(stale.current),
            },
            Wire::NotPrimary(not) => Self::NotPrimary { chunk: ChunkId(not.chunk), known: CatalogVersion(not.known) },
            Wire::Dropping(chunk) => Self::Dropping(ChunkId(chunk)),
            Wire::SchemaVersion(schema) => {
                Self::SchemaVersion { asked: SchemaVersion(schema.asked), current: SchemaVersion(schema.current) }
            }
            Wire::Snapshot(snapshot) => Self::Snapshot { snapshot: Ts(snapshot.snapshot), reason: snapshot.reason },
            Wire::Aborted(text) => Self::Aborted(text),
            Wire::Conflict(text) => Self::Conflict(text),
            Wire::OutcomeUnknown(text) => Self::OutcomeUnknown(text),
            Wire::Memory(text) => Self::Memory(text),
            Wire::Overloaded(text) => Self::Overloaded(text),
            Wire::DiskFull(text) => Self::DiskFull(text),
            Wire::Unavailable(text) => Self::Unavailable(text),
            Wire::NodeDown(text) => Self::NodeDown(text),
            Wire::Corruption(text) => Self::Corruption(text),
            Wire::Protocol(text) => Self::Protocol(text),
            Wire::Canceled(_) => Self::Canceled,
            Wire::Catalog(catalog) => {
                Self::Catalog { sqlstate: catalog.sqlstate, message: catalog.message, hint: catalog.hint }
            }
            Wire::Statement(statement) => Self::Statement { sqlstate: statement.sqlstate, message: statement.message },
        })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let refusal = refusal.with_short_texts();
        let code = refusal.code();
        let message = cut(refusal.to_string(), MESSAGE_BYTES_MAX);
        Self::with_details(code, message, wire::Refusal::from(refusal).encode_to_vec().into())
    }
}

impl Refusal {
    /// The refusal that a status carries; for one without details, what its code says: a peer that could not be
    /// reached, whose connection broke, or that did not answer in time is unavailable; anything else broke the protocol.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a status is consumed where it is understood")]
    pub fn from_status(status: Status) -> Self {
        if !status.details().is_empty()
            && let Ok(wire) = wire::Refusal::decode(status.details())
            && let Ok(refusal) = Self::try_from(wire)
        {
            return refusal;
        }
        // Only a status that was made on this side has a cause: the connection broke, whatever the code.
        let is_broken = std::error::Error::source(&status).is_some();
        match status.code() {
            _ if is_broken => Self::Unavailable(status.message().to_owned()),
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
                Self::Unavailable(status.message().to_owned())
            }
            code => Self::Protocol(format!("{code}: {}", status.message())),
        }
    }

    /// The gRPC code that comes nearest, for clients that do not read the details.
    fn code(&self) -> Code {
        match self {
            Self::StaleEpoch { .. } | Self::NotPrimary { .. } | Self::Unavailable(_) | Self::NodeDown(_) => {
                Code::Unavailable
            }
            Self::Dropping(_) | Self::SchemaVersion { .. } | Self::Aborted(_) | Self::Conflict(_) => Code::Aborted,
            Self::Snapshot { .. } => Code::OutOfRange,
            Self::OutcomeUnknown(_) => Code::Unknown,
            Self::Memory(_) | Self::Overloaded(_) | Self::DiskFull(_) => Code::ResourceExhausted,
            Self::Corruption(_) => Code::DataLoss,
            Self::Protocol(_) => Code::InvalidArgument,
            Self::Canceled => Code::Cancelled,
            Self::Catalog { .. } | Self::Statement { .. } => Code::FailedPrecondition,
        }
    }

    fn with_short_texts(mut self) -> Self {
        match &mut self {
            Self::StaleEpoch { .. }
            | Self::NotPrimary { .. }
            | Self::Dropping(_)
            | Self::SchemaVersion { .. }
            | Self::Canceled => {}
            Self::Snapshot { reason: text, .. }
            | Self::Aborted(text)
            | Self::Conflict(text)
            | Self::OutcomeUnknown(text)
            | Self::Memory(text)
            | Self::Overloaded(text)
            | Self::DiskFull(text)
            | Self::Unavailable(text)
            | Self::NodeDown(text)
            | Self::Corruption(text)
            | Self::Protocol(text)
            | Self::Statement { message: text, .. } => shorten(text),
            Self::Catalog { message, hint, .. } => {
                shorten(message);
                hint.iter_mut().for_each(shorten);
            }
        }
        self
    }
}

fn shorten(text: &mut String) {
    *text = cut(std::mem::take(text), TEXT_BYTES_MAX);
}

/// The text, or its start with an ellipsis.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals() -> Vec<Refusal> {
        vec![
            Refusal::StaleEpoch { chunk: ChunkId(1), asked: Epoch(2), current: Epoch(3) },
            Refusal::NotPrimary { chunk: ChunkId(1), known: CatalogVersion(2) },
            Refusal::Dropping(ChunkId(1)),
            Refusal::SchemaVersion { asked: SchemaVersion(1), current: SchemaVersion(2) },
            Refusal::Snapshot { snapshot: Ts(1), reason: "it was not issued".into() },
            Refusal::Aborted("a".into()),
            Refusal::Conflict("b".into()),
            Refusal::OutcomeUnknown("c".into()),
            Refusal::Memory("d".into()),
            Refusal::Overloaded("e".into()),
            Refusal::DiskFull("f".into()),
            Refusal::Unavailable("g".into()),
            Refusal::NodeDown("dn1".into()),
            Refusal::Corruption("h".into()),
            Refusal::Protocol("i".into()),
            Refusal::Canceled,
            Refusal::catalog("42P07", "relation \"über\" already exists"),
            Refusal::Catalog { sqlstate: "42P01".into(), message: "m".into(), hint: Some("h".into()) },
            Refusal::Statement { sqlstate: "22012".into(), message: "division by zero".into() },
        ]
    }

    #[test]
    fn every_refusal_survives_the_round_trip_in_a_status() {
        for refusal in refusals() {
            assert_eq!(Refusal::try_from(wire::Refusal::from(refusal.clone())), Ok(refusal.clone()));
            let status = Status::from(refusal.clone());
            assert_eq!(status.message(), refusal.to_string());
            assert_eq!(Refusal::from_status(status), refusal);
        }
    }

    #[test]
    fn a_status_without_details_is_sorted_by_its_code() {
        let of = |code| Refusal::from_status(Status::new(code, "x"));
        assert_eq!(of(Code::Unavailable), Refusal::Unavailable("x".into()));
        assert_eq!(of(Code::DeadlineExceeded), Refusal::Unavailable("x".into()));
        assert_eq!(of(Code::Cancelled), Refusal::Unavailable("x".into()));
        assert!(matches!(of(Code::Unimplemented), Refusal::Protocol(_)));
        let garbage = Status::with_details(Code::Unavailable, "x", vec![0xff; 9].into());
        assert_eq!(Refusal::from_status(garbage), Refusal::Unavailable("x".into()));
    }

    #[test]
    fn long_texts_are_cut_at_a_character_so_that_headers_stay_small() {
        let status = Status::from(Refusal::Corruption("ü".repeat(100_000)));
        assert!(status.details().len() < 5000 && status.message().len() < 600);
        assert!(matches!(Refusal::from_status(status), Refusal::Corruption(text) if text.ends_with("ü...")));
    }
}
