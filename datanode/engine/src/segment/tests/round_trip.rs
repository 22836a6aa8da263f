//! What was written is read, bit for bit.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Float64Type;
use futures::executor::block_on;
use meridian_proto::ids::{ColumnId, Ts};
use meridian_proto::schema::TableSchema;
use meridian_proto::types::SqlType;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::decode;
use super::super::encode::ColumnEncoder;
use super::super::encoding::Encoding;
use super::super::reader::Commits;
use super::super::{ROW_GROUP_ROWS_MAX, SegmentRows};
use super::rows::{self, ALL_SHAPES, Shape};
use super::{
    EXPECTED, OneFile, directory, file_of, file_path, limits, no_pause, open, read_all, schema, spec, write_to,
};
use crate::disk::SimulatedDisk;
use crate::error::EngineError;
use crate::scan::SortKey;
use crate::segment::{SegmentLimits, SegmentReader, write};

/// Equal as values, and bit for bit where floats would hide a difference.
fn assert_same(left: &dyn Array, right: &dyn Array, what: impl Fn() -> String) {
    assert_eq!(left.data_type(), right.data_type(), "{}", what());
    assert_eq!(left.len(), right.len(), "{}", what());
    if let (Some(a), Some(b)) = (left.as_primitive_opt::<Float64Type>(), right.as_primitive_opt::<Float64Type>()) {
        let bits = |array: &Float64Array| array.iter().map(|value| value.map(f64::to_bits)).collect::<Vec<_>>();
        assert_eq!(bits(a), bits(b), "{}", what());
        return;
    }
    // Arrow's equality of primitive arrays compares bytes.
    assert!(left.to_data() == right.to_data(), "{}: {left:?} is not {right:?}", what());
}

fn check_page(array: &ArrayRef, sql_type: &SqlType, what: impl Fn() -> String) -> Encoding {
    let mut page = Vec::new();
    let facts = ColumnEncoder::new().unwrap().encode(array, sql_type, &mut page).unwrap();
    assert_eq!(facts.null_count, array.null_count());
    let back = decode::decode_page(&page, sql_type, array.len()).unwrap();
    assert_same(array, &back, || format!("{} ({:?})", what(), facts.encoding));
    back.to_data().validate_full().unwrap();
    facts.encoding
}

/// The encodings that columns of the type can take.
fn encodings_of(sql_type: &SqlType) -> Vec<Encoding> {
    use Encoding::{Binned, Bitmap, Bytes, Constant, List, Null, Ordered, Packed, Plain, Runs, Scaled, Split, Terms};
    match sql_type {
        SqlType::Bool => vec![Null, Constant, Bitmap],
        SqlType::Float4 | SqlType::Float8 => vec![Null, Plain, Constant, Scaled, Ordered, Split],
        SqlType::Numeric(_) => vec![Null, Plain, Constant, Packed, Binned, Runs, Terms],
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Jsonb | SqlType::Bytea => {
            vec![Null, Constant, Bytes, Terms]
        }
        SqlType::Uuid | SqlType::Interval => vec![Null, Plain, Constant, Terms],
        SqlType::Array(_) => vec![Null, List],
        // Within a day, they are never as wide as they are stored plain.
        SqlType::Time => vec![Null, Constant, Packed, Binned, Runs],
        _ => vec![Null, Plain, Constant, Packed, Binned, Runs],
    }
}

#[test]
fn every_type_comes_back_in_every_shape_with_and_without_nulls() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for sql_type in rows::all_types() {
        let mut met = BTreeSet::new();
        for shape in ALL_SHAPES {
            for null_percent in [0, 5, 100] {
                // Runs pay where there are many.
                let most = if shape == Shape::ShortRuns { 20_000 } else { 2500 };
                for row_count in [1, 7, 1024, most] {
                    let array = rows::column(&mut random, &sql_type, shape, null_percent, row_count);
                    let what = || format!("{sql_type} {shape:?} {null_percent} {row_count}");
                    met.insert(check_page(&array, &sql_type, what).code());
                    let slice = array.slice(row_count / 3, row_count / 2);
                    if !slice.is_empty() {
                        check_page(&slice, &sql_type, || format!("slice of {sql_type} {shape:?} {null_percent}"));
                    }
                }
            }
        }
        let possible: BTreeSet<u8> = encodings_of(&sql_type).into_iter().map(Encoding::code).collect();
        assert_eq!(met, possible, "{sql_type} has met each of its encodings");
    }
}

