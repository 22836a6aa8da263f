//! Bytes a value and gigabytes a second of every encoding on columns of time series, beside plain values under zstd,
//! Gorilla and pco. Each column is cut into row groups as segments have them; what is decoded is compared with what was
//! encoded. `page` is what a segment writes: the encoding that it chooses, its frame and its checksum.

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::executor::block_on;
use meridian_engine::segment::encoding::huffman::Codes;
use meridian_engine::segment::encoding::selection::Selection;
use meridian_engine::segment::encoding::{
    Coders, Encoding, Input, binned, bytes, decimal, dictionary, integers, packed, plain, runs, split,
};
use meridian_engine::segment::{
    ROW_GROUP_ROWS_MAX, SegmentExpectation, SegmentLimits, SegmentReader, SegmentRows, SegmentSpec, write,
};
use meridian_engine::{Disk, SimulatedDisk, SortKey};
use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ChunkId, ClusterId, ColumnId, SchemaVersion, SegmentId, SqlType, TableId};
#[cfg(feature = "pco")]
use pco::ChunkConfig;

use super::data::{Texts, Values, columns};
use super::gorilla;
use super::memory::best_of;
use crate::ingest::Error;
use crate::report::Figure;
use crate::tsbs::Workload;

const DIRECTORY: &str = "/chunk";
/// Of all rows, as in a chunk that was loaded by one statement.
const COMMIT: u64 = 7;
/// pco's own default, and the smallest that pays.
#[cfg(feature = "pco")]
const PCO_LEVEL: usize = 8;

/// One way to encode, for the values it is made for.
struct Codec {
    name: &'static str,
    /// `None` where it does not apply.
    encode: fn(&Values, &mut Coders) -> Option<Vec<u8>>,
    /// Of so many rows; the encoder's counterpart.
    decode: fn(&[u8], usize) -> Values,
}

const INTEGER_CODECS: [Codec; 7] = [
    Codec {
        name: "packed",
        encode: |values, _| encoded(integers_of(values), |v, out| packed::encode(v, &packed::estimate(v), out)),
        decode: |bytes, rows| Values::Integers(whole(rows, |all| packed::decode(&mut Input::new(bytes), all, |v| v))),
    },
    Codec {
        name: "binned",
        encode: |values, _| {
            let plan = binned::estimate(integers_of(values))?;
            encoded(integers_of(values), |v, out| binned::encode(v, &plan, &mut Codes::default(), out))
        },
        decode: |bytes, rows| Values::Integers(whole(rows, |all| binned::decode(&mut Input::new(bytes), all, |v| v))),
    },
    Codec {
        name: "runs",
        encode: |values, _| {
            let plan = runs::estimate(integers_of(values))?;
            encoded(integers_of(values), |_, out| runs::encode(&plan, out))
        },
        decode: |bytes, rows| Values::Integers(whole(rows, |all| runs::decode(&mut Input::new(bytes), all, |v| v))),
    },
    Codec {
        name: "plain",
        encode: |values, _| encoded(integers_of(values), plain::encode),
        decode: |bytes, rows| Values::Integers(whole(rows, |all| plain::decode(&mut Input::new(bytes), all))),
    },
    Codec {
        name: "plain + zstd-1",
        encode: |values, _| zstd_of(&encoded(integers_of(values), plain::encode)?, 1),
        decode: |bytes, rows| {
            Values::Integers(whole(rows, |all| plain::decode(&mut Input::new(&unzstd(bytes, rows)), all)))
        },
    },
    Codec {
        name: "plain + zstd-3",
        encode: |values, _| zstd_of(&encoded(integers_of(values), plain::encode)?, 3),
        decode: |bytes, rows| {
            Values::Integers(whole(rows, |all| plain::decode(&mut Input::new(&unzstd(bytes, rows)), all)))
        },
    },
    Codec {
        name: "Gorilla",
        encode: |values, _| Some(gorilla::encode_deltas(integers_of(values).iter().copied())),
        decode: |bytes, rows| Values::Integers(gorilla::decode_deltas(bytes, rows)),
    },
];

