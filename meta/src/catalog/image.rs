//! The catalog as bytes, for Raft snapshots: a prost message, so that fields may be added but never change meaning.

use std::collections::BTreeMap;

use meridian_proto::catalog::Noun;
use meridian_proto::command::Reply;
use meridian_proto::{CatalogVersion, NodeId, ProducerId, Refusal, Sequence, StartMark, Ts, wire};
use prost::Message;

use super::proposals::Answered;
use super::{Catalog, Counters, Outcome};

/// Why bytes are no catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a catalog: {0}")]
pub struct ImageError(pub String);

#[derive(Clone, PartialEq, Message)]
struct CatalogMessage {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(message, optional, tag = "2")]
    counters: Option<CountersMessage>,
    #[prost(message, repeated, tag = "3")]
    nouns: Vec<wire::Noun>,
    #[prost(uint64, tag = "4")]
    oracle_upto: u64,
    #[prost(message, repeated, tag = "5")]
    producers: Vec<ProducerMessage>,
    #[prost(message, repeated, tag = "6")]
    marks: Vec<MarkMessage>,
}

/// Mark of the last start of a node.
#[derive(Clone, PartialEq, Message)]
struct MarkMessage {
    #[prost(uint64, tag = "1")]
    node: u64,
    #[prost(fixed64, tag = "2")]
    mark: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CountersMessage {
    #[prost(uint32, tag = "1")]
    oid: u32,
    #[prost(uint32, tag = "2")]
    hypertable: u32,
    #[prost(uint32, tag = "3")]
    group: u32,
    #[prost(uint64, tag = "4")]
    chunk: u64,
    #[prost(uint64, tag = "5")]
    node: u64,
    #[prost(uint64, tag = "6")]
    producer: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ProducerMessage {
    #[prost(uint64, tag = "1")]
    producer: u64,
    #[prost(uint64, tag = "2")]
    used: u64,
    #[prost(uint64, tag = "3")]
    forgotten_upto: u64,
    #[prost(message, repeated, tag = "4")]
    answers: Vec<AnswerMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerMessage {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(uint64, tag = "2")]
    version: u64,
    #[prost(message, optional, tag = "3")]
    reply: Option<wire::Reply>,
    #[prost(message, optional, tag = "4")]
    refusal: Option<wire::Refusal>,
}

impl Catalog {
    /// The whole catalog as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let counters = self.counters;
        let message = CatalogMessage {
            version: self.version.0,
            counters: Some(CountersMessage {
                oid: counters.oid,
                hypertable: counters.hypertable,
                group: counters.group,
                chunk: counters.chunk,
                node: counters.node,
                producer: counters.producer,
            }),
            nouns: self.whole().changed.into_iter().map(Into::into).collect(),
            oracle_upto: self.oracle_upto.0,
            producers: self.proposals.producers.iter().map(|(id, answered)| encode_producer(*id, answered)).collect(),
            marks: self.marks.iter().map(|(node, mark)| MarkMessage { node: node.0, mark: mark.0 }).collect(),
        };
        message.encode_to_vec()
    }

    /// Reads what [`Catalog::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else, or a promise of the catalog does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let message = CatalogMessage::decode(bytes).map_err(|error| ImageError(error.to_string()))?;
        let counters = message.counters.ok_or_else(|| ImageError("no counters".to_owned()))?;
        let mut catalog = Self {
            version: CatalogVersion(message.version),
            counters: Counters {
                oid: counters.oid,
                hypertable: counters.hypertable,
                group: counters.group,
                chunk: counters.chunk,
                node: counters.node,
                producer: counters.producer,
            },
            oracle_upto: Ts(message.oracle_upto),
            marks: message.marks.into_iter().map(|m| (NodeId(m.node), StartMark(m.mark))).collect(),
            ..Self::default()
        };
        for noun in message.nouns {
            catalog.put(Noun::try_from(noun).map_err(|error| ImageError(error.to_string()))?);
        }
        for producer in message.producers {
            let (id, answered) = decode_producer(producer)?;
            catalog.proposals.producers.insert(id, answered);
        }
        catalog.changed.clear();
        catalog.validate().map_err(ImageError)?;
        Ok(catalog)
    }

    fn put(&mut self, noun: Noun) {
        match noun {
            Noun::Table(table) => self.put_table(table),
            Noun::Group(group) => self.put_group(group),
            Noun::Chunk(chunk) => self.put_chunk(chunk),
            Noun::Node(node) => self.put_node(node),
            Noun::Setting(setting) => {
                self.settings.insert(setting.name, setting.value);
            }
        }
    }
}

fn encode_producer(id: ProducerId, answered: &Answered) -> ProducerMessage {
    let answer = |(sequence, (outcome, version)): (&Sequence, &(Outcome, CatalogVersion))| AnswerMessage {
        sequence: sequence.0,
        version: version.0,
        reply: outcome.clone().ok().map(Into::into),
        refusal: outcome.clone().err().map(Into::into),
    };
    ProducerMessage {
        producer: id.0,
        used: answered.used,
        forgotten_upto: answered.forgotten_upto.0,
        answers: answered.answers.iter().map(answer).collect(),
    }
}

fn decode_producer(message: ProducerMessage) -> Result<(ProducerId, Answered), ImageError> {
    let mut answers = BTreeMap::new();
    for answer in message.answers {
        let outcome = match (answer.reply, answer.refusal) {
            (Some(reply), None) => Ok(Reply::try_from(reply).map_err(|error| ImageError(error.to_string()))?),
            (None, Some(refusal)) => Err(Refusal::try_from(refusal).map_err(|error| ImageError(error.to_string()))?),
            _ => return Err(ImageError(format!("answer {} is no answer", answer.sequence))),
        };
        answers.insert(Sequence(answer.sequence), (outcome, CatalogVersion(answer.version)));
    }
    let answered = Answered { used: message.used, forgotten_upto: Sequence(message.forgotten_upto), answers };
    Ok((ProducerId(message.producer), answered))
}
