//! What a row group's zone maps say for certain: whether all rows lie within a bound, and exact extremes where the zone
//! holds them. A zone may lie further out than the values; only what is surely a value counts as one.

use meridian_proto::schema::{Column, TableSchema};
use meridian_proto::{ColumnId, SqlType};
use rkyv::option::ArchivedOption;

use super::footer::{ArchivedFooterPage, ArchivedFooterRowGroup};
use super::reader::SegmentReader;
use super::zone::{ArchivedZone, ZONE_BYTES_MAX};
use crate::disk::DiskFile;
use crate::scan::{Bound, Value};
use crate::statistics::{ColumnStatistics, Known, PieceStatistics};

/// The zone maps of one row group.
pub struct ZoneStatistics<'a> {
    columns: &'a [(ColumnId, SqlType)],
    group: &'a ArchivedFooterRowGroup,
}

impl<F: DiskFile> SegmentReader<F> {
    /// Statistics of a row group, whose number comes from this reader.
    pub fn statistics(&self, row_group: usize) -> ZoneStatistics<'_> {
        let footer = self.footer();
        ZoneStatistics { columns: footer.columns(), group: &footer.get().row_groups[row_group] }
    }

    /// The columns by which the rows are sorted before time.
    pub fn segment_by(&self) -> Vec<ColumnId> {
        self.footer().get().segment_by.iter().map(|id| ColumnId(id.to_native())).collect()
    }
}

impl ZoneStatistics<'_> {
    /// Whether every row surely lies within the bound.
    #[must_use]
    pub fn is_within(&self, schema: &TableSchema, bound: &Bound) -> bool {
        if bound.min.is_none() && bound.max.is_none() {
            return true;
        }
        let Some(page) = schema.columns.get(bound.column).and_then(|column| self.page(column)) else { return false };
        page.null_count == 0 && is_within(&page.zone, bound)
    }

    /// The column's page; `None` when the file has no such column, or has it as another type.
    fn page(&self, column: &Column) -> Option<&ArchivedFooterPage> {
        let at = self.columns.iter().position(|(id, _)| *id == column.id)?;
        (self.columns[at].1 == column.sql_type).then(|| &self.group.pages[at])
    }
}

impl PieceStatistics for ZoneStatistics<'_> {
    fn rows(&self) -> u64 {
        self.group.rows.to_native().into()
    }

    fn column(&self, column: &Column) -> Option<ColumnStatistics> {
        let rows = self.rows();
        let all_null = || ColumnStatistics { nulls: rows, min: Known::Null, max: Known::Null, ..Default::default() };
        if !self.columns.iter().any(|(id, _)| *id == column.id) {
            // Added after the file was written: NULL in all of its rows.
            return Some(all_null());
        }
        let page = self.page(column)?;
        let nulls = page.null_count.to_native().into();
        if nulls == rows {
            return Some(all_null());
        }
        let (min, max) = extremes(&page.zone, &column.sql_type);
        Some(ColumnStatistics { nulls, min, max, ..Default::default() })
    }
}

fn is_within(zone: &ArchivedZone, bound: &Bound) -> bool {
    macro_rules! within {
        ($variant:ident, $low:expr, $high:expr) => {{
            let above = match &bound.min {
                None => true,
                Some(Value::$variant(min)) => *min <= $low,
                Some(_) => false,
            };
            let below = match &bound.max {
                None => true,
                Some(Value::$variant(max)) => $high <= *max,
                Some(_) => false,
            };
            above && below
        }};
    }
    match zone {
        ArchivedZone::Int { min, max } => within!(Int, min.to_native(), max.to_native()),
        ArchivedZone::Float { min, max, nan: false } => within!(Float, min.to_native(), max.to_native()),
        ArchivedZone::Decimal { min, max } => within!(Decimal, min.to_native(), max.to_native()),
        ArchivedZone::Bytes { min, max: ArchivedOption::Some(max) } => {
            let above = match &bound.min {
                None => true,
                Some(Value::Bytes(low)) => low.as_slice() <= min.as_slice(),
                Some(_) => false,
            };
            let below = match &bound.max {
                None => true,
                Some(Value::Bytes(high)) => max.as_slice() <= high.as_slice(),
                Some(_) => false,
            };
            above && below
        }
        ArchivedZone::Float { .. } | ArchivedZone::Bytes { max: ArchivedOption::None, .. } | ArchivedZone::Unknown => {
            false
        }
    }
}

