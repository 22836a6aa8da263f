//! SIMILAR TO patterns as regular expressions, by the rules of PostgreSQL's `similar_escape`.

use crate::error::SqlError;

/// `%` is any text, `_` any character; `| * + ? { } ( ) [ ]` mean what they mean in regular expressions; everything
/// else is itself. The whole text must match.
pub(super) fn similar_to_regex(pattern: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut regex = String::from("^(?:");
    let mut in_class = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if Some(character) == escape {
            let Some(next) = characters.next() else { break };
            if next == '"' {
                return Err(SqlError::unsupported("SIMILAR TO with separators is not supported"));
            }
            push_literal(&mut regex, next);
        } else if in_class {
            in_class = character != ']';
            if character == '\\' {
                regex.push('\\');
            }
            regex.push(character);
        } else {
            match character {
                '[' => {
                    in_class = true;
                    regex.push('[');
                }
                '%' => regex.push_str(".*"),
                '_' => regex.push('.'),
                '(' => regex.push_str("(?:"),
                '|' | '*' | '+' | '?' | '{' | '}' | ')' => regex.push(character),
                other => push_literal(&mut regex, other),
            }
        }
    }
    regex.push_str(")$");
    Ok(regex)
}

fn push_literal(regex: &mut String, character: char) {
    if !character.is_alphanumeric() && character.is_ascii() && !character.is_whitespace() {
        regex.push('\\');
    }
    regex.push(character);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        let check = |pattern: &str, regex: &str| assert_eq!(similar_to_regex(pattern, Some('\\')).unwrap(), regex);
        check("a%", "^(?:a.*)$");
        check("(a|b)_", "^(?:(?:a|b).)$");
        check("a.b\\%", "^(?:a\\.b\\%)$");
        check("[a-c%]x", "^(?:[a-c%]x)$");
    }
}