#[test]
fn texts_of_high_cardinality_and_one_long_text_come_back() {
    let texts: Vec<String> = (0..20_000).map(|i| format!("{:x}", i * 7_919_999_983_u64)).collect();
    let array: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    check_page(&array, &SqlType::Text, || "hexadecimal".to_owned());
    let array: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(3 << 20).as_str(), "", "b"]));
    check_page(&array, &SqlType::Text, || "3 MiB".to_owned());
}

/// Cuts a batch at random places, with the commits of its rows.
fn cut(random: &mut ChaCha8Rng, whole: &RecordBatch, commits: Option<&[u64]>) -> Vec<SegmentRows> {
    let (mut parts, mut start) = (Vec::new(), 0);
    while start < whole.num_rows() {
        let rows = random.random_range(0..=whole.num_rows() - start);
        let commits = commits.map(|commits| commits[start..start + rows].to_vec());
        parts.push(SegmentRows { batch: whole.slice(start, rows), commits });
        start += rows;
    }
    parts
}

fn random_schema(random: &mut ChaCha8Rng) -> TableSchema {
    let types = rows::all_types();
    let columns = random.random_range(1..8);
    let types: Vec<SqlType> = (0..columns).map(|_| types.choose(random).unwrap().clone()).collect();
    schema(&types)
}

#[test]
fn random_files_hold_what_their_seed_says() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let schema = random_schema(&mut random);
        let row_count = random.random_range(0..3000);
        let whole = rows::batch(&mut random, &schema, row_count);
        let commits: Option<Vec<u64>> = match seed % 3 {
            0 => None,
            1 => Some(vec![u64::MAX - seed; row_count]),
            _ => Some((0..row_count).map(|_| random.random_range(100..200)).collect()),
        };
        let parts = cut(&mut random, &whole, commits.as_deref());
        let rows_max = random.random_range(1..2000);
        let bytes = file_of(&schema, parts, limits(rows_max));
        let contents = read_all(&OneFile::new(bytes), &schema.columns).unwrap();

        assert!(contents.iter().all(|(batch, _)| (1..=rows_max).contains(&batch.num_rows())));
        let back = concat_batches(&schema.arrow(), contents.iter().map(|(batch, _)| batch)).unwrap();
        for (at, column) in schema.columns.iter().enumerate() {
            let what = || format!("seed {seed}, column {at} {}", column.sql_type);
            assert_same(whole.column(at), back.column(at), what);
        }
        let mut read_commits = Vec::new();
        for (batch, commits) in &contents {
            read_commits.extend((0..batch.num_rows()).filter_map(|row| Some(commits.as_ref()?.get(row).0)));
        }
        assert_eq!(read_commits, commits.unwrap_or_default(), "seed {seed}");
    }
}

#[test]
fn a_summary_tells_rows_times_and_commits() {
    let schema = schema(&[SqlType::Int8, SqlType::Text]);
    let sort = SortKey { segment_by: vec![ColumnId(2)], time: Some(ColumnId(1)) };
    let times: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(-3), Some(9)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "a", "b", "b"]));
    let batch = RecordBatch::try_new(schema.arrow(), vec![times, texts]).unwrap();
    let disk = SimulatedDisk::new(1);
    let rows = SegmentRows { batch, commits: Some(vec![30, 10, 20, 20]) };
    let summary = write_to(&disk, &spec(&schema, sort), vec![rows], SegmentLimits::default()).unwrap();
    assert_eq!((summary.rows, summary.row_groups, summary.time), (4, 1, Some((-3, 9))));
    assert_eq!(summary.commits, Some((Ts(10), Ts(30))));

    let bytes = disk.bytes(&file_path()).unwrap();
    assert_eq!((summary.file_bytes, bytes.len() % 4096), (bytes.len() as u64, 0));
    let reader = open(&OneFile::new(bytes));
    assert_eq!(reader.summary(), summary);
    assert_eq!(reader.schema_version(), schema.version);
    let after_crash = disk.crash();
    block_on(SegmentReader::open(&after_crash, &directory(), EXPECTED)).expect("a file that was written is durable");
}

