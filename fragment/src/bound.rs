//! Bounds of a column's values, read out of a predicate. They prune and never decide: rows outside may still be
//! returned, and the predicate stays in the plan.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, InListExpr, Literal};
use datafusion::scalar::ScalarValue;

use crate::want::is_exact;

/// Longest list that row groups are held against; beyond that its ends do.
const ALTERNATIVES_MAX: usize = 1000;

/// A row can only matter when its value of `column` lies within these ends, both inclusive. NULL lies outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Position in the table's schema.
    pub column: usize,
    /// Of the column's own type, as `max`.
    pub min: Option<ScalarValue>,
    pub max: Option<ScalarValue>,
}

impl Bound {
    /// The bound as SQL, for EXPLAIN.
    pub(crate) fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) if min == max => write!(f, "{name} = {min}"),
            (Some(min), Some(max)) => write!(f, "{name} >= {min}, {name} <= {max}"),
            (Some(min), None) => match step_in_short(min, -1) {
                Some(below) => write!(f, "{name} > {below}"),
                None => write!(f, "{name} >= {min}"),
            },
            (None, Some(max)) => match step_in_short(max, 1) {
                Some(above) => write!(f, "{name} < {above}"),
                None => write!(f, "{name} <= {max}"),
            },
            (None, None) => write!(f, "{name}"),
        }
    }
}

/// The float one step on, where that is the shorter one to write: then the end was meant to leave it out.
fn step_in_short(end: &ScalarValue, step: i8) -> Option<ScalarValue> {
    let next = float_neighbour(end, step)?;
    (next.to_string().len() < end.to_string().len()).then_some(next)
}

/// Bounds that every row must keep for `predicate` to be true. `positions` maps the columns of the predicate's input
/// to positions in the table's schema.
#[must_use]
pub fn bounds_of(predicate: &Arc<dyn PhysicalExpr>, positions: &[usize]) -> Vec<Bound> {
    let bounds = ranges(predicate).into_iter().filter_map(|(column, range)| {
        let column = *positions.get(column)?;
        Some(Bound { column, min: range.min, max: range.max })
    });
    bounds.collect()
}

/// Lists of bounds of which each row that matters keeps at least one, where `predicate` says so of a column: `IN (...)`,
/// or `OR`. `positions` as in [`exact_bound_of`].
pub(crate) fn any_of(predicate: &Arc<dyn PhysicalExpr>, positions: &[Option<usize>]) -> Vec<Vec<Bound>> {
    let mut alternatives = Vec::new();
    if !alternatives_of(predicate, &mut alternatives) || alternatives.len() < 2 {
        return Vec::new();
    }
    let list = |column: &usize| {
        let position = positions.get(*column).copied().flatten()?;
        let bound = |ranges: &Ranges| {
            let range = ranges.get(column)?;
            Some(Bound { column: position, min: range.min.clone(), max: range.max.clone() })
        };
        alternatives.iter().map(bound).collect::<Option<Vec<_>>>()
    };
    // A column that the first one leaves open is left open by all together.
    alternatives[0].keys().filter_map(list).collect()
}

/// The ranges of each alternative; false when there are too many to be worth a look.
fn alternatives_of(predicate: &Arc<dyn PhysicalExpr>, found: &mut Vec<Ranges>) -> bool {
    if let Some(binary) = predicate.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == Operator::Or) {
        return alternatives_of(binary.left(), found) && alternatives_of(binary.right(), found);
    }
    match predicate.downcast_ref::<InListExpr>().and_then(values_of) {
        Some((column, values)) if values.len() + found.len() <= ALTERNATIVES_MAX => {
            let point = |value: ScalarValue| Range { min: Some(low_end(value.clone())), max: Some(high_end(value)) };
            found.extend(values.into_iter().map(|value| Ranges::from([(column, point(value))])));
        }
        Some(_) => return false,
        None => found.push(ranges(predicate)),
    }
    found.len() <= ALTERNATIVES_MAX
}

/// Narrows `bounds` by `more`, one entry per column.
#[must_use]
pub(crate) fn intersect(bounds: &[Bound], more: Vec<Bound>) -> Vec<Bound> {
    let mut all = Ranges::new();
    for bound in bounds.iter().cloned().chain(more) {
        let range = Range { min: bound.min, max: bound.max };
        narrow(&mut all, bound.column, range);
    }
    all.into_iter().map(|(column, range)| Bound { column, min: range.min, max: range.max }).collect()
}

