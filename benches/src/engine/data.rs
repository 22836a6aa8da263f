//! Columns and batches of the workload, and columns of other shapes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ColumnId, SchemaVersion, SqlType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::tsbs::{HostRows, METRICS, STEP_SECONDS, TAGS, Workload};

/// Positions in the schema.
pub const TIME: usize = 0;
pub const HOSTNAME: usize = 1;
pub const USAGE_USER: usize = 1 + TAGS.len();
/// The time jitters by so much.
const JITTER_MS: i64 = 2000;

/// Values of one type; of a table in the order of its series.
#[derive(Clone, Debug)]
pub enum Values {
    Integers(Vec<i64>),
    Doubles(Vec<f64>),
    Texts(Texts),
}

/// One behind another; a text ends where the next offset stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts {
    pub offsets: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Texts {
    fn of<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut texts = Self { offsets: vec![0], bytes: Vec::new() };
        for value in values {
            texts.bytes.extend_from_slice(value.as_bytes());
            texts.offsets.push(texts.bytes.len() as i32);
        }
        texts
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|row| std::str::from_utf8(self.get(row)).expect("made of texts"))
    }
}

impl Values {
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Doubles(values) => values.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Bytes of the values in memory.
    pub fn raw_bytes(&self) -> usize {
        match self {
            Self::Integers(_) | Self::Doubles(_) => self.len() * 8,
            Self::Texts(texts) => texts.bytes.len(),
        }
    }

    pub fn slice(&self, start: usize, end: usize) -> Self {
        match self {
            Self::Integers(values) => Self::Integers(values[start..end].to_vec()),
            Self::Doubles(values) => Self::Doubles(values[start..end].to_vec()),
            Self::Texts(texts) => Self::Texts(Texts::of(texts.iter().skip(start).take(end - start))),
        }
    }

    /// Equal bit by bit.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integers(a), Self::Integers(b)) => a == b,
            (Self::Doubles(a), Self::Doubles(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
            (Self::Texts(a), Self::Texts(b)) => a == b,
            _ => false,
        }
    }
}

/// The columns that codecs are measured on, with their names.
pub fn columns(workload: Workload) -> Vec<(&'static str, Values)> {
    let whole = hosts(Workload { decimals: 0, ..workload });
    let decimals = hosts(Workload { decimals: 2, ..workload });
    let mut random = ChaCha8Rng::seed_from_u64(workload.seed);
    let rows = workload.rows();
    let times = || whole.iter().flat_map(|host| host.times.iter().copied());
    let jittered = times().map(|time| time + random.random_range(-JITTER_MS..=JITTER_MS) * 1000).collect();
    let metric =
        |hosts: &[HostRows]| Values::Doubles(hosts.iter().flat_map(|host| &host.metrics[0]).copied().collect());
    let tags = whole.iter().flat_map(|host| std::iter::repeat_n(host.tags[0].as_str(), host.times.len()));
    vec![
        ("metric, whole numbers", metric(&whole)),
        ("metric, two decimals", metric(&decimals)),
        ("time, every 10 s", Values::Integers(times().collect())),
        ("time, jittered", Values::Integers(jittered)),
        ("counter", Values::Integers(counter(&mut random, workload))),
        ("tag", Values::Texts(Texts::of(tags))),
        ("random doubles", Values::Doubles((0..rows).map(|_| random.random::<f64>()).collect())),
    ]
}

/// Bytes sent over an interface: bursts between quiet steps.
fn counter(random: &mut ChaCha8Rng, workload: Workload) -> Vec<i64> {
    let mut values = Vec::new();
    for _ in 0..workload.hosts {
        let mut value = random.random_range(0..1_000_000_000);
        for _ in 0..workload.steps {
            value += random.random_range(0..1500) * random.random_range(0..4);
            values.push(value);
        }
    }
    values
}

fn hosts(workload: Workload) -> Vec<HostRows> {
    let mut hosts: Vec<_> = (0..workload.hosts).map(|number| HostRows::new(workload, number)).collect();
    hosts.sort_by(|a, b| a.tags[0].cmp(&b.tags[0]));
    hosts
}

/// The table of the workload.
pub fn schema() -> TableSchema {
    let names = std::iter::once("time").chain(TAGS).chain(METRICS);
    let types = std::iter::once(SqlType::Timestamptz)
        .chain(std::iter::repeat_n(SqlType::Text, TAGS.len()))
        .chain(std::iter::repeat_n(SqlType::Float8, METRICS.len()));
    let columns = (1..).zip(names).zip(types).map(|((number, name), sql_type)| Column {
        id: ColumnId(number),
        name: name.to_owned(),
        sql_type,
        not_null: number == 1,
        default: None,
        modifier: None,
    });
    TableSchema { version: SchemaVersion(1), columns: columns.collect() }
}

/// Rows by time and host, as they arrive, in batches of about so many.
pub fn batches(workload: Workload, batch_rows: usize) -> impl Iterator<Item = RecordBatch> {
    let hosts: Vec<_> = (0..workload.hosts).map(|number| HostRows::new(workload, number)).collect();
    let steps = (batch_rows / hosts.len()).max(1);
    let schema = schema().arrow();
    (0..workload.steps as usize).step_by(steps).map(move |start| {
        let end = (start + steps).min(workload.steps as usize);
        let each = || (start..end).flat_map(|step| hosts.iter().map(move |host| (host, step)));
        let times = each().map(|(host, step)| host.times[step]).collect::<Vec<_>>();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))];
        for tag in 0..TAGS.len() {
            let values = each().map(|(host, _)| Some(host.tags[tag].as_str()));
            columns.push(Arc::new(values.collect::<StringArray>()));
        }
        for metric in 0..METRICS.len() {
            let values = each().map(|(host, step)| host.metrics[metric][step]);
            columns.push(Arc::new(Float64Array::from_iter_values(values)));
        }
        RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
    })
}

/// The microseconds at which so many steps are over.
pub fn time_of(step: u64) -> i64 {
    ((crate::tsbs::START_SECONDS + step * STEP_SECONDS) * 1_000_000) as i64
}
