//! Holes of a query: what of it may be another value the next time without changing its plan. Constants and parameters
//! that stand beside a column in a condition are such, and the times at which its statement and transaction began. They
//! become placeholders that know their type and nothing else; rules that look at values leave them alone.
//!
//! Any other constant is part of the plan: the width of a bucket, a LIMIT, an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use meridian_pgtypes::Format;
use meridian_proto::SqlType;

use super::cut::Cut;
use super::environment::Environment;
use super::functions::convert::constant;
use super::functions::hole::{hole, number_of};
use super::functions::session::Clock;
use super::operators::wanted_type;
use super::parameters::parameter_uses;
use super::tokens::offset_of;
use super::types::{modifier, sql_type};
use crate::error::SqlError;

/// A hole of a plan: where its value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Hole {
    /// A constant of the text, by its number.
    Constant(usize, Reading),
    /// A parameter, counted from 0.
    Parameter(usize),
    Clock(Clock),
}

/// How a constant becomes a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    Number(Number),
    Text,
    /// As a text without a type beside something of this one, or cast to it.
    Typed(SqlType),
}

/// What type a number has by its digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Int4,
    Int8,
    /// Precision and scale.
    Numeric(u8, i8),
}

/// Digits of the numerics that are read here; others are planned each time. Up to here a double holds them exactly, so that
/// its cast to one is the nearest, as that of a literal is.
const NUMERIC_DIGITS_MAX: usize = 15;

impl Number {
    /// `None`: neither a plain integer nor a plain decimal fraction, or a long one.
    pub(crate) fn of(written: &str) -> Option<Self> {
        let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if written.parse::<i32>().is_ok() {
            return Some(Self::Int4);
        }
        if written.parse::<i64>().is_ok() {
            return Some(Self::Int8);
        }
        let (whole, fraction) = written.split_once('.')?;
        if !is_plain(whole) || !is_plain(fraction) || fraction.is_empty() {
            return None;
        }
        // Of the number without its point, and of its zeros in front.
        let digits = whole.trim_start_matches('0').len();
        let significant = if digits == 0 { fraction.trim_start_matches('0').len() } else { digits + fraction.len() };
        let precision = significant.max(1).max(fraction.len());
        (precision <= NUMERIC_DIGITS_MAX).then_some(Self::Numeric(precision as u8, fraction.len() as i8))
    }

    fn value(self, written: &str) -> Option<ScalarValue> {
        Some(match self {
            Self::Int4 => ScalarValue::Int32(Some(written.parse().ok()?)),
            Self::Int8 => ScalarValue::Int64(Some(written.parse().ok()?)),
            Self::Numeric(precision, scale) => {
                let digits: String = written.chars().filter(|c| *c != '.').collect();
                ScalarValue::Decimal128(Some(digits.parse().ok()?), precision, scale)
            }
        })
    }

    fn field(self) -> Field {
        match self {
            Self::Int4 => SqlType::Int4.field("lit", false),
            Self::Int8 => Field::new("lit", DataType::Int64, false),
            Self::Numeric(precision, scale) => Field::new("lit", DataType::Decimal128(precision, scale), false),
        }
    }

    fn sql_type(self) -> SqlType {
        match self {
            Self::Int4 => SqlType::Int4,
            Self::Int8 => SqlType::Int8,
            Self::Numeric(precision, scale) => SqlType::Numeric(Some((precision, scale))),
        }
    }
}

impl Hole {
    /// Its value in a statement; the errors are those of the constant itself.
    pub(crate) fn value(
        &self,
        cut: &Cut,
        parameters: &[ScalarValue],
        environment: &Environment,
    ) -> Result<ScalarValue, SqlError> {
        let lost = || SqlError::new("XX000", "a hole of a plan has no value");
        match self {
            Self::Constant(index, Reading::Number(number)) => number.value(cut.written(*index)).ok_or_else(lost),
            Self::Constant(index, Reading::Text) => Ok(ScalarValue::Utf8(Some(cut.unquoted(*index).into_owned()))),
            Self::Constant(index, Reading::Typed(sql_type)) => {
                read(&cut.unquoted(*index), sql_type, &environment.format)
            }
            Self::Parameter(index) => parameters.get(*index).cloned().ok_or_else(lost),
            Self::Clock(clock) => Ok(clock.value(environment)),
        }
    }
}

fn read(text: &str, sql_type: &SqlType, format: &Format) -> Result<ScalarValue, SqlError> {
    Ok(constant(text, sql_type, format)?)
}

