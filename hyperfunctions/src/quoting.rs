//! `quote_ident`, `quote_literal` and `quote_nullable`: texts as SQL reads them.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::form::{Form, Kind, functions as of_forms, texts_of};

pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    static IDENTIFIER: &[Form] = &[Form::new(&[Kind::Text], Kind::Text, |columns| quoted(columns, quote_identifier))];
    static LITERAL: &[Form] = &[Form::new(&[Kind::Text], Kind::Text, |columns| quoted(columns, quote_literal))];
    static NULLABLE: &[Form] = &[Form::new(&[Kind::Text], Kind::Text, quote_nullable)];
    of_forms(&[("quote_ident", IDENTIFIER), ("quote_literal", LITERAL), ("quote_nullable", NULLABLE)])
}

fn quoted(columns: &[ArrayRef], quote: fn(&str) -> String) -> Result<ArrayRef> {
    Ok(Arc::new(texts_of(&columns[0]).iter().map(|text| text.map(quote)).collect::<StringArray>()))
}

fn quote_nullable(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let quote = |text: Option<&str>| Some(text.map_or_else(|| "NULL".to_owned(), quote_literal));
    Ok(Arc::new(texts_of(&columns[0]).iter().map(quote).collect::<StringArray>()))
}

/// Words that a name must be quoted for: the keywords of PostgreSQL 15 that are not unreserved.
const KEYWORDS: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case \
    cast char character check coalesce collate collation column concurrently constraint create cross current_catalog \
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default \
    deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant \
    greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join \
    lateral leading least left like limit localtime localtimestamp national natural nchar none normalize not notnull \
    null nullif numeric offset on only or order out outer overlaps overlay placing position precision primary real \
    references returning right row select session_user setof similar smallint some substring symmetric table \
    tablesample then time timestamp to trailing treat trim true union unique user using values varchar variadic \
    verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse \
    xmlpi xmlroot xmlserialize xmltable";

/// A name as SQL reads it, quoted where it must be.
pub(crate) fn quote_identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEYWORDS.split(' ').any(|word| word == name);
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as a literal of SQL, of the kind with escapes if it has a backslash.
pub(crate) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_are_quoted_where_they_must_be() {
        assert_eq!(quote_identifier("plain_1"), "plain_1");
        assert_eq!(quote_identifier("1plain"), "\"1plain\"");
        assert_eq!(quote_identifier("select"), "\"select\"");
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
