//! SQL functions as a DataFusion library that knows nothing of the cluster: what a gateway and a shard both evaluate,
//! and must evaluate alike. Time-series functions under their TimescaleDB names, and PostgreSQL's arithmetic where
//! DataFusion's differs.
//!
//! Modules in order; each uses only those above it.

pub mod failures;
pub mod made;
pub mod zone;

mod form;

mod ages;
pub mod arithmetic;
mod arrays;
mod averages;
pub mod bounded;
mod bucket;
mod bytes;
mod dates;
mod ends;
mod extremes;
mod make;
mod mathematics;
mod md5;
pub mod modifiers;
mod numbers;
pub mod parts;
mod patterns;
mod quoting;
mod rounding;
mod strings;
mod substrings;
mod sums;
mod templates;
pub mod texts;
mod time_bucket;
pub mod times;
mod truncate;
mod wide_sums;
mod width_bucket;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Functions of one row. Some take the place of DataFusion's of that name.
#[must_use]
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![Arc::new(ScalarUDF::from(time_bucket::TimeBucket::default()))];
    functions.extend(ages::functions());
    functions.extend(arithmetic::functions());
    functions.extend(arrays::functions());
    functions.extend(bounded::functions());
    functions.extend(bytes::functions());
    functions.extend(dates::functions());
    functions.extend(make::functions());
    functions.extend(mathematics::functions());
    functions.extend(modifiers::functions());
    functions.extend(numbers::functions());
    functions.extend(parts::functions());
    functions.extend(patterns::functions());
    functions.extend(quoting::functions());
    functions.extend(rounding::functions());
    functions.extend(strings::functions());
    functions.extend(substrings::functions());
    functions.extend(templates::functions());
    functions.extend(texts::functions());
    functions.extend(times::functions());
    functions.extend(truncate::functions());
    functions.extend(width_bucket::functions());
    functions
}

/// One of them by its name.
#[must_use]
pub fn scalar_function(name: &str) -> Option<Arc<ScalarUDF>> {
    static BY_NAME: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
        scalar_functions().into_iter().map(|function| (function.name().to_owned(), function)).collect()
    });
    BY_NAME.get(name).map(Arc::clone)
}

/// Aggregates. `max`, `min`, `sum` and `avg` take the place of DataFusion's.
#[must_use]
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::from(ends::EndValue::first())),
        Arc::new(AggregateUDF::from(ends::EndValue::last())),
        Arc::new(AggregateUDF::from(extremes::Max::default())),
        Arc::new(AggregateUDF::from(extremes::Min::default())),
        Arc::new(AggregateUDF::from(sums::Sum::default())),
        Arc::new(AggregateUDF::from(sums::Avg::default())),
    ]
}
