//! SQL functions as a DataFusion library that knows nothing of the cluster: what a gateway and a shard both evaluate,
//! and must evaluate alike. Time-series functions under their TimescaleDB names, and PostgreSQL's arithmetic where
//! DataFusion's differs.
//!
//! Modules in order; each uses only those above it.

pub mod zone;

pub mod arithmetic;
mod arrays;
mod bucket;
mod bytes;
mod ends;
mod make;
pub mod parts;
mod rounding;
mod sums;
pub mod texts;
mod time_bucket;
pub mod times;
mod truncate;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Functions of one row. Some take the place of DataFusion's of that name.
#[must_use]
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![Arc::new(ScalarUDF::from(time_bucket::TimeBucket::default()))];
    functions.extend(arithmetic::functions());
    functions.extend(arrays::functions());
    functions.extend(bytes::functions());
    functions.extend(make::functions());
    functions.extend(parts::functions());
    functions.extend(rounding::functions());
    functions.extend(texts::functions());
    functions.extend(times::functions());
    functions.extend(truncate::functions());
    functions
}

/// Aggregates. `sum` and `avg` take the place of DataFusion's.
#[must_use]
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::from(ends::EndValue::first())),
        Arc::new(AggregateUDF::from(ends::EndValue::last())),
        Arc::new(AggregateUDF::from(sums::Sum::default())),
        Arc::new(AggregateUDF::from(sums::Avg::default())),
    ]
}