#[test]
fn columns_are_found_by_their_id_and_later_ones_read_as_null() {
    let table = schema(&[SqlType::Int8, SqlType::Text, SqlType::Float8]);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let batch = rows::batch(&mut random, &table, 100);
    let bytes = file_of(&table, vec![SegmentRows { batch: batch.clone(), commits: Some(vec![9; 100]) }], limits(64));
    let mut columns = vec![table.columns[2].clone(), table.columns[0].clone()];
    columns[0].name = "renamed".to_owned();
    let mut added = schema(&[SqlType::Array(Box::new(SqlType::Int4))]).columns.remove(0);
    (added.id, added.not_null) = (ColumnId(9), true);
    columns.push(added);

    let disk = OneFile::new(bytes);
    let (first, commits) = read_all(&disk, &columns).unwrap().remove(0);
    assert_eq!(commits, Some(Commits::All(Ts(9))));
    assert_eq!(first.schema().field(0).name(), "renamed");
    assert_same(first.column(1), &batch.column(0).slice(0, 64), || "column 1".to_owned());
    assert_eq!((first.column(2).null_count(), first.column(2).data_type()), (64, &columns[2].sql_type.arrow()));

    // Nothing but the number of rows.
    let (none, _) = read_all(&disk, &[]).unwrap().remove(1);
    assert_eq!((none.num_rows(), none.num_columns()), (36, 0));

    columns[1].sql_type = SqlType::Text;
    let error = read_all(&disk, &columns).unwrap_err().to_string();
    assert!(error.contains("column 1") && error.contains("bigint"), "{error}");
}

#[test]
fn a_row_group_is_read_with_one_read() {
    let table = schema(&vec![SqlType::Float8; 20]);
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let batch = rows::batch(&mut random, &table, 2000);
    let disk = OneFile::new(file_of(&table, vec![SegmentRows { batch, commits: None }], limits(1000)));
    let reader = open(&disk);
    let before = disk.reads.get();
    let rows = block_on(reader.read(1, &table.columns, &no_pause)).unwrap();
    assert_eq!(disk.reads.get(), before + 1);
    assert_eq!(rows.bytes_read, reader.row_groups().nth(1).unwrap().page_bytes);
    let one = block_on(reader.read(1, &table.columns[3..4], &no_pause)).unwrap();
    assert!(one.bytes_read < rows.bytes_read);
}

#[test]
fn a_row_group_ends_with_its_series_and_at_its_bytes() {
    let table = schema(&[SqlType::Text, SqlType::Int8]);
    let sort = SortKey { segment_by: vec![ColumnId(1)], time: Some(ColumnId(2)) };
    let hosts: Vec<String> = (0..1000).map(|row| format!("host_{}", row / 90)).collect();
    let hosts: ArrayRef = Arc::new(StringArray::from_iter_values(hosts));
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let batch = RecordBatch::try_new(table.arrow(), vec![hosts, times]).unwrap();
    let rows_of = |sort: SortKey, limits: SegmentLimits| {
        let disk = SimulatedDisk::new(1);
        let rows = vec![SegmentRows { batch: batch.clone(), commits: None }];
        write_to(&disk, &spec(&table, sort), rows, limits).unwrap();
        let reader = open(&OneFile::new(disk.bytes(&file_path()).unwrap()));
        reader.row_groups().map(|group| group.rows).collect::<Vec<_>>()
    };
    assert_eq!(rows_of(sort, limits(400)), [360, 360, 280]);
    assert_eq!(rows_of(SortKey::default(), limits(400)), [400, 400, 200]);
    // 4 + 6 or 7 bytes a row in the widest column, which may have an eighth of all.
    let bytes_max = SegmentLimits { row_group_rows_max: ROW_GROUP_ROWS_MAX, row_group_bytes_max: 50_000 };
    assert_eq!(rows_of(SortKey::default(), bytes_max), [625, 375]);
    let one_byte = SegmentLimits { row_group_rows_max: ROW_GROUP_ROWS_MAX, row_group_bytes_max: 1 };
    assert_eq!(rows_of(SortKey::default(), one_byte), vec![1; 1000]);
}