/// A query whose holes are being made.
pub(crate) struct Opening<'a> {
    parameters: &'a [ScalarValue],
    constants: Vec<Lifted>,
    /// Parameters that are holes.
    open: Vec<usize>,
    clocks: Mutex<Vec<Clock>>,
}

/// A constant that became a placeholder of the query's tree.
struct Lifted {
    index: usize,
    what: What,
}

enum What {
    Number(Number),
    Text,
    /// A text that is cast.
    Cast(SqlType),
}

/// The holes of a plan, and the constants that turned out to be none.
pub(crate) struct Opened {
    pub plan: LogicalPlan,
    pub holes: Vec<Hole>,
    pub unfit: BTreeSet<usize>,
}

impl<'a> Opening<'a> {
    /// Replaces what may be holes in `query`, which is what `cut` was read as. `held`: constants that are none.
    /// `None`: the tree and the text do not tell the same constants.
    pub(crate) fn lift(
        query: &mut ast::Query,
        cut: &Cut,
        parameters: &'a [ScalarValue],
        held: &BTreeSet<usize>,
    ) -> Option<Self> {
        let all_uses = parameter_uses(query);
        if all_uses.keys().any(|number| *number > parameters.len()) {
            return None;
        }
        let mut lift = Lift { cut, held, first: parameters.len() + 1, lifted: Vec::new(), uses: BTreeMap::new() };
        if query.visit(&mut lift).is_break() {
            return None;
        }
        let Lift { lifted, uses, .. } = lift;
        // A parameter that stands elsewhere, too, is part of the plan there. NULL is none that compares.
        let is_open = |index: &usize| {
            let compared = uses.get(&(index + 1)).copied().unwrap_or(0);
            compared > 0 && all_uses.get(&(index + 1)) == Some(&compared) && !parameters[*index].is_null()
        };
        let open = (0..parameters.len()).filter(is_open).collect();
        Some(Self { parameters, constants: lifted, open, clocks: Mutex::default() })
    }

    /// Types of the placeholders in the tree: the parameters, then what was lifted.
    pub(crate) fn types(&self, parameters: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
        let of = |lifted: &Lifted| match &lifted.what {
            What::Number(number) => Some(number.sql_type()),
            What::Text => None,
            What::Cast(sql_type) => Some(sql_type.clone()),
        };
        parameters.iter().cloned().chain(self.constants.iter().map(of)).collect()
    }

    /// The function that stands for one of the session's clocks.
    pub(crate) fn clock(&self, clock: Clock) -> Arc<ScalarUDF> {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        // Each call is a hole of its own: two that are one would be worked out apart from where they are used.
        clocks.push(clock);
        hole(self.constants.len() + self.open.len() + clocks.len() - 1, clock_field(clock))
    }

    /// Gives the placeholders of an unoptimized plan their types and the numbers of their holes.
    pub(crate) fn finish(&self, plan: LogicalPlan) -> Result<Opened> {
        let mut found = Found { opening: self, readings: BTreeMap::new(), unfit: BTreeSet::new() };
        let plan = rewrite(plan, &mut |expr| found.expr(expr))?;
        let Found { readings, unfit, .. } = found;
        let constant = |(number, lifted): (usize, &Lifted)| {
            // One that the plan does not show is never asked for.
            Hole::Constant(lifted.index, readings.get(&number).cloned().unwrap_or(Reading::Text))
        };
        let mut holes: Vec<Hole> = self.constants.iter().enumerate().map(constant).collect();
        holes.extend(self.open.iter().copied().map(Hole::Parameter));
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        holes.extend(clocks.iter().copied().map(Hole::Clock));
        Ok(Opened { plan, holes, unfit })
    }

    /// Numbers of the parameters that are holes, counted from 0.
    pub(crate) fn open_parameters(&self) -> &[usize] {
        &self.open
    }

    pub(crate) fn open_constants(&self) -> impl Iterator<Item = usize> {
        self.constants.iter().map(|lifted| lifted.index)
    }
}

fn clock_field(clock: Clock) -> FieldRef {
    Arc::new(Field::new("clock", clock.data_type(), true))
}

/// A plan's placeholders as functions, which expressions that are executed can be made of.
pub(crate) fn holes_as_functions(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite(plan, &mut |expr| {
        let Expr::Placeholder(Placeholder { id, field: Some(field) }) = &expr else { return Ok(Transformed::no(expr)) };
        Ok(match number_in(id) {
            Some(number) => Transformed::yes(hole(number, Arc::clone(field)).call(vec![])),
            None => Transformed::no(expr),
        })
    })
}

