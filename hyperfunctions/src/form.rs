//! Functions as tables of their forms: what arguments each takes, what it gives and how. PostgreSQL's overloading: the
//! first form that fits is taken; texts, which may be literals without a type, stand for times only when no form fits
//! them as they are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::made::{check_spread, column_of};

/// A type of arguments or results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bool,
    Integer,
    BigInt,
    Double,
    /// Decimals as they come; integers as decimals without digits behind the point.
    Numeric,
    /// A numeric without digits behind the point, as a result.
    Whole,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Bytes,
    /// text[]
    Texts,
    /// An array of any type.
    Array,
    /// A value of any type.
    Any,
}

pub(crate) struct Form {
    pub takes: &'static [Kind],
    /// Whether the last argument may come more than once.
    pub repeats: bool,
    pub gives: Kind,
    /// Columns of equal length in, one out.
    pub run: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

impl Form {
    pub(crate) const fn new(takes: &'static [Kind], gives: Kind, run: fn(&[ArrayRef]) -> Result<ArrayRef>) -> Self {
        Self { takes, repeats: false, gives, run }
    }

    pub(crate) const fn repeated(
        takes: &'static [Kind],
        gives: Kind,
        run: fn(&[ArrayRef]) -> Result<ArrayRef>,
    ) -> Self {
        Self { takes, repeats: true, gives, run }
    }

    /// The types that arguments of these types are taken as.
    fn fit(&self, types: &[DataType], is_lenient: bool) -> Option<Vec<DataType>> {
        let is_count = if self.repeats { types.len() >= self.takes.len() } else { types.len() == self.takes.len() };
        if !is_count {
            return None;
        }
        let kinds = self.takes.iter().chain(self.takes.last().into_iter().cycle());
        types.iter().zip(kinds).map(|(data_type, kind)| kind.fit(data_type, is_lenient)).collect()
    }
}

impl Kind {
    /// The type itself; `None` of kinds that stand for several.
    pub(crate) fn arrow(self) -> Option<DataType> {
        Some(match self {
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Integer => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Whole => DataType::Decimal128(38, 0),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Bytes => DataType::Binary,
            Self::Texts => texts(),
            Self::Numeric | Self::Array | Self::Any => return None,
        })
    }

    fn fit(self, data_type: &DataType, is_lenient: bool) -> Option<DataType> {
        use DataType::{Binary, Date32, Date64, Decimal128, Decimal256, Interval, List, Timestamp, Utf8};
        if data_type.is_null() {
            return Some(match self {
                Self::Numeric => Decimal128(20, 0),
                Self::Array => texts(),
                kind => kind.arrow().unwrap_or(Utf8),
            });
        }
        let fits = match self {
            Self::Text => data_type.is_string(),
            Self::Bool => *data_type == DataType::Boolean,
            Self::Integer => data_type.is_integer() && *data_type != DataType::Int64,
            Self::BigInt => data_type.is_integer(),
            Self::Double => data_type.is_numeric(),
            Self::Numeric => match data_type {
                Decimal128(..) | Decimal256(..) => return Some(data_type.clone()),
                integer if integer.is_integer() => return Some(Decimal128(20, 0)),
                _ => false,
            },
            Self::Whole => matches!(data_type, Decimal128(38, 0)),
            Self::Date => matches!(data_type, Date32 | Date64),
            Self::Time => matches!(data_type, DataType::Time32(_) | DataType::Time64(_)),
            Self::Timestamp => matches!(data_type, Timestamp(_, None)),
            Self::Timestamptz => matches!(data_type, Timestamp(_, Some(_))),
            Self::Interval => matches!(data_type, Interval(_) | DataType::Duration(_)),
            Self::Bytes => matches!(data_type, Binary | DataType::LargeBinary | DataType::BinaryView),
            Self::Texts => matches!(data_type, List(element) if element.data_type().is_string()),
            Self::Array => match data_type {
                List(_) => return Some(data_type.clone()),
                _ => false,
            },
            Self::Any => return Some(data_type.clone()),
        };
        let is_time = matches!(self, Self::Date | Self::Timestamp | Self::Timestamptz | Self::Interval);
        // A literal without a type becomes what is wanted, a date or timestamp what tells more.
        let leans = is_lenient
            && match data_type {
                Date32 | Date64 => matches!(self, Self::Timestamp | Self::Timestamptz),
                Timestamp(_, None) => self == Self::Timestamptz,
                text => is_time && text.is_string(),
            };
        if fits || leans { self.arrow() } else { None }
    }
}

fn texts() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
}

