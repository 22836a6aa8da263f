//! Plans that are kept from one statement to the next. A dashboard asks the same again and again with other times and
//! hosts; of that a gateway keeps the plan with holes in it ([`Template`]) and fills them.
//!
//! It is found by the shape of the text, by the constants that are not holes, and by what of the session planning looks at.
//! Whether it still holds is decided by the tables that it reads, in the statement's own view of the catalog. Whatever does
//! not go well on this way is no error: the statement is planned as if nothing had been kept.

mod template;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::Array;
use datafusion::scalar::ScalarValue;
use meridian_pgtypes::ByteaOutput;
use meridian_proto::SqlType;

pub(crate) use self::template::{Asked, Shape, Tables, Template};
use crate::exec::catalog::StatementCatalog;
use crate::outcome::OutputColumn;
use crate::sql::cut::Cut;
use crate::sql::environment::Environment;
use crate::sql::holes::Number;

/// Shapes of queries that are kept.
const SHAPES_MAX: usize = 500;
/// Plans of one shape: other settings, other constants that are not holes.
const TEMPLATES_PER_SHAPE_MAX: usize = 20;
/// Of all plans, as [`Template::size_bytes`] estimates them, and of what they are found by.
const BYTES_MAX: usize = 64 << 20;
/// What tells plans of one shape apart; a statement with larger constants or parameters is planned each time.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Texts that were seen once; 8 bytes each, twice.
const SEEN_MAX: usize = 4096;
/// After so many plans of a shape that could not be kept, no more are tried.
const FAILURES_MAX: u8 = 3;

/// One per gateway.
#[derive(Default)]
pub struct PlanCache {
    state: RwLock<State>,
    hasher: RandomState,
    clock: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct State {
    shapes: HashMap<Box<str>, Known>,
    bytes: usize,
    seen: Seen,
}

/// A shape that was met more than once.
#[derive(Default)]
struct Known {
    /// `None`: it was never planned with holes.
    shape: Option<Arc<Shape>>,
    templates: HashMap<Box<[u8]>, Kept>,
    /// Of prepared statements. They go with the shape.
    descriptions: HashMap<Box<[u8]>, Arc<Description>>,
    failures: u8,
    used: AtomicU64,
}

struct Kept {
    template: Arc<Template>,
    used: AtomicU64,
}

/// Remembers the newest hashes.
#[derive(Default)]
struct Seen {
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

/// What a client is told of a prepared statement.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub tables: Tables,
    pub parameters: Vec<SqlType>,
    pub columns: Vec<OutputColumn>,
}

/// What the cache knows about a statement.
pub(crate) enum Lookup {
    Kept(Arc<Template>),
    /// It comes again and again, but there is no plan of it that holds.
    Worth,
    New,
}

/// What the cache did since the gateway started, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCacheFigures {
    /// Statements that used a kept plan.
    pub hits: u64,
    /// Statements that could have, had there been one.
    pub misses: u64,
    pub templates: u64,
    pub bytes: u64,
}

impl PlanCache {
    /// Whether there are plans of this shape, so that its tree need not be read.
    pub(crate) fn has_plans_of(&self, cut: &Cut) -> bool {
        self.read().shapes.get(cut.shape()).is_some_and(|known| !known.templates.is_empty())
    }