/// Changes all expressions of a plan.
fn rewrite(plan: LogicalPlan, change: &mut dyn FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let plan = plan.map_expressions(|expr| expr.transform_up(&mut *change))?;
        // Always: what changed may lie below.
        plan.map_data(LogicalPlan::recompute_schema)
    });
    rewritten.data()
}

/// The placeholder of a hole. It reads as the function will, since columns are named after expressions.
fn placeholder(number: usize, field: Field) -> Expr {
    Expr::Placeholder(Placeholder { id: format!("hole{number}()"), field: Some(Arc::new(field)) })
}

fn number_in(id: &str) -> Option<usize> {
    id.strip_prefix("hole")?.strip_suffix("()")?.parse().ok()
}

/// What is found out about the holes while the plan is walked.
struct Found<'a, 'b> {
    opening: &'a Opening<'b>,
    /// Of the lifted constants.
    readings: BTreeMap<usize, Reading>,
    unfit: BTreeSet<usize>,
}

impl Found<'_, '_> {
    fn expr(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::Placeholder(Placeholder { id, field }) => {
                let number = id.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
                let parameters = self.opening.parameters.len();
                Ok(match number {
                    Some(number) if (1..=parameters).contains(&number) => Transformed::yes(self.parameter(number - 1)),
                    Some(number) if number > parameters => {
                        Transformed::yes(self.constant(number - parameters - 1, field.as_ref()))
                    }
                    _ => Transformed::no(expr),
                })
            }
            Expr::ScalarFunction(function) => match number_of(&function.func) {
                Some(number) => {
                    let field = expr.to_field(&DFSchema::empty())?.1;
                    Ok(Transformed::yes(placeholder(number, field.as_ref().clone())))
                }
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        }
    }

    fn parameter(&self, index: usize) -> Expr {
        let value = &self.opening.parameters[index];
        match self.opening.open.iter().position(|open| *open == index) {
            Some(position) => {
                let number = self.opening.constants.len() + position;
                placeholder(number, Field::new("lit", value.data_type(), false))
            }
            None => Expr::Literal(value.clone(), None),
        }
    }

    fn constant(&mut self, number: usize, field: Option<&FieldRef>) -> Expr {
        let Some(lifted) = self.opening.constants.get(number) else {
            return Expr::Literal(ScalarValue::Null, None);
        };
        let (reading, hole_field) = match &lifted.what {
            What::Number(number) => (Reading::Number(*number), number.field()),
            What::Cast(sql_type) => (Reading::Typed(sql_type.clone()), sql_type.field("lit", false)),
            What::Text => match field.and_then(text_reading) {
                Some(found) => found,
                None => {
                    self.unfit.insert(lifted.index);
                    (Reading::Text, Field::new("lit", DataType::Utf8, false))
                }
            },
        };
        if self.readings.insert(number, reading.clone()).is_some_and(|before| before != reading) {
            self.unfit.insert(lifted.index);
        }
        placeholder(number, hole_field)
    }
}

/// How a text is read beside something of `field`. `None`: its value decides.
fn text_reading(field: &FieldRef) -> Option<(Reading, Field)> {
    use SqlType::{Bool, Date, Float4, Float8, Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Uuid, Varchar};
    let sql_type = match SqlType::of_field(field)? {
        Text | Varchar(_) => return Some((Reading::Text, Field::new("lit", DataType::Utf8, false))),
        Numeric(_) => Numeric(None),
        sql_type @ (Bool | Int2 | Int4 | Int8 | Float4 | Float8 | Timestamptz | Timestamp | Date | Uuid) => sql_type,
        _ => return None,
    };
    let field = sql_type.field("lit", false);
    Some((Reading::Typed(sql_type), field))
}

/// Types of lifted texts beside operators, as those of bare texts are found.
#[derive(Debug)]
pub(crate) struct HoleTypes {
    /// Placeholders up to here are the client's.
    pub parameters: usize,
}

impl HoleTypes {
    fn is_untyped(&self, expr: &Expr) -> bool {
        let Expr::Placeholder(Placeholder { id, field: None }) = expr else { return false };
        id.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()).is_some_and(|n| n > self.parameters)
    }
}

