//! Pruning may keep too much, never too little.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use meridian_proto::types::SqlType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::SegmentRows;
use super::rows;
use super::{OneFile, file_of, limits, open, schema};
use crate::scan::{Bound, Value};

/// The value of a row as bounds speak it; `None` for NULL and for types without bounds.
fn value(array: &dyn Array, sql_type: &SqlType, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match sql_type {
        SqlType::Bool => Value::Int(array.as_boolean().value(row).into()),
        SqlType::Int2 => Value::Int(array.as_primitive::<Int16Type>().value(row).into()),
        SqlType::Int4 => Value::Int(array.as_primitive::<Int32Type>().value(row).into()),
        SqlType::Int8 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        SqlType::Date => Value::Int(array.as_primitive::<Date32Type>().value(row).into()),
        SqlType::Time => Value::Int(array.as_primitive::<Time64MicrosecondType>().value(row)),
        SqlType::Timestamp | SqlType::Timestamptz => {
            Value::Int(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        SqlType::Float4 => Value::Float(array.as_primitive::<Float32Type>().value(row).into()),
        SqlType::Float8 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        SqlType::Numeric(_) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_) => {
            Value::Bytes(array.as_string::<i32>().value(row).as_bytes().to_vec())
        }
        SqlType::Bytea => Value::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        SqlType::Uuid => Value::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) => return None,
    })
}

/// `low <= high` as PostgreSQL and as IEEE see it: true when either does.
fn at_most(low: &Value, high: &Value) -> bool {
    match (low, high) {
        (Value::Int(low), Value::Int(high)) => low <= high,
        (Value::Decimal(low), Value::Decimal(high)) => low <= high,
        (Value::Bytes(low), Value::Bytes(high)) => low <= high,
        (Value::Float(low), Value::Float(high)) => low <= high || high.is_nan() || low.total_cmp(high).is_le(),
        _ => unreachable!("values of one column have one kind"),
    }
}

fn lies_in(value: &Value, bound: &Bound) -> bool {
    bound.min.as_ref().is_none_or(|min| at_most(min, value)) && bound.max.as_ref().is_none_or(|max| at_most(value, max))
}

#[test]
fn no_row_that_lies_within_its_bounds_is_pruned() {
    let types: Vec<SqlType> = rows::all_types()
        .into_iter()
        .filter(|t| !matches!(t, SqlType::Array(_) | SqlType::Interval | SqlType::Jsonb))
        .collect();
    let table = schema(&types);
    let mut pruned = 0;
    for seed in 0..40 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let batch = rows::batch(&mut random, &table, 200);
        let disk = OneFile::new(file_of(&table, vec![SegmentRows { batch: batch.clone(), commits: None }], limits(20)));
        let reader = open(&disk);
        for _ in 0..200 {
            let bounds: Vec<Bound> = (0..random.random_range(1..3))
                .map(|_| {
                    let column = random.random_range(0..types.len());
                    let mut side = || {
                        let row = random.random_range(0..200);
                        random.random_ratio(2, 3).then(|| value(batch.column(column), &types[column], row)).flatten()
                    };
                    Bound { column, min: side(), max: side() }
                })
                .collect();
            let kept = reader.prune(&table, &bounds);
            pruned += reader.row_groups().len() - kept.len();
            for row in 0..200 {
                let matches = bounds.iter().all(|bound| {
                    if bound.min.is_none() && bound.max.is_none() {
                        return true;
                    }
                    value(batch.column(bound.column), &types[bound.column], row).is_some_and(|v| lies_in(&v, bound))
                });
                assert!(!matches || kept.contains(&(row / 20)), "seed {seed}, row {row}, {bounds:?}");
            }
        }
    }
    assert!(pruned > 1_000, "pruning does prune: {pruned}");
}

#[test]
fn only_row_groups_in_the_range_are_kept() {
    let table = schema(&[SqlType::Int8]);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..100).map(|n| (n < 90).then_some(n))));
    let batch = RecordBatch::try_new(table.arrow(), vec![numbers]).unwrap();
    let reader = open(&OneFile::new(file_of(&table, vec![SegmentRows { batch, commits: None }], limits(10))));
    let kept = |min: Option<i64>, max: Option<i64>| {
        reader.prune(&table, &[Bound { column: 0, min: min.map(Value::Int), max: max.map(Value::Int) }])
    };
    assert_eq!(kept(Some(20), Some(40)), [2, 3, 4]);
    assert_eq!(kept(Some(85), None), [8]);
    assert_eq!(kept(None, Some(-1)), Vec::<usize>::new());
    assert_eq!(kept(None, None).len(), 10, "a bound without sides is met by NULL too");
    assert_eq!(reader.prune(&table, &[]).len(), 10);
    let held = |lists: &[&[i64]]| -> Vec<usize> {
        let point = |number: &i64| {
            let end = Some(Value::Int(*number));
            Bound { column: 0, min: end.clone(), max: end }
        };
        let any_of: Vec<Vec<Bound>> = lists.iter().map(|list| list.iter().map(point).collect()).collect();
        (0..10).filter(|at| reader.may_hold(*at, &table, &any_of)).collect()
    };
    assert_eq!(held(&[&[15, 71]]), [1, 7], "what lies between them is not read");
    assert_eq!(held(&[&[15, 71], &[19, 33]]), [1]);
    assert_eq!(held(&[&[15], &[71]]), Vec::<usize>::new());
    assert_eq!(held(&[]).len(), 10);

    let mut later = schema(&[SqlType::Int8, SqlType::Int8]);
    later.columns[1].id = meridian_proto::ids::ColumnId(8);
    let bound = Bound { column: 1, min: Some(Value::Int(0)), max: None };
    assert!(reader.prune(&later, &[bound]).is_empty(), "a column that the file does not have is NULL");
}