    pub(crate) fn find(&self, asked: &Asked) -> Lookup {
        let found = self.look(asked);
        let counter = if matches!(found, Lookup::Kept(_)) { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn look(&self, asked: &Asked) -> Lookup {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let key = {
            let state = self.read();
            let Some(known) = state.shapes.get(asked.cut.shape()) else {
                drop(state);
                return self.see(asked.cut.shape().as_bytes(), &[]);
            };
            known.used.store(now, Ordering::Relaxed);
            if known.failures >= FAILURES_MAX {
                return Lookup::New;
            }
            let Some(shape) = &known.shape else { return Lookup::Worth };
            let Some(key) = key_of_values(shape, asked) else { return Lookup::New };
            if let Some(kept) = known.templates.get(key.as_slice()) {
                kept.used.store(now, Ordering::Relaxed);
                return if kept.template.holds(asked.catalog) {
                    Lookup::Kept(Arc::clone(&kept.template))
                } else {
                    Lookup::Worth
                };
            }
            key
        };
        self.see(asked.cut.shape().as_bytes(), &key)
    }

    /// The first time is remembered; a second one is worth a plan that is kept.
    fn see(&self, shape: &[u8], key: &[u8]) -> Lookup {
        let hash = self.hasher.hash_one((shape, key));
        if self.write().seen.insert(hash) { Lookup::New } else { Lookup::Worth }
    }

    /// Keeps a plan in place of what there was of it.
    pub(crate) fn keep(&self, asked: &Asked, shape: Shape, template: &Arc<Template>) {
        let Some(key) = key_of_values(&shape, asked) else { return };
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.write().change(asked.cut.shape(), now, |known| {
            if known.shape.as_deref() != Some(&shape) {
                *known = Known { shape: Some(Arc::new(shape)), ..Known::default() };
            }
            known.failures = 0;
            let kept = Kept { template: Arc::clone(template), used: AtomicU64::new(now) };
            known.templates.insert(key.into(), kept);
            if known.templates.len() > TEMPLATES_PER_SHAPE_MAX {
                known.drop_oldest();
            }
        });
    }

    /// What a prepared statement with these declared types of parameters was told to be.
    pub(crate) fn find_description(
        &self,
        cut: &Cut,
        declared: &[Option<SqlType>],
        environment: &Environment,
        catalog: &StatementCatalog,
    ) -> Option<Arc<Description>> {
        let state = self.read();
        let known = state.shapes.get(cut.shape())?;
        let key = key_of_types(known.shape.as_ref()?, cut, declared, environment, catalog)?;
        let found = known.descriptions.get(key.as_slice())?;
        found.tables.hold(catalog).then(|| Arc::clone(found))
    }

    /// Keeps it if its shape is known.
    pub(crate) fn keep_description(
        &self,
        cut: &Cut,
        declared: &[Option<SqlType>],
        environment: &Environment,
        catalog: &StatementCatalog,
        description: Description,
    ) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut state = self.write();
        let shape = state.shapes.get(cut.shape()).and_then(|known| known.shape.clone());
        let key = shape.and_then(|shape| key_of_types(&shape, cut, declared, environment, catalog));
        let Some(key) = key else { return };
        state.change(cut.shape(), now, |known| {
            if known.descriptions.len() >= TEMPLATES_PER_SHAPE_MAX {
                known.descriptions.clear();
            }
            known.descriptions.insert(key.into(), Arc::new(description));
        });
    }

    /// A plan could not be made or filled, while the statement itself was planned well.
    pub(crate) fn note_failure(&self, asked: &Asked) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.write().change(asked.cut.shape(), now, |known| {
            known.failures = known.failures.saturating_add(1);
            if known.failures >= FAILURES_MAX {
                *known = Known { failures: known.failures, ..Known::default() };
            }
        });
    }

    pub fn figures(&self) -> PlanCacheFigures {
        let state = self.read();
        let templates = state.shapes.values().map(|known| known.templates.len() as u64).sum();
        let bytes = state.bytes as u64;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PlanCacheFigures { hits: of(&self.hits), misses: of(&self.misses), templates, bytes }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Changes what is known of a shape, and lets go what was not used for longest until all bounds hold.
    fn change(&mut self, shape: &str, now: u64, change: impl FnOnce(&mut Known)) {
        let mut known = self.remove(shape).unwrap_or_default();
        change(&mut known);
        known.used = AtomicU64::new(now);
        self.bytes += known.size_bytes(shape);
        self.shapes.insert(shape.into(), known);
        while self.shapes.len() > SHAPES_MAX || self.bytes > BYTES_MAX {
            let oldest = self.shapes.iter().min_by_key(|(_, known)| known.used.load(Ordering::Relaxed));
            let Some(shape) = oldest.map(|(shape, _)| shape.clone()) else { return };
            self.remove(&shape);
        }
    }

    fn remove(&mut self, shape: &str) -> Option<Known> {
        let known = self.shapes.remove(shape)?;
        self.bytes -= known.size_bytes(shape);
        Some(known)
    }
}

impl Known {
    fn drop_oldest(&mut self) {
        let oldest = self.templates.iter().min_by_key(|(_, kept)| kept.used.load(Ordering::Relaxed));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.templates.remove(&key);
        }
    }