const DOUBLE_CODECS: [Codec; 7] = [
    Codec {
        name: "scaled",
        encode: |values, _| {
            let values = doubles_of(values);
            let plan = decimal::estimate(values)?;
            encoded(values, |v, out| decimal::encode(v, &plan, &mut Codes::default(), out))
        },
        decode: |bytes, rows| {
            Values::Doubles(whole(rows, |all| decimal::decode(Encoding::Scaled, &mut Input::new(bytes), all)))
        },
    },
    Codec {
        name: "split",
        encode: |values, _| {
            let values = doubles_of(values);
            let plan = split::estimate(values)?;
            encoded(values, |v, out| split::encode(v, &plan, &mut Codes::default(), out))
        },
        decode: |bytes, rows| Values::Doubles(whole(rows, |all| split::decode(&mut Input::new(bytes), all))),
    },
    Codec {
        name: "ordered",
        encode: |values, _| {
            let ordered: Vec<i64> = doubles_of(values).iter().map(|v| decimal::Float::to_ordered(*v)).collect();
            let plan = integers::estimate(&ordered);
            encoded(&ordered, |v, out| integers::encode_nested(v, &plan, &mut Codes::default(), out))
        },
        decode: |bytes, rows| {
            let back = <f64 as decimal::Float>::of_ordered;
            Values::Doubles(whole(rows, |all| integers::decode_nested(&mut Input::new(bytes), all, back)))
        },
    },
    Codec {
        name: "plain",
        encode: |values, _| encoded(doubles_of(values), plain::encode),
        decode: |bytes, rows| Values::Doubles(whole(rows, |all| plain::decode(&mut Input::new(bytes), all))),
    },
    Codec {
        name: "plain + zstd-1",
        encode: |values, _| zstd_of(&encoded(doubles_of(values), plain::encode)?, 1),
        decode: |bytes, rows| {
            Values::Doubles(whole(rows, |all| plain::decode(&mut Input::new(&unzstd(bytes, rows)), all)))
        },
    },
    Codec {
        name: "plain + zstd-3",
        encode: |values, _| zstd_of(&encoded(doubles_of(values), plain::encode)?, 3),
        decode: |bytes, rows| {
            Values::Doubles(whole(rows, |all| plain::decode(&mut Input::new(&unzstd(bytes, rows)), all)))
        },
    },
    Codec {
        name: "Gorilla",
        encode: |values, _| Some(gorilla::encode_xor(doubles_of(values).iter().map(|value| value.to_bits()))),
        decode: |bytes, rows| Values::Doubles(gorilla::decode_xor(bytes, rows, f64::from_bits)),
    },
];

const TEXT_CODECS: [Codec; 3] = [
    Codec {
        name: "terms",
        encode: |values, coders| {
            let texts = texts_of(values);
            let plan = dictionary::estimate(texts.len(), |row| Some(texts.get(row)))?;
            encoded(texts, |_, out| dictionary::encode(&plan, coders, out))
        },
        decode: |bytes, rows| {
            texts(whole(rows, |all| {
                let codes = dictionary::decode_codes(Encoding::Terms, &mut Input::new(bytes), all)?;
                dictionary::spell(codes, None)
            }))
        },
    },
    Codec {
        name: "bytes",
        encode: |values, _| encode_bytes(texts_of(values)),
        decode: |bytes, rows| texts(right(bytes::decode_all(&mut Input::new(bytes), rows))),
    },
    Codec {
        name: "bytes + zstd-1",
        encode: |values, _| {
            let whole = encode_bytes(texts_of(values))?;
            let mut out = (whole.len() as u32).to_le_bytes().to_vec();
            out.extend(zstd_of(&whole, 1)?);
            Some(out)
        },
        decode: |bytes, rows| {
            let (length, frame) = bytes.split_first_chunk::<4>().expect("as written above");
            let whole = zstd::bulk::decompress(frame, u32::from_le_bytes(*length) as usize).expect("as written above");
            texts(right(bytes::decode_all(&mut Input::new(&whole), rows)))
        },
    },
];

#[cfg(feature = "pco")]
const PCO: Codec = Codec {
    name: "pco",
    encode: |values, _| match values {
        Values::Integers(values) => pco::standalone::simple_compress(values, &pco_config()).ok(),
        Values::Doubles(values) => pco::standalone::simple_compress(values, &pco_config()).ok(),
        Values::Texts(_) => None,
    },
    decode: |bytes, _| {
        // Doubles and integers are told apart by the first byte of a chunk; asking for the other kind is an error.
        let integers = pco::standalone::simple_decompress(bytes).map(Values::Integers);
        integers.or_else(|_| pco::standalone::simple_decompress(bytes).map(Values::Doubles)).expect("pco reads its own")
    },
};