#[test]
fn rows_that_do_not_fit_the_table_are_refused_and_leave_no_file() {
    let table = schema(&[SqlType::Int8]);
    let array: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let wrong = RecordBatch::try_from_iter([("c1", array)]).unwrap();
    let disk = SimulatedDisk::new(1);
    let rows = vec![SegmentRows { batch: wrong, commits: None }];
    let error = write_to(&disk, &spec(&table, SortKey::default()), rows, limits(10)).unwrap_err();
    assert!(matches!(error, EngineError::Rows(_)), "{error}");
    assert!(disk.bytes(&file_path()).is_none());

    let batch = rows::batch(&mut ChaCha8Rng::seed_from_u64(1), &table, 5);
    let mixed =
        vec![SegmentRows { batch: batch.clone(), commits: None }, SegmentRows { batch, commits: Some(vec![1; 5]) }];
    assert!(write_to(&disk, &spec(&table, SortKey::default()), mixed, limits(10)).is_err());
}

#[test]
fn a_failing_disk_is_reported_and_leaves_no_file() {
    let table = schema(&[SqlType::Int8]);
    let batch = rows::column(&mut ChaCha8Rng::seed_from_u64(1), &SqlType::Int8, Shape::Random, 0, 5000);
    let batch = RecordBatch::try_new(table.arrow(), vec![batch]).unwrap();
    let rows = || vec![SegmentRows { batch: batch.clone(), commits: None }];
    let spec = spec(&table, SortKey::default());
    let disk = SimulatedDisk::new(1);
    disk.limit_space(Some(8192));
    assert!(write_to(&disk, &spec, rows(), limits(10_000)).unwrap_err().is_disk_full());
    disk.limit_space(None);
    disk.fail_write(1);
    assert!(matches!(write_to(&disk, &spec, rows(), limits(10_000)), Err(EngineError::Disk(_))));
    disk.fail_sync(1);
    assert!(matches!(write_to(&disk, &spec, rows(), limits(10_000)), Err(EngineError::Disk(_))));
    assert!(disk.bytes(&file_path()).is_none());
    write_to(&disk, &spec, rows(), limits(10_000)).unwrap();
}

#[test]
fn a_writer_pauses_between_columns_and_passes_errors_of_its_source_on() {
    let table = schema(&[SqlType::Int8, SqlType::Text, SqlType::Date]);
    let batch = rows::batch(&mut ChaCha8Rng::seed_from_u64(1), &table, 100);
    let disk = SimulatedDisk::new(1);
    let pauses = std::cell::Cell::new(0);
    let pause = async || pauses.set(pauses.get() + 1);
    let source = [Ok(SegmentRows { batch, commits: None }), Err(EngineError::Rows("no more".to_owned()))];
    let (directory, spec) = (directory(), spec(&table, SortKey::default()));
    block_on(crate::disk::Disk::create_directory(&disk, &directory)).unwrap();
    let written = write(&disk, &directory, &spec, futures::stream::iter(source), limits(10), &pause);
    assert_eq!(block_on(written).unwrap_err().to_string(), "rows cannot be stored: no more");
    assert!(pauses.get() >= 3 * 9);
}
