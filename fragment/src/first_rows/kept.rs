//! The first rows of the keys that were seen so far. Batches of which every row is one are held as they came; of others
//! their first rows are copied, so that no large batch is held for the sake of a few rows.

use std::mem;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, interleave_record_batch, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::KeySort;

/// Rows that are first no longer, beyond as many as there are first ones, and batches, before both are packed.
const STALE_ROWS_MAX: usize = 1024;
const BATCHES_MAX: usize = 256;
/// Rows that lie together and are as many leave without being copied.
const WHOLE_ROWS_MIN: usize = 128;
/// Rows of a packed batch.
const PACKED_ROWS: usize = 8192;

/// Where a row lies among the batches that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    batch: u32,
    row: u32,
}

impl Place {
    /// Of a key that is new.
    const NONE: Self = Self { batch: u32::MAX, row: u32::MAX };
}

struct Held {
    rows: RecordBatch,
    /// Each row's place in the order, as bytes. `None` when there is none.
    ranks: Option<Rows>,
}

impl Held {
    fn size_bytes(&self) -> usize {
        let column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
        let columns: usize = self.rows.columns().iter().map(column).sum();
        columns + self.ranks.as_ref().map_or(0, Rows::size)
    }
}

pub(super) struct Kept {
    schema: SchemaRef,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Order,
    sorted_by: Vec<KeySort>,
    groups: Box<dyn GroupValues>,
    /// The key of each row of the batch at hand.
    group_of: Vec<usize>,
    /// Of each key's first row.
    places: Vec<Place>,
    held: Vec<Held>,
    held_bytes: usize,
    stale_rows: usize,
}

impl Kept {
    pub fn try_new(
        schema: SchemaRef,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        sorted_by: Vec<KeySort>,
    ) -> Result<Self> {
        let groups = groups_of(&keys, &schema)?;
        let order = Order::try_new(order, &schema)?;
        Ok(Self {
            schema,
            keys,
            order,
            sorted_by,
            groups,
            group_of: Vec::new(),
            places: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            stale_rows: 0,
        })
    }

    /// Keys, which is as many as there are first rows.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    pub fn size_bytes(&self) -> usize {
        self.held_bytes + self.groups.size() + self.places.capacity() * size_of::<Place>()
    }

    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let value = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let keys: Vec<ArrayRef> = self.keys.iter().map(value).collect::<Result<_>>()?;
        self.groups.intern(&keys, &mut self.group_of)?;
        let ranks = self.order.ranks(batch)?;
        let moved = self.choose(ranks.as_ref());
        self.hold(batch, ranks, moved)?;
        let rows = self.places.len();
        if self.stale_rows > rows + STALE_ROWS_MAX || self.held.len() > BATCHES_MAX + 2 * rows / PACKED_ROWS {
            self.pack()?;
        }
        Ok(())
    }

    /// Gives all first rows away and begins anew.
    pub fn take(&mut self) -> Result<Leaving> {
        let places = self.places_in_order()?;
        let held = mem::take(&mut self.held).into_iter().map(|held| held.rows).collect();
        (self.held_bytes, self.stale_rows) = (0, 0);
        self.groups = groups_of(&self.keys, &self.schema)?;
        Ok(Leaving { held, places, next: 0 })
    }

    /// Of all first rows, sorted by keys or as they lie.
    fn places_in_order(&mut self) -> Result<Vec<Place>> {
        let mut places = mem::take(&mut self.places);
        if self.sorted_by.is_empty() || places.is_empty() {
            places.sort_unstable();
            return Ok(places);
        }
        let keys = self.groups.emit(EmitTo::All)?;
        let column = |sort: &KeySort| SortColumn { values: Arc::clone(&keys[sort.key]), options: Some(sort.options) };
        let columns: Vec<SortColumn> = self.sorted_by.iter().map(column).collect();
        let groups = lexsort_to_indices(&columns, None)?;
        Ok(groups.values().iter().map(|group| places[*group as usize]).collect())
    }

    /// Finds the keys whose first row is in the batch at hand, which will be the next one that is held.
    fn choose(&mut self, ranks: Option<&Rows>) -> Vec<usize> {
        let here = self.held.len() as u32;
        self.places.resize(self.groups.len(), Place::NONE);
        let mut moved = Vec::new();
        for (row, group) in self.group_of.iter().enumerate() {
            let known = self.places[*group];
            let is_first = known == Place::NONE
                || ranks.is_some_and(|ranks| {
                    let best =
                        if known.batch == here { Some(ranks) } else { self.held[known.batch as usize].ranks.as_ref() };
                    best.is_some_and(|best| ranks.row(row) < best.row(known.row as usize))
                });
            if !is_first {
                continue;
            }
            if known.batch != here {
                moved.push(*group);
                self.stale_rows += usize::from(known != Place::NONE);
            }
            self.places[*group] = Place { batch: here, row: row as u32 };
        }
        moved
    }

    fn hold(&mut self, batch: &RecordBatch, ranks: Option<Rows>, mut moved: Vec<usize>) -> Result<()> {
        let held = if moved.len() == batch.num_rows() {
            Held { rows: batch.clone(), ranks }
        } else if moved.is_empty() {
            return Ok(());
        } else {
            moved.sort_unstable_by_key(|group| self.places[*group].row);
            let rows: UInt32Array = moved.iter().map(|group| self.places[*group].row).collect();
            for (row, group) in moved.iter().enumerate() {
                self.places[*group].row = row as u32;
            }
            let ranks = ranks.map(|ranks| self.order.gather(rows.values().iter().map(|row| (&ranks, *row))));
            Held { rows: take_record_batch(batch, &rows)?, ranks: ranks.flatten() }
        };
        self.held_bytes += held.size_bytes();
        self.held.push(held);
        Ok(())
    }

    /// Copies the first rows into as few batches as they fill.
    fn pack(&mut self) -> Result<()> {
        let mut groups: Vec<usize> = (0..self.places.len()).collect();
        groups.sort_unstable_by_key(|group| self.places[*group]);
        let mut packed = Vec::with_capacity(groups.len() / PACKED_ROWS + 1);
        for groups in groups.chunks(PACKED_ROWS) {
            let places: Vec<Place> = groups.iter().map(|group| self.places[*group]).collect();
            let ranks =
                places.iter().filter_map(|place| Some((self.held[place.batch as usize].ranks.as_ref()?, place.row)));
            let ranks = self.order.gather(ranks);
            let held: Vec<&RecordBatch> = self.held.iter().map(|held| &held.rows).collect();
            packed.push(Held { rows: gather(&held, &places)?, ranks });
        }
        for (at, group) in groups.into_iter().enumerate() {
            self.places[group] = Place { batch: (at / PACKED_ROWS) as u32, row: (at % PACKED_ROWS) as u32 };
        }
        self.held_bytes = packed.iter().map(Held::size_bytes).sum();
        self.held = packed;
        self.stale_rows = 0;
        Ok(())
    }
}

