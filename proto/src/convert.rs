//! Between the wire's messages and our own types. To the wire everything converts; from it, what is missing or out of
//! range is a [`ConvertError`], so that values inside a node are valid.

mod catalog;
mod command;
mod refusal;

use std::str::FromStr;

use crate::ids::{ClusterId, ProducerId, Sequence, TransactionId};
use crate::refusal::Refusal;
use crate::wire;

/// A message that says nothing valid. The sender's bug, or another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConvertError(pub String);

impl From<ConvertError> for Refusal {
    fn from(error: ConvertError) -> Self {
        Self::Protocol(error.0)
    }
}

impl From<ConvertError> for tonic::Status {
    fn from(error: ConvertError) -> Self {
        Refusal::from(error).into()
    }
}

fn error<T>(what: impl Into<String>) -> Result<T, ConvertError> {
    Err(ConvertError(what.into()))
}

/// What must be there.
fn required<T>(value: Option<T>, what: &str) -> Result<T, ConvertError> {
    value.ok_or_else(|| ConvertError(format!("message without {what}")))
}

/// A number that must fit a smaller type.
fn narrow<T: TryFrom<u32>>(value: u32, what: &str) -> Result<T, ConvertError> {
    T::try_from(value).map_err(|_| ConvertError(format!("{what} {value} is out of range")))
}

fn convert_all<S, T: TryFrom<S, Error = ConvertError>>(values: Vec<S>) -> Result<Vec<T>, ConvertError> {
    values.into_iter().map(T::try_from).collect()
}

fn into_all<S: Into<T>, T>(values: Vec<S>) -> Vec<T> {
    values.into_iter().map(Into::into).collect()
}

impl From<TransactionId> for wire::Transaction {
    fn from(id: TransactionId) -> Self {
        Self { producer: id.producer.0, sequence: id.sequence.0 }
    }
}

impl TryFrom<wire::Transaction> for TransactionId {
    type Error = ConvertError;

    fn try_from(wire: wire::Transaction) -> Result<Self, ConvertError> {
        if wire.producer == 0 || wire.sequence == 0 {
            return error("transaction without producer or sequence");
        }
        Ok(Self { producer: ProducerId(wire.producer), sequence: Sequence(wire.sequence) })
    }
}

impl FromStr for ClusterId {
    type Err = ConvertError;

    /// Reads what `Display` prints: 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ConvertError> {
        let valid = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if valid => Ok(Self(id)),
            _ => error(format!("not a cluster id: {text:.64?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_survive_the_round_trip() {
        let id = ClusterId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0", "+1234567890123456789012345678901", "g0000000000000000000000000000000"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn transactions_survive_the_round_trip() {
        let id = TransactionId { producer: ProducerId(3), sequence: Sequence(9) };
        assert_eq!(TransactionId::try_from(wire::Transaction::from(id)), Ok(id));
        assert!(TransactionId::try_from(wire::Transaction::default()).is_err());
    }
}