/// The bound that is all that `predicate` says: a row keeps the one exactly when it keeps the other. `positions` as in
/// [`bounds_of`], `None` for columns that are computed.
pub(crate) fn exact_bound_of(predicate: &Arc<dyn PhysicalExpr>, positions: &[Option<usize>]) -> Option<Bound> {
    let (column, operator, value) = match predicate.downcast_ref::<BinaryExpr>() {
        Some(binary) => match (column_of(binary.left()), literal(binary.right())) {
            (Some(column), Some(value)) => (column, *binary.op(), value),
            _ => (column_of(binary.right())?, binary.op().swap()?, literal(binary.left())?),
        },
        None => {
            let list = predicate.downcast_ref::<InListExpr>().filter(|list| !list.negated())?;
            let [only] = list.list() else { return None };
            (column_of(list.expr())?, Operator::Eq, literal(only)?)
        }
    };
    let column = *positions.get(column)?.as_ref()?;
    if !is_exact(&value.data_type()) {
        return None;
    }
    let (min, max) = match operator {
        Operator::Eq => (Some(value.clone()), Some(value)),
        Operator::GtEq => (Some(value), None),
        Operator::LtEq => (None, Some(value)),
        Operator::Gt => (Some(neighbour(&value, 1)?), None),
        Operator::Lt => (None, Some(neighbour(&value, -1)?)),
        _ => return None,
    };
    Some(Bound { column, min, max })
}

/// The value one step on, of types that have one; ends of bounds are inclusive.
#[must_use]
pub fn neighbour(value: &ScalarValue, step: i8) -> Option<ScalarValue> {
    Some(match value {
        ScalarValue::TimestampMicrosecond(Some(us), zone) => {
            ScalarValue::TimestampMicrosecond(Some(us.checked_add(step.into())?), zone.clone())
        }
        ScalarValue::Date32(Some(days)) => ScalarValue::Date32(Some(days.checked_add(step.into())?)),
        ScalarValue::Int64(Some(value)) => ScalarValue::Int64(Some(value.checked_add(step.into())?)),
        ScalarValue::Int32(Some(value)) => ScalarValue::Int32(Some(value.checked_add(step.into())?)),
        ScalarValue::Int16(Some(value)) => ScalarValue::Int16(Some(value.checked_add(step.into())?)),
        _ => return None,
    })
}

/// The float one step on. NaN has none, and SQL sorts it above infinity, which so has none above it.
fn float_neighbour(value: &ScalarValue, step: i8) -> Option<ScalarValue> {
    Some(match (value, step > 0) {
        (ScalarValue::Float64(Some(value)), up) if value.is_finite() => {
            ScalarValue::Float64(Some(if up { value.next_up() } else { value.next_down() }))
        }
        (ScalarValue::Float32(Some(value)), up) if value.is_finite() => {
            ScalarValue::Float32(Some(if up { value.next_up() } else { value.next_down() }))
        }
        _ => return None,
    })
}

/// The end that leaves the value out, where there is one: rows at it need not be read.
fn beyond(value: ScalarValue, step: i8) -> ScalarValue {
    let next = neighbour(&value, step).or_else(|| float_neighbour(&value, step));
    next.unwrap_or_else(|| if step > 0 { low_end(value) } else { high_end(value) })
}

#[derive(Clone, Default)]
struct Range {
    min: Option<ScalarValue>,
    max: Option<ScalarValue>,
}

type Ranges = BTreeMap<usize, Range>;

fn ranges(predicate: &Arc<dyn PhysicalExpr>) -> Ranges {
    if let Some(binary) = predicate.downcast_ref::<BinaryExpr>() {
        return match binary.op() {
            Operator::And => both(ranges(binary.left()), ranges(binary.right())),
            Operator::Or => either(ranges(binary.left()), &ranges(binary.right())),
            operator => comparison(binary.left(), *operator, binary.right()),
        };
    }
    predicate.downcast_ref::<InListExpr>().and_then(in_list).unwrap_or_default()
}