impl ExprPlanner for HoleTypes {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (left, right) = (self.is_untyped(&expr.left), self.is_untyped(&expr.right));
        if left == right {
            return Ok(PlannerResult::Original(expr));
        }
        let operand = if left { &expr.right } else { &expr.left };
        let wanted = operand.get_type(schema).ok().and_then(|t| wanted_type(&expr.op, operand, &t, schema, left));
        let text = if left { &mut expr.left } else { &mut expr.right };
        if let (Some(wanted), Expr::Placeholder(placeholder)) = (wanted, text) {
            placeholder.field = Some(Arc::new(wanted.field("lit", false)));
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Takes constants out of a tree.
struct Lift<'a> {
    cut: &'a Cut,
    held: &'a BTreeSet<usize>,
    /// Number of the first placeholder.
    first: usize,
    lifted: Vec<Lifted>,
    /// Parameters beside columns: how often each.
    uses: BTreeMap<usize, usize>,
}

impl VisitorMut for Lift<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        let joins = select.from.iter_mut().flat_map(|from| &mut from.joins);
        let on = joins.filter_map(|join| join_condition(&mut join.join_operator));
        let mut conditions: Vec<&mut ast::Expr> = on.collect();
        conditions.extend(select.selection.as_mut());
        for condition in conditions {
            self.condition(condition)?;
        }
        ControlFlow::Continue(())
    }
}

fn join_condition(join: &mut ast::JoinOperator) -> Option<&mut ast::Expr> {
    use ast::JoinOperator::{FullOuter, Inner, Join, Left, LeftOuter, Right, RightOuter};
    match join {
        Join(constraint)
        | Inner(constraint)
        | Left(constraint)
        | LeftOuter(constraint)
        | Right(constraint)
        | RightOuter(constraint)
        | FullOuter(constraint) => match constraint {
            ast::JoinConstraint::On(condition) => Some(condition),
            _ => None,
        },
        _ => None,
    }
}

impl Lift<'_> {
    fn condition(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
        match expr {
            ast::Expr::Nested(inner) | ast::Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => {
                self.condition(inner)
            }
            ast::Expr::BinaryOp { left, op: And | Or, right } => {
                self.condition(left)?;
                self.condition(right)
            }
            ast::Expr::BinaryOp { left, op: Eq | NotEq | Lt | LtEq | Gt | GtEq, right } => {
                if is_column(left) {
                    self.operand(right)
                } else if is_column(right) {
                    self.operand(left)
                } else {
                    ControlFlow::Continue(())
                }
            }
            ast::Expr::Between { expr, low, high, .. } if is_column(expr) => {
                self.operand(low)?;
                self.operand(high)
            }
            ast::Expr::InList { expr, list, .. } if is_column(expr) => {
                // Beside something of a type a text may be read as the common type of all.
                let alike = list.iter().all(is_text) || !list.iter().any(is_text);
                list.iter_mut().filter(|item| alike || !is_text(item)).try_for_each(|item| self.operand(item))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn operand(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::Nested(inner) => return self.operand(inner),
            ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } if is_number(inner) => {
                return self.operand(inner);
            }
            ast::Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                if let Some(number) = name.strip_prefix('$').and_then(|digits| digits.parse().ok()) {
                    *self.uses.entry(number).or_default() += 1;
                }
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        let Some((value, cast)) = constant_of(expr) else { return ControlFlow::Continue(()) };
        let Some(index) = self.cut.constant_at(offset_of(self.cut.text(), value.span.start)) else {
            return ControlFlow::Break(());
        };
        let what = match (&value.value, cast) {
            (Value::Number(written, _), _) if self.cut.written(index) == written => match Number::of(written) {
                Some(number) => What::Number(number),
                None => return ControlFlow::Break(()),
            },
            (Value::SingleQuotedString(text), cast) if self.cut.unquoted(index) == text.as_str() => {
                cast.map_or(What::Text, What::Cast)
            }
            _ => return ControlFlow::Break(()),
        };
        if !self.held.contains(&index) {
            let name = format!("${}", self.first + self.lifted.len());
            self.lifted.push(Lifted { index, what });
            *expr = ast::Expr::Value(ValueWithSpan { value: Value::Placeholder(name), span: Span::empty() });
        }
        ControlFlow::Continue(())
    }
}

fn is_column(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => true,
        ast::Expr::Nested(inner) => is_column(inner),
        _ => false,
    }
}

fn is_text(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Nested(inner) => is_text(inner),
        ast::Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_)),
        _ => false,
    }
}

fn is_number(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Value(ValueWithSpan { value: Value::Number(..), .. }))
}

