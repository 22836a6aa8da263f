//! What is known of rows without decoding them. A piece is a set of rows that is answered for as a whole: today a row
//! group by its zone maps; bucket statistics will answer for smaller pieces, and for sums and ends as well.

use meridian_proto::schema::Column;

use crate::scan::Value;

/// Knowledge about one piece.
pub trait PieceStatistics {
    fn rows(&self) -> u64;

    /// `None`: nothing is known of the column here.
    fn column(&self, column: &Column) -> Option<ColumnStatistics>;
}

/// Knowledge about one column of a piece. What is known is exact: a zone map that is cut off, or that cannot tell one
/// zero from the other, is [`Known::Unknown`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnStatistics {
    pub nulls: u64,
    pub min: Known,
    pub max: Known,
    pub sum: Known,
    /// Of the row with the least and the greatest time.
    pub first: Known,
    pub last: Known,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Known {
    #[default]
    Unknown,
    /// There is no such value: the piece has NULLs only.
    Null,
    Value(Value),
}

/// A question about all rows of a table that lie within a scan's bounds. Columns by position in the table's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    Rows,
    /// Rows that are not NULL in the column.
    Count(usize),
    Min(usize),
    Max(usize),
}

/// The answer to a [`Fact`] for some of the rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    Count(u64),
    /// `None`: no value that is not NULL.
    Value(Option<Value>),
}

/// What the answered pieces add up to: one answer per question, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    questions: Vec<Fact>,
    answers: Vec<Answered>,
    pieces: u64,
}

impl Facts {
    #[must_use]
    pub fn new(questions: Vec<Fact>) -> Self {
        let nothing = |fact: &Fact| match fact {
            Fact::Rows | Fact::Count(_) => Answered::Count(0),
            Fact::Min(_) | Fact::Max(_) => Answered::Value(None),
        };
        let answers = questions.iter().map(nothing).collect();
        Self { questions, answers, pieces: 0 }
    }

    #[must_use]
    pub fn answers(&self) -> &[Answered] {
        &self.answers
    }

    /// How many pieces were answered for.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Adds a piece, all questions or none: a piece of which something is not known must be decoded.
    pub fn add(&mut self, piece: &impl PieceStatistics, columns: &[Column]) -> bool {
        let Some(more) = self.questions.iter().map(|fact| answer(*fact, piece, columns)).collect::<Option<Vec<_>>>()
        else {
            return false;
        };
        self.merge(more);
        true
    }

    /// Adds what another scan answered for the same questions.
    pub fn add_all(&mut self, other: Self) {
        let pieces = self.pieces + other.pieces;
        self.merge(other.answers);
        self.pieces = pieces;
    }

    fn merge(&mut self, more: Vec<Answered>) {
        for ((fact, sum), more) in self.questions.iter().zip(&mut self.answers).zip(more) {
            match (sum, more) {
                (Answered::Count(sum), Answered::Count(more)) => *sum += more,
                (Answered::Value(known), Answered::Value(Some(more))) => {
                    let better = known.as_ref().is_none_or(|known| match fact {
                        Fact::Min(_) => is_less(&more, known),
                        _ => is_less(known, &more),
                    });
                    if better {
                        *known = Some(more);
                    }
                }
                _ => {}
            }
        }
        self.pieces += 1;
    }
}

fn answer(fact: Fact, piece: &impl PieceStatistics, columns: &[Column]) -> Option<Answered> {
    let known = |at: usize| piece.column(columns.get(at)?);
    let value = |known: Known| match known {
        Known::Unknown => None,
        Known::Null => Some(Answered::Value(None)),
        Known::Value(value) => Some(Answered::Value(Some(value))),
    };
    match fact {
        Fact::Rows => Some(Answered::Count(piece.rows())),
        Fact::Count(at) => Some(Answered::Count(piece.rows() - known(at)?.nulls)),
        Fact::Min(at) => value(known(at)?.min),
        Fact::Max(at) => value(known(at)?.max),
    }
}

/// Of values of one column, none of them NaN.
fn is_less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a < b,
        (Value::Float(a), Value::Float(b)) => a < b,
        (Value::Bytes(a), Value::Bytes(b)) => a < b,
        (Value::Decimal(a), Value::Decimal(b)) => a < b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use meridian_proto::{ColumnId, SqlType};

    use super::*;

    struct Piece(u64, Option<ColumnStatistics>);

    impl PieceStatistics for Piece {
        fn rows(&self) -> u64 {
            self.0
        }

        fn column(&self, _: &Column) -> Option<ColumnStatistics> {
            self.1.clone()
        }
    }

    fn ints(rows: u64, nulls: u64, range: Option<(i64, i64)>) -> Piece {
        let known = |value| range.map_or(Known::Null, |_| Known::Value(Value::Int(value)));
        let (min, max) = range.unwrap_or_default();
        Piece(rows, Some(ColumnStatistics { nulls, min: known(min), max: known(max), ..Default::default() }))
    }

    #[test]
    fn pieces_add_up_and_one_of_which_something_is_unknown_adds_nothing() {
        let column = Column {
            id: ColumnId(1),
            name: "v".to_owned(),
            sql_type: SqlType::Int8,
            not_null: false,
            default: None,
            modifier: None,
        };
        let columns = [column];
        let mut facts = Facts::new(vec![Fact::Rows, Fact::Count(0), Fact::Min(0), Fact::Max(0)]);
        assert!(facts.add(&ints(5, 5, None), &columns));
        assert_eq!(facts.answers()[2], Answered::Value(None));
        assert!(facts.add(&ints(10, 3, Some((-4, 7))), &columns));
        assert!(facts.add(&ints(1, 0, Some((2, 2))), &columns));
        assert!(!facts.add(&Piece(100, None), &columns));
        let unknown = ColumnStatistics { min: Known::Value(Value::Int(-100)), ..Default::default() };
        assert!(!facts.add(&Piece(100, Some(unknown)), &columns));
        let value = |value| Answered::Value(Some(Value::Int(value)));
        let expected = [Answered::Count(16), Answered::Count(8), value(-4), value(7)];
        assert_eq!((facts.answers(), facts.pieces()), (&expected[..], 3));
        let mut all = facts.clone();
        all.add_all(facts);
        assert_eq!((all.answers()[0].clone(), all.pieces()), (Answered::Count(32), 6));
    }
}