/// Least and greatest value, where the zone's ends surely are values.
fn extremes(zone: &ArchivedZone, sql_type: &SqlType) -> (Known, Known) {
    let int = |value: i64| Known::Value(Value::Int(value));
    // A zone holds the first zero that came, SQL's order of the two signs is not kept.
    let float = |value: f64| if value == 0.0 { Known::Unknown } else { Known::Value(Value::Float(value)) };
    let text = |value: &[u8]| {
        if value.len() < ZONE_BYTES_MAX { Known::Value(Value::Bytes(value.to_vec())) } else { Known::Unknown }
    };
    match (zone, sql_type) {
        (_, SqlType::Bool) => (Known::Unknown, Known::Unknown),
        (ArchivedZone::Int { min, max }, _) => (int(min.to_native()), int(max.to_native())),
        (ArchivedZone::Decimal { min, max }, _) => {
            let decimal = |value: i128| Known::Value(Value::Decimal(value));
            (decimal(min.to_native()), decimal(max.to_native()))
        }
        (ArchivedZone::Float { min, max, nan: false }, _) => (float(min.to_native()), float(max.to_native())),
        // Texts end nowhere with a byte that cannot be counted up, so that a cut-off end has its full length.
        (ArchivedZone::Bytes { min, max: ArchivedOption::Some(max) }, SqlType::Text | SqlType::Varchar(_)) => {
            (text(min), text(max))
        }
        _ => (Known::Unknown, Known::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::super::zone::Zone;
    use super::*;

    fn with_zone<T>(zone: &Zone, look: impl FnOnce(&ArchivedZone) -> T) -> T {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(zone).unwrap();
        look(rkyv::access::<ArchivedZone, rkyv::rancor::Error>(&bytes).unwrap())
    }

    fn check_within(zone: &Zone, min: Option<Value>, max: Option<Value>, expected: bool) {
        let bound = Bound { column: 0, min, max };
        assert_eq!(with_zone(zone, |zone| is_within(zone, &bound)), expected, "{zone:?} in {bound:?}");
    }

    #[test]
    fn a_zone_lies_within_a_bound_when_both_ends_do() {
        let int = |value| Some(Value::Int(value));
        let zone = Zone::Int { min: 3, max: 9 };
        check_within(&zone, int(3), int(9), true);
        check_within(&zone, int(4), None, false);
        check_within(&zone, None, int(8), false);
        check_within(&zone, Some(Value::Float(0.0)), None, false);
        check_within(&Zone::Float { min: 1.0, max: 2.0, nan: true }, Some(Value::Float(0.0)), None, false);
        check_within(&Zone::Float { min: 1.0, max: 2.0, nan: false }, Some(Value::Float(f64::NAN)), None, false);
        let bytes = |value: &str| Some(Value::Bytes(value.as_bytes().to_vec()));
        check_within(&Zone::of_bytes(b"a", b"c"), bytes("a"), bytes("c"), true);
        check_within(&Zone::of_bytes(b"a", &[b'x'; 40]), bytes("a"), bytes(&"x".repeat(40)), false);
        check_within(&Zone::Unknown, int(3), None, false);
    }

    #[test]
    fn extremes_are_told_only_where_they_are_values() {
        let check = |zone: &Zone, sql_type: &SqlType, expected: (Known, Known)| {
            assert_eq!(with_zone(zone, |zone| extremes(zone, sql_type)), expected, "{zone:?}");
        };
        let unknown = || (Known::Unknown, Known::Unknown);
        let int = |value| Known::Value(Value::Int(value));
        check(&Zone::Int { min: 3, max: 9 }, &SqlType::Int4, (int(3), int(9)));
        check(&Zone::Int { min: 0, max: 1 }, &SqlType::Bool, unknown());
        let decimal = |value| Known::Value(Value::Decimal(value));
        let numeric = SqlType::Numeric(Some((12, 2)));
        check(&Zone::Decimal { min: -150, max: 1 << 70 }, &numeric, (decimal(-150), decimal(1 << 70)));
        let five = Known::Value(Value::Float(5.0));
        check(&Zone::Float { min: 0.0, max: 5.0, nan: false }, &SqlType::Float8, (Known::Unknown, five));
        check(&Zone::Float { min: 0.0, max: 5.0, nan: true }, &SqlType::Float8, unknown());
        let text = |text: &str| Known::Value(Value::Bytes(text.as_bytes().to_vec()));
        check(&Zone::of_bytes(b"a", &[b'x'; 40]), &SqlType::Text, (text("a"), Known::Unknown));
        check(&Zone::of_bytes(b"a", &[b'x'; 32]), &SqlType::Text, (text("a"), Known::Unknown));
        check(&Zone::of_bytes(b"a", b"b"), &SqlType::Char(3), unknown());
    }
}
