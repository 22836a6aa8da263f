//! Forms whose work doubles with each level that they nest within themselves: DataFusion checks a subquery once more for
//! each one around it, and writes the first arguments of COALESCE twice. They may nest as deep as takes little time.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Visit, Visitor};

use crate::error::SqlError;

const SUBQUERIES_MAX: usize = 14;
const COALESCES_MAX: usize = 8;

/// 54001 where they nest deeper.
pub(super) fn check_nesting(tree: &impl Visit) -> Result<(), SqlError> {
    match tree.visit(&mut Nesting::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

#[derive(Default)]
struct Nesting {
    subqueries: usize,
    coalesces: usize,
}

impl Nesting {
    fn level(&mut self, expr: &Expr) -> Option<&mut usize> {
        match expr {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => Some(&mut self.subqueries),
            Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("coalesce") => {
                Some(&mut self.coalesces)
            }
            _ => None,
        }
    }
}

impl Visitor for Nesting {
    type Break = Box<SqlError>;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        if let Some(level) = self.level(expr) {
            *level += 1;
        }
        let too_deep = |what: &str, most: usize| {
            let error = SqlError::new("54001", "statement is too complex");
            ControlFlow::Break(Box::new(error.with_detail(format!("{what} nest at most {most} levels deep."))))
        };
        if self.subqueries > SUBQUERIES_MAX {
            return too_deep("Subqueries in expressions", SUBQUERIES_MAX);
        }
        if self.coalesces > COALESCES_MAX {
            return too_deep("Calls of coalesce", COALESCES_MAX);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        if let Some(level) = self.level(expr) {
            *level -= 1;
        }
        ControlFlow::Continue(())
    }
}