/// The constant that an operand is, and the type of time that it is cast to.
fn constant_of(expr: &ast::Expr) -> Option<(&ValueWithSpan, Option<SqlType>)> {
    let time_type = |data_type: &ast::DataType| {
        // What is rounded stays as it is written.
        let sql_type = sql_type(data_type).ok().filter(|_| matches!(modifier(data_type), Ok(None)))?;
        matches!(sql_type, SqlType::Timestamptz | SqlType::Timestamp | SqlType::Date).then_some(sql_type)
    };
    match expr {
        ast::Expr::Value(value) => match value.value {
            Value::Number(_, false) | Value::SingleQuotedString(_) => Some((value, None)),
            _ => None,
        },
        ast::Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
            Some((&typed.value, Some(time_type(&typed.data_type)?)))
        }
        ast::Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => match expr.as_ref() {
            ast::Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => {
                Some((value, Some(time_type(data_type)?)))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_query_text;
    use super::*;

    fn lifted(text: &str) -> (String, Vec<usize>) {
        let cut = Cut::of(text).unwrap();
        let mut query = (*parse_query_text(text).unwrap()).clone();
        let parameters = [ScalarValue::Int32(Some(1)), ScalarValue::Int32(None)];
        let opening = Opening::lift(&mut query, &cut, &parameters, &BTreeSet::new()).unwrap();
        (query.to_string(), opening.open_parameters().to_vec())
    }

    #[test]
    fn constants_beside_columns_of_conditions_are_lifted() {
        let check = |text: &str, expected: &str| assert_eq!(lifted(text).0, expected);
        check(
            "SELECT a = 1 FROM t WHERE a = 5 AND (t.b IN ('x', 'y') OR NOT 2.5 < c) ORDER BY a LIMIT 3",
            "SELECT a = 1 FROM t WHERE a = $3 AND (t.b IN ($4, $5) OR NOT $6 < c) ORDER BY a LIMIT 3",
        );
        check(
            "SELECT 1 FROM t WHERE a IN ('1', 2) AND b IN (5, c)",
            "SELECT 1 FROM t WHERE a IN ('1', $3) AND b IN ($4, c)",
        );
        check(
            "SELECT 1 FROM t WHERE d BETWEEN '2024-01-01' AND timestamp '2024-01-02' AND e > -7",
            "SELECT 1 FROM t WHERE d BETWEEN $3 AND $4 AND e > -$5",
        );
        check(
            "SELECT 1 FROM t JOIN u ON t.a = u.a AND u.b > 5 WHERE f(a) = 3 AND a + 1 > 2 AND b LIKE 'x%'",
            "SELECT 1 FROM t JOIN u ON t.a = u.a AND u.b > $3 WHERE f(a) = 3 AND a + 1 > 2 AND b LIKE 'x%'",
        );
        check(
            "SELECT 1 FROM t WHERE a IN (SELECT b FROM u WHERE c = '2024-01-01'::date) AND d = 'x'::text",
            "SELECT 1 FROM t WHERE a IN (SELECT b FROM u WHERE c = $3) AND d = 'x'::TEXT",
        );
    }

    #[test]
    fn parameters_are_holes_where_they_stand_beside_columns_only() {
        assert_eq!(lifted("SELECT 1 FROM t WHERE a = $1 AND b IN ($1, 5)").1, [0]);
        assert_eq!(lifted("SELECT $1 FROM t WHERE a = $1").1, [0_usize; 0]);
        // NULL.
        assert_eq!(lifted("SELECT 1 FROM t WHERE a = $2").1, [0_usize; 0]);
    }

    #[test]
    fn numbers_have_the_types_of_their_digits() {
        let check = |written: &str, number: Option<Number>, value: Option<ScalarValue>| {
            assert_eq!(Number::of(written), number, "{written}");
            assert_eq!(number.and_then(|number| number.value(written)), value, "{written}");
        };
        let numeric = |value, precision, scale| Some(ScalarValue::Decimal128(Some(value), precision, scale));
        check("7", Some(Number::Int4), Some(ScalarValue::Int32(Some(7))));
        check("3000000000", Some(Number::Int8), Some(ScalarValue::Int64(Some(3_000_000_000))));
        check("90.0", Some(Number::Numeric(3, 1)), numeric(900, 3, 1));
        check("0.05", Some(Number::Numeric(2, 2)), numeric(5, 2, 2));
        check("007.50", Some(Number::Numeric(3, 2)), numeric(750, 3, 2));
        check("0.0", Some(Number::Numeric(1, 1)), numeric(0, 1, 1));
        check(".5", Some(Number::Numeric(1, 1)), numeric(5, 1, 1));
        for written in ["1e3", "1.", "9223372036854775808", "0.1234567890123456789"] {
            check(written, None, None);
        }
    }
}