/// A function of such forms.
#[derive(Debug)]
struct Function {
    name: &'static str,
    forms: &'static [Form],
    signature: Signature,
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} -> {:?}", self.takes, self.gives)
    }
}

// There is one function of each name.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Functions by their names.
pub(crate) fn functions(table: &[(&'static str, &'static [Form])]) -> Vec<Arc<ScalarUDF>> {
    let function = |(name, forms): &(&'static str, &'static [Form])| {
        let signature = match forms.first().map(|form| form.takes) {
            // DataFusion asks no function of its own for coercions when there are no arguments.
            Some([]) => {
                Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::UserDefined], Volatility::Immutable)
            }
            _ => Signature::user_defined(Volatility::Immutable),
        };
        Arc::new(ScalarUDF::from(Function { name, forms, signature }))
    };
    table.iter().map(function).collect()
}

impl Function {
    fn form(&self, types: &[DataType]) -> Option<(&Form, Vec<DataType>)> {
        [false, true].into_iter().find_map(|is_lenient| {
            self.forms.iter().find_map(|form| form.fit(types, is_lenient).map(|types| (form, types)))
        })
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let Some((_, types)) = self.form(types) {
            return Ok(types);
        }
        let types: Vec<_> = types.iter().map(ToString::to_string).collect();
        plan_err!("function {}({}) does not exist", self.name, types.join(", "))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.form(types).and_then(|(form, _)| form.gives.arrow()) {
            Some(data_type) => Ok(data_type),
            None => internal_err!("{} of other types than it takes", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if whole { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| column_of(arg, rows)).collect::<Result<Vec<_>>>()?;
        let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
        let Some((form, _)) = self.form(&types) else { return internal_err!("{} of {types:?}", self.name) };
        let result = (form.run)(&columns)?;
        if whole {
            let value = ScalarValue::try_from_array(&result, 0)?;
            check_spread(&value, args.number_rows)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// The texts of a column.
pub(crate) fn texts_of(column: &ArrayRef) -> &StringArray {
    column.as_string::<i32>()
}

/// Whether all columns have a value in a row.
pub(crate) fn all_valid(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().all(|column| column.is_valid(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_columns: &[ArrayRef]) -> Result<ArrayRef> {
        internal_err!("never called")
    }

    #[test]
    fn the_first_form_that_fits_is_taken() {
        static FORMS: &[Form] = &[
            Form::new(&[Kind::Timestamptz, Kind::Text], Kind::Text, nothing),
            Form::new(&[Kind::Integer, Kind::Text], Kind::Integer, nothing),
            Form::new(&[Kind::BigInt, Kind::Text], Kind::BigInt, nothing),
            Form::repeated(&[Kind::Text, Kind::Any], Kind::Text, nothing),
        ];
        let function = Function { name: "f", forms: FORMS, signature: Signature::user_defined(Volatility::Immutable) };
        let gives = |types: &[DataType]| function.form(types).map(|(form, types)| (form.gives, types.len()));
        assert_eq!(gives(&[DataType::Int16, DataType::Utf8]), Some((Kind::Integer, 2)));
        assert_eq!(gives(&[DataType::Int64, DataType::Utf8]), Some((Kind::BigInt, 2)));
        assert_eq!(gives(&[DataType::Utf8, DataType::Boolean, DataType::Utf8]), Some((Kind::Text, 3)));
        assert_eq!(gives(&[DataType::Utf8, DataType::Boolean]), Some((Kind::Text, 2)));
        assert_eq!(gives(&[DataType::Utf8]), None);
        assert_eq!(gives(&[DataType::Boolean, DataType::Utf8]), None);
        assert!(function.coerce_types(&[DataType::Boolean]).is_err());
    }
}
