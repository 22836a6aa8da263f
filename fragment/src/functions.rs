//! The functions that a fragment may name: DataFusion's own and the hyperfunctions. Both ends have the same list.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::execution::SessionStateDefaults;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionConfig;

struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
}

// Later ones win: a hyperfunction replaces DataFusion's function of its name.
static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions { scalar: HashMap::new(), aggregate: HashMap::new() };
    let scalar = SessionStateDefaults::default_scalar_functions().into_iter();
    for function in scalar.chain(meridian_hyperfunctions::scalar_functions()) {
        for alias in function.aliases() {
            functions.scalar.insert(alias.clone(), Arc::clone(&function));
        }
        functions.scalar.insert(function.name().to_owned(), function);
    }
    let aggregate = SessionStateDefaults::default_aggregate_functions().into_iter();
    for function in aggregate.chain(meridian_hyperfunctions::aggregate_functions()) {
        for alias in function.aliases() {
            functions.aggregate.insert(alias.clone(), Arc::clone(&function));
        }
        functions.aggregate.insert(function.name().to_owned(), function);
    }
    functions
});

/// Whether a shard knows exactly this function: by name, and with the same options inside.
#[must_use]
pub fn is_known_scalar(function: &ScalarUDF) -> bool {
    FUNCTIONS.scalar.get(function.name()).is_some_and(|known| known.as_ref() == function)
}

/// Whether a shard knows exactly this aggregate, or the one that this is a variant of for rows that come in order.
///
/// What travels is the name: the shard takes the aggregate that puts the rows in order itself, to the same result.
#[must_use]
pub fn is_known_aggregate(function: &AggregateUDF) -> bool {
    let Some(known) = FUNCTIONS.aggregate.get(function.name()) else { return false };
    known.as_ref() == function || in_order(known).is_some_and(|variant| variant == *function)
}

/// What the optimizer replaces an aggregate with when its input has the order of its ORDER BY.
fn in_order(function: &AggregateUDF) -> Option<AggregateUDF> {
    function.clone().with_beneficial_ordering(true).ok().flatten()
}

/// A context that knows the functions, for decoding.
pub(crate) fn context(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> TaskContext {
    TaskContext::new(
        None,
        "fragment".to_owned(),
        config,
        FUNCTIONS.scalar.clone(),
        HashMap::new(),
        FUNCTIONS.aggregate.clone(),
        HashMap::new(),
        runtime,
    )
}
