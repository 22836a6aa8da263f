//! The compression settings of a hypertable: what `ALTER TABLE ... SET (timescaledb.compress ...)` asks for, and what it
//! comes to. Rules, messages and SQLSTATEs are TimescaleDB 2.13's (`tsl/src/compression/create.c`).

use crate::ids::ColumnId;
use crate::refusal::Refusal;
use crate::schema::TableSchema;

/// How the rows of compressed chunks lie. The time column is always among `order_by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    pub segment_by: Vec<ColumnId>,
    pub order_by: Vec<OrderBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderBy {
    pub column: ColumnId,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What a user asks for, by names. `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompressionChange {
    pub segment_by: Option<Vec<String>>,
    pub order_by: Option<Vec<OrderByName>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderByName {
    pub column: String,
    pub descending: bool,
    pub nulls_first: bool,
}

/// Settings that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompressionError {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<&'static str>,
    pub hint: Option<&'static str>,
}

impl From<CompressionError> for Refusal {
    fn from(error: CompressionError) -> Self {
        let hint = error.hint.map(str::to_owned);
        Self::Catalog { sqlstate: error.sqlstate.to_owned(), message: error.message, hint }
    }
}

impl OrderBy {
    /// The order of a hypertable whose user said nothing: the newest row first.
    #[must_use]
    pub fn newest_first(time: ColumnId) -> Self {
        Self { column: time, descending: true, nulls_first: true }
    }
}

impl Compression {
    /// The settings after a change.
    ///
    /// # Errors
    /// Columns that are not there, twice, or in both lists; a list that was set before and is not said now.
    pub fn changed(
        before: Option<&Self>,
        change: &CompressionChange,
        schema: &TableSchema,
        time: ColumnId,
    ) -> Result<Self, CompressionError> {
        let segment_by = segment_by(change.segment_by.as_deref().unwrap_or_default(), schema)?;
        let order_by = order_by(change.order_by.as_deref().unwrap_or_default(), schema, time, &segment_by)?;
        let after = Self { segment_by, order_by };
        if let Some(before) = before {
            before.check_said(change, &after)?;
        }
        Ok(after)
    }

    /// A list that was set must be said again: left out, it could mean "as it is" or "empty".
    fn check_said(&self, change: &CompressionChange, after: &Self) -> Result<(), CompressionError> {
        let unsaid = |message: &str, detail| CompressionError {
            sqlstate: "0A000",
            message: message.to_owned(),
            detail: Some(detail),
            hint: None,
        };
        // The default order may be left out again.
        let same_order = |order: &[OrderBy]| order.iter().map(|by| (by.column, by.descending)).collect::<Vec<_>>();
        if change.order_by.is_none() && same_order(&self.order_by) != same_order(&after.order_by) {
            return Err(unsaid(
                "must specify a column to order by",
                "The timescaledb.compress_orderby option was previously set and must also be specified in the updated \
                 configuration.",
            ));
        }
        if change.segment_by.is_none() && !self.segment_by.is_empty() {
            return Err(unsaid(
                "must specify a column to segment by",
                "The timescaledb.compress_segmentby option was previously set and must also be specified in the updated \
                 configuration.",
            ));
        }
        Ok(())
    }
}

fn segment_by(names: &[String], schema: &TableSchema) -> Result<Vec<ColumnId>, CompressionError> {
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let column = column(name, schema, "The timescaledb.compress_segmentby option must reference a valid column.")?;
        if columns.contains(&column) {
            let hint = "The timescaledb.compress_segmentby option must reference distinct column.";
            return Err(refused(format!("duplicate column name \"{name}\""), hint));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn order_by(
    names: &[OrderByName],
    schema: &TableSchema,
    time: ColumnId,
    segment_by: &[ColumnId],
) -> Result<Vec<OrderBy>, CompressionError> {
    let mut order: Vec<OrderBy> = Vec::with_capacity(names.len() + 1);
    for OrderByName { column: name, descending, nulls_first } in names {
        let column = column(name, schema, "The timescaledb.compress_orderby option must reference a valid column.")?;
        if order.iter().any(|by| by.column == column) {
            let hint = "The timescaledb.compress_orderby option must reference distinct column.";
            return Err(refused(format!("duplicate column name \"{name}\""), hint));
        }
        order.push(OrderBy { column, descending: *descending, nulls_first: *nulls_first });
    }
    if order.iter().all(|by| by.column != time) {
        order.push(OrderBy::newest_first(time));
    }
    // TimescaleDB lets the time column be segmented by; every row would be a series of its own.
    match order.iter().find(|by| segment_by.contains(&by.column)) {
        Some(by) => {
            let name = schema.column(by.column).map_or("", |column| &column.name);
            let hint = "Use separate columns for the timescaledb.compress_orderby and timescaledb.compress_segmentby \
                        options.";
            Err(refused(format!("cannot use column \"{name}\" for both ordering and segmenting"), hint))
        }
        None => Ok(order),
    }
}

fn column(name: &str, schema: &TableSchema, hint: &'static str) -> Result<ColumnId, CompressionError> {
    let found = schema.columns.iter().find(|column| column.name == name);
    found.map(|column| column.id).ok_or_else(|| refused(format!("column \"{name}\" does not exist"), hint))
}

fn refused(message: String, hint: &'static str) -> CompressionError {
    CompressionError { sqlstate: "42601", message, detail: None, hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SchemaVersion;
    use crate::schema::Column;
    use crate::types::SqlType;

    const TIME: ColumnId = ColumnId(1);

    fn schema() -> TableSchema {
        let column = |id, name: &str, sql_type| Column {
            id: ColumnId(id),
            name: name.to_owned(),
            sql_type,
            not_null: false,
            default: None,
            modifier: None,
        };
        let columns = vec![
            column(1, "time", SqlType::Timestamptz),
            column(2, "host", SqlType::Text),
            column(3, "rack", SqlType::Int4),
        ];
        TableSchema { version: SchemaVersion(1), columns }
    }

    fn by(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn order(names: &[&str]) -> Option<Vec<OrderByName>> {
        let ascending = |name: &&str| OrderByName { column: (*name).to_owned(), descending: false, nulls_first: false };
        Some(names.iter().map(ascending).collect())
    }

    fn change(
        before: Option<&Compression>,
        segment_by: Option<Vec<String>>,
        order_by: Option<Vec<OrderByName>>,
    ) -> Result<Compression, CompressionError> {
        Compression::changed(before, &CompressionChange { segment_by, order_by }, &schema(), TIME)
    }

    #[test]
    fn the_time_column_is_always_in_the_order() {
        let plain = change(None, None, None).unwrap();
        assert_eq!(plain, Compression { segment_by: vec![], order_by: vec![OrderBy::newest_first(TIME)] });
        let by_rack = change(None, by(&["host"]), order(&["rack"])).unwrap();
        assert_eq!(by_rack.segment_by, [ColumnId(2)]);
        let rack = OrderBy { column: ColumnId(3), descending: false, nulls_first: false };
        assert_eq!(by_rack.order_by, [rack, OrderBy::newest_first(TIME)]);
        let by_time = change(None, None, order(&["time"])).unwrap();
        assert_eq!(by_time.order_by, [OrderBy { column: TIME, descending: false, nulls_first: false }]);
    }

    #[test]
    fn columns_that_cannot_be_are_named() {
        let check = |segment_by, order_by, message: &str| {
            let error = change(None, segment_by, order_by).unwrap_err();
            assert_eq!((error.sqlstate, error.message.as_str()), ("42601", message));
        };
        check(by(&["nothing"]), None, "column \"nothing\" does not exist");
        check(None, order(&["nothing"]), "column \"nothing\" does not exist");
        check(by(&["host", "host"]), None, "duplicate column name \"host\"");
        check(None, order(&["rack", "rack"]), "duplicate column name \"rack\"");
        check(by(&["host"]), order(&["host"]), "cannot use column \"host\" for both ordering and segmenting");
        check(by(&["time"]), None, "cannot use column \"time\" for both ordering and segmenting");
    }

    #[test]
    fn a_list_that_was_set_must_be_said_again() {
        let before = change(None, by(&["host"]), order(&["rack"])).unwrap();
        let check = |segment_by, order_by, expected: Result<(), &str>| {
            let after = change(Some(&before), segment_by, order_by);
            assert_eq!(after.map(|_| ()).map_err(|error| error.message), expected.map_err(str::to_owned));
        };
        check(by(&["host"]), None, Err("must specify a column to order by"));
        check(None, order(&["rack"]), Err("must specify a column to segment by"));
        check(by(&[]), order(&[]), Ok(()));
        let plain = change(None, None, None).unwrap();
        assert_eq!(change(Some(&plain), None, None), Ok(plain.clone()), "the default is known");
    }
}