/// Figures of every column and codec, the fastest of `rounds`.
pub fn run(workload: Workload, rounds: usize) -> Result<Vec<Figure>, Error> {
    let mut figures = super::memory::Limits::measure().figures();
    let rounds = rounds.max(1);
    for (name, values) in columns(workload) {
        let codecs: &[Codec] = match values {
            Values::Integers(_) => &INTEGER_CODECS,
            Values::Doubles(_) => &DOUBLE_CODECS,
            Values::Texts(_) => &TEXT_CODECS,
        };
        let groups = row_groups(&values);
        #[cfg(feature = "pco")]
        let codecs = codecs.iter().chain([&PCO]);
        for codec in codecs {
            if let Some(measured) = measure(codec, &groups, rounds)? {
                figures.extend(measured.figures(name, codec.name));
            }
        }
        figures.extend(page(&groups, rounds)?.figures(name, "page"));
    }
    Ok(figures)
}

fn row_groups(values: &Values) -> Vec<Values> {
    let starts = (0..values.len()).step_by(ROW_GROUP_ROWS_MAX);
    starts.map(|start| values.slice(start, (start + ROW_GROUP_ROWS_MAX).min(values.len()))).collect()
}

struct Measured {
    bytes_a_value: f64,
    /// Gigabytes of values a second.
    encode: f64,
    decode: f64,
}

impl Measured {
    fn new(groups: &[Values], bytes: usize, encode_seconds: f64, decode_seconds: f64) -> Self {
        let rows: usize = groups.iter().map(Values::len).sum();
        let raw: usize = groups.iter().map(Values::raw_bytes).sum();
        let rate = |seconds: f64| raw as f64 / seconds / 1e9;
        Self { bytes_a_value: bytes as f64 / rows as f64, encode: rate(encode_seconds), decode: rate(decode_seconds) }
    }

    fn figures(&self, column: &str, codec: &str) -> [Figure; 3] {
        let name = |what| format!("{column}: {codec}, {what}");
        [
            Figure::new(name("size"), self.bytes_a_value, "bytes/value"),
            Figure::new(name("encode"), self.encode, "GB/s"),
            Figure::new(name("decode"), self.decode, "GB/s"),
        ]
    }
}

/// `None` where the codec does not apply to some of the values.
fn measure(codec: &Codec, groups: &[Values], rounds: usize) -> Result<Option<Measured>, Error> {
    let mut coders = Coders::new()?;
    let encoded: Option<Vec<_>> = groups.iter().map(|group| (codec.encode)(group, &mut coders)).collect();
    let Some(encoded) = encoded else { return Ok(None) };
    for (group, bytes) in groups.iter().zip(&encoded) {
        if !(codec.decode)(bytes, group.len()).is_same(group) {
            return Err(format!("{} gives other values back", codec.name).into());
        }
    }
    let encode_seconds = best_of(rounds, || {
        for group in groups {
            black_box((codec.encode)(black_box(group), &mut coders));
        }
    });
    let decode_seconds = best_of(rounds, || {
        for (group, bytes) in groups.iter().zip(&encoded) {
            black_box((codec.decode)(black_box(bytes), group.len()));
        }
    });
    let bytes = encoded.iter().map(Vec::len).sum();
    Ok(Some(Measured::new(groups, bytes, encode_seconds, decode_seconds)))
}

/// A segment with this one column, on a disk in memory.
fn page(groups: &[Values], rounds: usize) -> Result<Measured, Error> {
    let sql_type = match groups[0] {
        Values::Integers(_) => SqlType::Int8,
        Values::Doubles(_) => SqlType::Float8,
        Values::Texts(_) => SqlType::Text,
    };
    let column =
        Column { id: ColumnId(1), name: "value".to_owned(), sql_type, not_null: true, default: None, modifier: None };
    let schema = TableSchema { version: SchemaVersion(1), columns: vec![column] };
    let (chunk, segment, cluster) = (ChunkId(1), SegmentId(1), ClusterId(1));
    let spec = SegmentSpec { cluster, table: TableId(16_384), chunk, segment, schema, sort: SortKey::default() };
    let batches = groups.iter().map(|group| RecordBatch::try_new(spec.schema.arrow(), vec![array(group)]));
    let batches = batches.collect::<Result<Vec<_>, _>>()?;

    let (disk, directory) = (SimulatedDisk::new(1), Path::new(DIRECTORY));
    block_on(disk.create_directory(directory))?;
    let write_once = || {
        let rows = |batch: &RecordBatch| {
            Ok(SegmentRows { batch: batch.clone(), commits: Some(vec![COMMIT; batch.num_rows()]) })
        };
        let rows = futures::stream::iter(batches.iter().map(rows).collect::<Vec<_>>());
        block_on(write(&disk, directory, &spec, rows, SegmentLimits::default(), &no_pause))
    };
    write_once()?;
    let encode_seconds = best_of(rounds, || drop(black_box(write_once())));
    let reader = block_on(SegmentReader::open(&disk, directory, SegmentExpectation { cluster, chunk, segment }))?;
    let read = |group: usize| block_on(reader.read(group, &spec.schema.columns, &no_pause));
    let mut bytes = 0;
    let mut back = Vec::new();
    for group in 0..reader.row_groups().len() {
        let rows = read(group)?;
        bytes += rows.bytes_read as usize;
        back.push(rows.batch.column(0).clone());
    }
    compare(groups, &back)?;
    let decode_seconds = best_of(rounds, || (0..back.len()).for_each(|group| drop(black_box(read(group)))));
    Ok(Measured::new(groups, bytes, encode_seconds, decode_seconds))
}

