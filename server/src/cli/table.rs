//! Text tables for terminals: a header, a rule, rows; numbers to the right.

use std::fmt;

/// Rows of text under a header.
#[derive(Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<S: AsRef<str>>(header: &[S]) -> Self {
        Self { header: header.iter().map(|name| name.as_ref().to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn push(&mut self, mut row: Vec<String>) {
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells.chain([self.header[column].chars().count()]).max().unwrap_or(0)
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut filled = self.rows.iter().map(|row| row[column].as_str()).filter(|cell| !cell.is_empty()).peekable();
        filled.peek().is_some() && filled.all(|cell| cell.parse::<f64>().is_ok())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> =
            (0..self.header.len()).map(|column| (self.width(column), self.is_numeric(column))).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&columns).map(|(cell, (width, numeric))| {
                if *numeric { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
            });
            cells.collect::<Vec<_>>().join("|").trim_end().to_owned()
        };
        writeln!(f, "{}", line(&self.header))?;
        let rule: Vec<_> = columns.iter().map(|(width, _)| "-".repeat(width + 2)).collect();
        writeln!(f, "{}", rule.join("+"))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["name", "rows"]);
        table.push(vec!["a".into(), "5".into()]);
        table.push(vec!["longer".into(), "12.5".into()]);
        assert_eq!(table.to_string(), " name   | rows\n--------+------\n a      |    5\n longer | 12.5\n");
    }
}