fn both(mut left: Ranges, right: Ranges) -> Ranges {
    for (column, range) in right {
        narrow(&mut left, column, range);
    }
    left
}

/// Only a column that both sides bound stays bounded.
fn either(left: Ranges, right: &Ranges) -> Ranges {
    let hull = |(column, range): (usize, Range)| {
        let other = right.get(&column)?;
        let min = range.min.zip(other.min.clone()).and_then(|(a, b)| lesser(a, b));
        let max = range.max.zip(other.max.clone()).and_then(|(a, b)| greater(a, b));
        (min.is_some() || max.is_some()).then_some((column, Range { min, max }))
    };
    left.into_iter().filter_map(hull).collect()
}

fn narrow(ranges: &mut Ranges, column: usize, range: Range) {
    let known = ranges.entry(column).or_default();
    known.min = match (known.min.take(), range.min) {
        (Some(a), Some(b)) => greater(a.clone(), b).or(Some(a)),
        (a, b) => a.or(b),
    };
    known.max = match (known.max.take(), range.max) {
        (Some(a), Some(b)) => lesser(a.clone(), b).or(Some(a)),
        (a, b) => a.or(b),
    };
}

fn lesser(a: ScalarValue, b: ScalarValue) -> Option<ScalarValue> {
    a.partial_cmp(&b).map(|order| if order.is_le() { a } else { b })
}

fn greater(a: ScalarValue, b: ScalarValue) -> Option<ScalarValue> {
    a.partial_cmp(&b).map(|order| if order.is_ge() { a } else { b })
}

fn comparison(left: &Arc<dyn PhysicalExpr>, operator: Operator, right: &Arc<dyn PhysicalExpr>) -> Ranges {
    let (column, operator, value) = match (column_of(left), literal(right), column_of(right), literal(left)) {
        (Some(column), Some(value), _, _) => (column, operator, value),
        (_, _, Some(column), Some(value)) => match operator.swap() {
            Some(operator) => (column, operator, value),
            None => return Ranges::new(),
        },
        _ => return Ranges::new(),
    };
    let range = match operator {
        Operator::Eq => Range { min: Some(low_end(value.clone())), max: Some(high_end(value)) },
        Operator::Gt => Range { min: Some(beyond(value, 1)), max: None },
        Operator::GtEq => Range { min: Some(low_end(value)), max: None },
        Operator::Lt => Range { min: None, max: Some(beyond(value, -1)) },
        Operator::LtEq => Range { min: None, max: Some(high_end(value)) },
        _ => return Ranges::new(),
    };
    Ranges::from([(column, range)])
}

fn in_list(expr: &InListExpr) -> Option<Ranges> {
    let (column, values) = values_of(expr)?;
    let mut values = values.into_iter();
    let first = values.next()?;
    let (mut min, mut max) = (first.clone(), first);
    for value in values {
        min = lesser(min, value.clone())?;
        max = greater(max, value)?;
    }
    Some(Ranges::from([(column, Range { min: Some(low_end(min)), max: Some(high_end(max)) })]))
}

/// The column and the values of a list of constants, of which NULL is none: nothing equals it.
fn values_of(expr: &InListExpr) -> Option<(usize, Vec<ScalarValue>)> {
    let column = column_of(expr.expr()).filter(|_| !expr.negated())?;
    let value = |item: &Arc<dyn PhysicalExpr>| item.downcast_ref::<Literal>().map(|literal| literal.value().clone());
    let values = expr.list().iter().map(value).collect::<Option<Vec<_>>>()?;
    Some((column, values.into_iter().filter(|value| !value.is_null()).collect()))
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value).filter(|value| !value.is_null()).cloned()
}

fn low_end(value: ScalarValue) -> ScalarValue {
    with_zero(value, -0.0)
}

fn high_end(value: ScalarValue) -> ScalarValue {
    with_zero(value, 0.0)
}