fn groups_of(keys: &[Arc<dyn PhysicalExpr>], schema: &Schema) -> Result<Box<dyn GroupValues>> {
    let field = |(index, key): (usize, &Arc<dyn PhysicalExpr>)| {
        Ok(Field::new(index.to_string(), key.data_type(schema)?, key.nullable(schema)?))
    };
    let fields: Vec<Field> = keys.iter().enumerate().map(field).collect::<Result<_>>()?;
    new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)
}

/// The order within a key. Ranks are bytes that compare as rows do.
struct Order {
    sorts: Vec<PhysicalSortExpr>,
    converter: Option<RowConverter>,
}

impl Order {
    fn try_new(sorts: Vec<PhysicalSortExpr>, schema: &Schema) -> Result<Self> {
        let field =
            |sort: &PhysicalSortExpr| Ok(SortField::new_with_options(sort.expr.data_type(schema)?, sort.options));
        let fields: Vec<SortField> = sorts.iter().map(field).collect::<Result<_>>()?;
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { sorts, converter })
    }

    fn ranks(&self, batch: &RecordBatch) -> Result<Option<Rows>> {
        let Some(converter) = &self.converter else { return Ok(None) };
        let value = |sort: &PhysicalSortExpr| sort.expr.evaluate(batch)?.into_array(batch.num_rows());
        let columns: Vec<ArrayRef> = self.sorts.iter().map(value).collect::<Result<_>>()?;
        Ok(Some(converter.convert_columns(&columns)?))
    }

    fn gather<'a>(&self, ranks: impl Iterator<Item = (&'a Rows, u32)>) -> Option<Rows> {
        let mut gathered = self.converter.as_ref()?.empty_rows(0, 0);
        ranks.for_each(|(ranks, row)| gathered.push(ranks.row(row as usize)));
        Some(gathered)
    }
}

/// First rows on their way out.
#[derive(Default)]
pub(super) struct Leaving {
    held: Vec<RecordBatch>,
    places: Vec<Place>,
    next: usize,
}

impl Leaving {
    pub fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>> {
        let upto = self.next + self.rows_at_once(rows_max);
        if self.next == upto {
            *self = Self::default();
            return Ok(None);
        }
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        let batch = gather(&held, &self.places[self.next..upto])?;
        self.next = upto;
        Ok(Some(batch))
    }
}

impl Leaving {
    /// A whole batch leaves as it is, so that nothing of it is copied.
    fn rows_at_once(&self, rows_max: usize) -> usize {
        let left = &self.places[self.next..];
        let whole = left.chunk_by(|a, b| a.batch == b.batch && a.row + 1 == b.row).next().map_or(0, <[Place]>::len);
        if (WHOLE_ROWS_MIN..=rows_max).contains(&whole) { whole } else { left.len().min(rows_max) }
    }
}

/// The rows at `places`.
fn gather(held: &[&RecordBatch], places: &[Place]) -> Result<RecordBatch> {
    let follows = |a: &Place, b: &Place| a.batch == b.batch && a.row + 1 == b.row;
    let slice = |run: &[Place]| held[run[0].batch as usize].slice(run[0].row as usize, run.len());
    let runs: Vec<&[Place]> = places.chunk_by(follows).collect();
    if let [run] = runs[..] {
        return Ok(slice(run));
    }
    // Whole runs are copied faster than rows.
    if places.len() >= runs.len() * 8 {
        let slices: Vec<RecordBatch> = runs.into_iter().map(slice).collect();
        return Ok(concat_batches(&held[0].schema(), &slices)?);
    }
    let rows: Vec<(usize, usize)> = places.iter().map(|place| (place.batch as usize, place.row as usize)).collect();
    Ok(interleave_record_batch(held, &rows)?)
}
