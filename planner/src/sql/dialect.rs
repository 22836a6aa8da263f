//! PostgreSQL's dialect for sqlparser, which reads some forms twice over: a way that fails is gone back, and with each
//! nesting the work doubles, `f(f(f(...)))` first of all. Here the arguments of functions are read once, and what still
//! doubles is given up after as many steps as no statement needs.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::{CastKind, DataType, Expr, Value};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Expressions that are begun for each token of a statement, and for any statement.
const STEPS_PER_TOKEN: usize = 16;
const STEPS_MIN: usize = 50_000;

#[derive(Debug)]
pub(super) struct Postgres {
    like: PostgreSqlDialect,
    steps_left: AtomicUsize,
}

impl Postgres {
    /// For a text of so many tokens.
    pub(super) fn for_tokens(tokens: usize) -> Self {
        let steps = STEPS_MIN.max(tokens.saturating_mul(STEPS_PER_TOKEN));
        Self { like: PostgreSqlDialect {}, steps_left: AtomicUsize::new(steps) }
    }
}

/// Methods that PostgreSQL's dialect answers.
macro_rules! like {
    ($($method:ident($($arg:ident: $arg_type:ty),*) -> $result:ty;)*) => {
        $(fn $method(&self $(, $arg: $arg_type)*) -> $result {
            self.like.$method($($arg),*)
        })*
    };
}

impl Dialect for Postgres {
    fn dialect(&self) -> TypeId {
        self.like.dialect()
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let take = |left: usize| left.checked_sub(1);
        let taken = self.steps_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        interval_of_digits(parser).map(Ok)
    }

    /// What stands behind `IS DISTINCT FROM` ends before AND and OR; sqlparser takes all that follows.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let is_equal = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            false
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            true
        } else {
            return None;
        };
        let compared = |right: Expr| {
            let (left, right) = (Box::new(left.clone()), Box::new(right));
            if is_equal { Expr::IsNotDistinctFrom(left, right) } else { Expr::IsDistinctFrom(left, right) }
        };
        Some(parser.parse_subexpr(self.prec_value(Precedence::Is)).map(compared))
    }

    /// Names before arguments are words.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    like! {
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_delimited_identifier_start(ch: char) -> bool;
        is_identifier_start(ch: char) -> bool;
        is_identifier_part(ch: char) -> bool;
        supports_unicode_string_literal() -> bool;
        is_reserved_for_identifier(keyword: Keyword) -> bool;
        is_custom_operator_part(ch: char) -> bool;
        get_next_precedence(parser: &Parser) -> Option<Result<u8, ParserError>>;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        prec_value(prec: Precedence) -> u8;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_named_fn_args_with_colon_operator() -> bool;
        supports_empty_projections() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
    }
}

/// `INTERVAL(2) '1.239 seconds'`, of which sqlparser forgets the digits.
fn interval_of_digits(parser: &mut Parser) -> Option<Expr> {
    let [word, open, digits, close, text] = parser.peek_tokens();
    let (Token::Word(word), Token::LParen, Token::Number(digits, _)) = (word, open, digits) else { return None };
    let (Token::RParen, Token::SingleQuotedString(text)) = (close, text) else { return None };
    if word.keyword != Keyword::INTERVAL {
        return None;
    }
    let digits = digits.parse().ok()?;
    (0..5).for_each(|_| parser.advance_token());
    Some(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::SingleQuotedString(text))),
        data_type: DataType::Interval { fields: None, precision: Some(digits) },
        array: false,
        format: None,
    })
}