/// Row groups may be cut elsewhere.
fn compare(groups: &[Values], back: &[ArrayRef]) -> Result<(), Error> {
    let same = match &groups[0] {
        Values::Integers(_) => {
            let expected = groups.iter().flat_map(integers_of).copied();
            expected.eq(back.iter().flat_map(|array| array.as_primitive::<Int64Type>().values()).copied())
        }
        Values::Doubles(_) => {
            let expected = groups.iter().flat_map(doubles_of).map(|v| v.to_bits());
            expected.eq(back.iter().flat_map(|array| array.as_primitive::<Float64Type>().values()).map(|v| v.to_bits()))
        }
        Values::Texts(_) => {
            let expected = groups.iter().flat_map(|group| texts_of(group).iter()).map(Some);
            expected.eq(back.iter().flat_map(|array| array.as_string::<i32>()))
        }
    };
    if same { Ok(()) } else { Err("a segment gives other values back".into()) }
}

async fn no_pause() {}

fn array(values: &Values) -> ArrayRef {
    match values {
        Values::Integers(values) => Arc::new(Int64Array::from(values.clone())),
        Values::Doubles(values) => Arc::new(Float64Array::from(values.clone())),
        Values::Texts(texts) => Arc::new(StringArray::from_iter_values(texts.iter())),
    }
}

fn integers_of(values: &Values) -> &[i64] {
    match values {
        Values::Integers(values) => values,
        _ => &[],
    }
}

/// # Panics
/// Where the values are no texts: codecs of texts are asked for those only.
fn texts_of(values: &Values) -> &Texts {
    match values {
        Values::Texts(texts) => texts,
        _ => panic!("no texts"),
    }
}

fn doubles_of(values: &Values) -> &[f64] {
    match values {
        Values::Doubles(values) => values,
        _ => &[],
    }
}

fn texts(decoded: bytes::Decoded) -> Values {
    Values::Texts(Texts { offsets: decoded.offsets, bytes: decoded.bytes })
}

fn encoded<T: ?Sized>(values: &T, encode: impl FnOnce(&T, &mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    encode(values, &mut out);
    Some(out)
}

fn encode_bytes(texts: &Texts) -> Option<Vec<u8>> {
    let value = |row: usize| texts.get(row);
    encoded(texts, |_, out| bytes::encode(&bytes::estimate(texts.len(), value), value, out))
}

/// What an encoder wrote decodes, or the measurement is worth nothing.
fn right<T>(decoded: Result<T, meridian_engine::segment::encoding::Flaw>) -> T {
    decoded.expect("an encoder's own bytes")
}

/// All of so many rows.
fn whole<T>(
    rows: usize,
    decode: impl FnOnce(&Selection<'_>) -> Result<T, meridian_engine::segment::encoding::Flaw>,
) -> T {
    let all = Range { start: 0, end: rows };
    right(decode(&Selection::new(rows, std::slice::from_ref(&all))))
}

fn zstd_of(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    zstd::bulk::compress(bytes, level).ok()
}

fn unzstd(frame: &[u8], rows: usize) -> Vec<u8> {
    zstd::bulk::decompress(frame, rows * 8).expect("a frame of plain values")
}

#[cfg(feature = "pco")]
fn pco_config() -> ChunkConfig {
    ChunkConfig::default().with_compression_level(PCO_LEVEL)
}