    fn size_bytes(&self, shape: &str) -> usize {
        let templates = self.templates.iter().map(|(key, kept)| key.len() + kept.template.size_bytes());
        let descriptions = self.descriptions.iter().map(|(key, description)| key.len() + description.size_bytes());
        shape.len() + size_of::<Self>() + templates.chain(descriptions).sum::<usize>()
    }
}

impl Description {
    /// Estimated.
    fn size_bytes(&self) -> usize {
        let names: usize = self.columns.iter().map(|column| column.name.len()).sum();
        size_of::<Self>() + names + size_of_val(&self.columns[..]) + size_of_val(&self.parameters[..])
    }
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, hash: u64) -> bool {
        if !self.set.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

/// What decides, beside the shape, which plan a statement has. `None`: one that is not kept.
fn key_of_values(shape: &Shape, asked: &Asked) -> Option<Vec<u8>> {
    let mut key = key_of_constants(shape, asked.cut, asked.environment, asked.catalog)?;
    for (index, parameter) in asked.parameters.iter().enumerate() {
        if !shape.is_open_parameter(index) {
            push_value(&mut key, parameter)?;
        } else if parameter.is_null() {
            // NULL is planned by its value.
            return None;
        } else {
            push_text(&mut key, &parameter.data_type().to_string());
        }
    }
    (key.len() <= KEY_BYTES_MAX).then_some(key)
}

/// The same of what it is told to be, while its parameters have no values.
fn key_of_types(
    shape: &Shape,
    cut: &Cut,
    declared: &[Option<SqlType>],
    environment: &Environment,
    catalog: &StatementCatalog,
) -> Option<Vec<u8>> {
    let mut key = key_of_constants(shape, cut, environment, catalog)?;
    for sql_type in declared {
        push_text(&mut key, &sql_type.as_ref().map(ToString::to_string).unwrap_or_default());
    }
    (key.len() <= KEY_BYTES_MAX).then_some(key)
}

fn key_of_constants(
    shape: &Shape,
    cut: &Cut,
    environment: &Environment,
    catalog: &StatementCatalog,
) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(64);
    let format = &environment.format;
    push_text(&mut key, format.time_zone.name());
    key.extend(format.extra_float_digits.to_le_bytes());
    let flags = [format.bytea_output == ByteaOutput::Hex, catalog.searches_public, catalog.leaves];
    key.extend(flags.map(u8::from));
    for (index, constant) in cut.constants().iter().enumerate() {
        match (shape.is_open_constant(index), constant.is_text) {
            (true, true) => {}
            (true, false) => match Number::of(cut.written(index))? {
                Number::Int4 => key.push(1),
                Number::Int8 => key.push(2),
                Number::Numeric(precision, scale) => key.extend([3, precision, scale as u8]),
            },
            (false, _) => push_text(&mut key, cut.written(index)),
        }
    }
    Some(key)
}

/// `None`: a value that its text does not tell.
fn push_value(key: &mut Vec<u8>, value: &ScalarValue) -> Option<()> {
    push_text(key, &value.data_type().to_string());
    match value {
        // In the text of a list NULL is nothing, and an element may read as two.
        ScalarValue::List(list) if list.is_valid(0) => {
            let elements = list.value(0);
            key.push(1);
            key.extend((elements.len() as u64).to_le_bytes());
            (0..elements.len()).try_for_each(|row| push_value(key, &ScalarValue::try_from_array(&elements, row).ok()?))
        }
        value if value.is_null() => {
            key.push(0);
            Some(())
        }
        value if value.data_type().is_nested() => None,
        value => {
            key.push(1);
            push_text(key, &format!("{value:?}"));
            Some(())
        }
    }
}

fn push_text(key: &mut Vec<u8>, text: &str) {
    key.extend((text.len() as u64).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}