/// Zero has two signs that SQL holds equal; an end at zero takes the one that lets both in.
fn with_zero(value: ScalarValue, zero: f32) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(f64::from(zero))),
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(zero)),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::{binary, col, in_list, lit};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Float64, true)])
    }

    fn compare(
        column: &str,
        operator: Operator,
        value: impl datafusion::logical_expr::Literal,
    ) -> Arc<dyn PhysicalExpr> {
        binary(col(column, &schema()).unwrap(), operator, lit(value), &schema()).unwrap()
    }

    fn join(left: Arc<dyn PhysicalExpr>, operator: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        binary(left, operator, right, &schema()).unwrap()
    }

    fn check(predicate: &Arc<dyn PhysicalExpr>, expected: &[(usize, Option<i64>, Option<i64>)]) {
        let int = |value: Option<i64>| value.map(|value| ScalarValue::Int64(Some(value)));
        let expected: Vec<_> = expected
            .iter()
            .map(|(column, min, max)| Bound { column: *column, min: int(*min), max: int(*max) })
            .collect();
        // The predicate's column 0 is the table's column 3.
        assert_eq!(bounds_of(predicate, &[3, 4]), expected, "{predicate}");
    }

    #[test]
    fn comparisons_bound_their_column() {
        check(&compare("a", Operator::Gt, 5i64), &[(3, Some(6), None)]);
        check(&compare("a", Operator::LtEq, 5i64), &[(3, None, Some(5))]);
        check(&compare("a", Operator::NotEq, 5i64), &[]);
        let turned = binary(lit(5i64), Operator::Gt, col("a", &schema()).unwrap(), &schema()).unwrap();
        check(&turned, &[(3, None, Some(4))]);
        check(&compare("a", Operator::Gt, i64::MAX), &[(3, Some(i64::MAX), None)]);
        check(&compare("a", Operator::Eq, ScalarValue::Int64(None)), &[]);
    }

    #[test]
    fn alternatives_are_told_apart() {
        type Ends = (usize, Option<i64>, Option<i64>);
        let points = |predicate: &Arc<dyn PhysicalExpr>| -> Vec<Vec<Ends>> {
            let end = |end: &Option<ScalarValue>| match end {
                Some(ScalarValue::Int64(value)) => *value,
                _ => None,
            };
            let bound = |bound: &Bound| (bound.column, end(&bound.min), end(&bound.max));
            any_of(predicate, &[Some(3), Some(7)]).iter().map(|list| list.iter().map(bound).collect()).collect()
        };
        let equals = |value: i64| compare("a", Operator::Eq, value);
        let point = |value| (3, Some(value), Some(value));
        let list = in_list(col("a", &schema()).unwrap(), vec![lit(4i64), lit(9i64)], &false, &schema()).unwrap();
        assert_eq!(points(&list), [vec![point(4), point(9)]]);
        let three = join(join(equals(4), Operator::Or, list), Operator::Or, compare("a", Operator::Gt, 20i64));
        assert_eq!(points(&three), [vec![point(4), point(4), point(9), (3, Some(21), None)]]);
        let with_other = join(equals(4), Operator::Or, compare("b", Operator::Eq, 1.0f64));
        assert!(points(&with_other).is_empty(), "the second alternative says nothing of the first column");
        let both = join(join(equals(4), Operator::And, compare("b", Operator::Gt, 1.0f64)), Operator::Or, equals(6));
        assert_eq!(points(&both), [vec![point(4), point(6)]]);
        assert!(points(&equals(4)).is_empty(), "a bound says that already");
        let many = (0..2000i64).map(lit).collect();
        let many = in_list(col("a", &schema()).unwrap(), many, &false, &schema()).unwrap();
        assert!(points(&many).is_empty());
    }

    #[test]
    fn floats_next_to_an_end_that_is_left_out_are_let_in() {
        let ends = |operator, value: f64| {
            let bounds = bounds_of(&compare("b", operator, value), &[3, 7]);
            let [bound] = &bounds[..] else { panic!("{bounds:?}") };
            let text = Written(bound).to_string();
            let end = |end: &Option<ScalarValue>| match end {
                Some(ScalarValue::Float64(Some(value))) => Some(value.to_bits()),
                _ => None,
            };
            (end(&bound.min), end(&bound.max), text)
        };
        let only_min = |value: f64, text: &str| (Some(value.to_bits()), None, text.to_owned());
        assert_eq!(ends(Operator::Gt, 90.0), only_min(90.0_f64.next_up(), "b > 90"));
        assert_eq!(ends(Operator::GtEq, 90.0), only_min(90.0, "b >= 90"));
        assert_eq!(ends(Operator::Lt, 0.3), (None, Some(0.3_f64.next_down().to_bits()), "b < 0.3".to_owned()));
        for zero in [0.0, -0.0] {
            assert_eq!(ends(Operator::Gt, zero).0, Some(1));
            assert_eq!(ends(Operator::GtEq, zero).0, Some((-0.0_f64).to_bits()));
            assert_eq!(ends(Operator::Lt, zero).1, Some((-f64::from_bits(1)).to_bits()));
        }
        assert_eq!(ends(Operator::Gt, f64::INFINITY).0, Some(f64::INFINITY.to_bits()));
        assert_eq!(ends(Operator::Lt, f64::NAN).1, Some(f64::NAN.to_bits()));
    }

    struct Written<'a>(&'a Bound);

    impl fmt::Display for Written<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.write("b", f)
        }
    }

    #[test]
    fn and_narrows_and_or_widens() {
        let low = || compare("a", Operator::GtEq, 5i64);
        let high = || compare("a", Operator::Lt, 9i64);
        check(&join(low(), Operator::And, high()), &[(3, Some(5), Some(8))]);
        check(&join(low(), Operator::Or, high()), &[]);
        let two = join(compare("a", Operator::Eq, 2i64), Operator::Or, compare("a", Operator::Eq, 7i64));
        check(&two, &[(3, Some(2), Some(7))]);
        check(&join(two, Operator::And, low()), &[(3, Some(5), Some(7))]);
        check(&join(low(), Operator::Or, compare("b", Operator::Eq, 1.0f64)), &[]);
    }

    #[test]
    fn a_list_is_bounded_by_its_ends() {
        let list = |values: Vec<ScalarValue>, negated| {
            let values = values.into_iter().map(lit).collect();
            in_list(col("a", &schema()).unwrap(), values, &negated, &schema()).unwrap()
        };
        let int = |value: i64| ScalarValue::Int64(Some(value));
        check(&list(vec![int(4), int(1), int(9)], false), &[(3, Some(1), Some(9))]);
        check(&list(vec![int(4), int(1)], true), &[]);
        check(&list(vec![int(4), ScalarValue::Int64(None), int(7)], false), &[(3, Some(4), Some(7))]);
        check(&list(vec![ScalarValue::Int64(None)], false), &[]);
    }

    #[test]
    fn a_bound_is_exact_when_it_says_no_less_than_the_predicate() {
        let check = |predicate: &Arc<dyn PhysicalExpr>, expected: Option<(Option<i64>, Option<i64>)>| {
            let int = |value: Option<i64>| value.map(|value| ScalarValue::Int64(Some(value)));
            let expected = expected.map(|(min, max)| Bound { column: 3, min: int(min), max: int(max) });
            assert_eq!(exact_bound_of(predicate, &[Some(3), Some(4)]), expected, "{predicate}");
        };
        check(&compare("a", Operator::Gt, 5i64), Some((Some(6), None)));
        check(&compare("a", Operator::Lt, 5i64), Some((None, Some(4))));
        check(&compare("a", Operator::Eq, 5i64), Some((Some(5), Some(5))));
        check(&compare("a", Operator::Gt, i64::MAX), None);
        check(&compare("a", Operator::NotEq, 5i64), None);
        check(&compare("b", Operator::GtEq, 5.0f64), None);
        let turned = binary(lit(5i64), Operator::GtEq, col("a", &schema()).unwrap(), &schema()).unwrap();
        check(&turned, Some((None, Some(5))));
        let two = join(compare("a", Operator::Eq, 2i64), Operator::Or, compare("a", Operator::Eq, 7i64));
        check(&two, None);
        assert_eq!(exact_bound_of(&compare("a", Operator::Eq, 5i64), &[None]), None);
    }

    #[test]
    fn both_zeros_lie_within_a_bound_at_zero() {
        let bounds = bounds_of(&compare("b", Operator::Eq, -0.0f64), &[0, 1]);
        let sign = |value: &Option<ScalarValue>| match value {
            Some(ScalarValue::Float64(Some(value))) => value.is_sign_negative(),
            other => panic!("{other:?}"),
        };
        assert!(sign(&bounds[0].min) && !sign(&bounds[0].max));
    }
}
