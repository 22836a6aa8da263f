//! A plan with holes. It holds nothing of the statement that it was made for: no snapshot, no view, no place of a chunk,
//! no stop button.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::sql::sqlparser::ast;
use meridian_proto::SqlType;
use meridian_proto::catalog::Table;

use crate::error::SqlError;
use crate::exec::catalog::{Found, StatementCatalog};
use crate::exec::fill::{check_may_be_kept, fill};
use crate::exec::open_scan::{Filling, OpenCatalog, OpenScanExec};
use crate::exec::rules::first_rows::first_rows;
use crate::exec::rules::push_down::for_shards;
use crate::outcome::OutputColumn;
use crate::sql::comparisons::known_type;
use crate::sql::cut::Cut;
use crate::sql::environment::Environment;
use crate::sql::functions::convert::reads_times;
use crate::sql::holes::{Hole, Opening, holes_as_functions};
use crate::sql::parse::parse_query_text;
use crate::sql::plan::{Planning, output_columns};
use crate::sql::statement::Name;

/// Physical plans of one template. They differ by the numbers of partitions that its scans have.
const VARIANTS_MAX: usize = 8;
/// Estimates: an operator with its schema and properties, as logical and as physical plan.
const OPERATOR_BYTES: usize = 4 << 10;
const EXPRESSION_BYTES: usize = 256;

/// A statement that asks for its plan.
pub(crate) struct Asked<'a> {
    pub cut: &'a Cut,
    pub parameters: &'a [ScalarValue],
    pub environment: &'a Arc<Environment>,
    pub catalog: &'a StatementCatalog,
    pub base: &'a SessionState,
}

/// What of a text's constants and parameters are holes of its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    constants: BTreeSet<usize>,
    parameters: BTreeSet<usize>,
}

impl Shape {
    pub(crate) fn is_open_constant(&self, index: usize) -> bool {
        self.constants.contains(&index)
    }

    pub(crate) fn is_open_parameter(&self, index: usize) -> bool {
        self.parameters.contains(&index)
    }
}

/// The tables that a plan reads, by the names that found them, as they were when it was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables(pub Vec<(Name, Arc<Table>)>);

impl Tables {
    /// Whether they are still the same for a statement.
    pub(crate) fn hold(&self, catalog: &StatementCatalog) -> bool {
        self.0.iter().all(|(name, table)| match catalog.resolve(name) {
            Some(Found::Stored(now)) => Arc::ptr_eq(&now, table) || now == *table,
            _ => false,
        })
    }
}

pub(crate) struct Template {
    tables: Tables,
    columns: Vec<OutputColumn>,
    holes: Vec<Hole>,
    /// Optimized.
    logical: LogicalPlan,
    /// The one used last first.
    variants: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
    size_bytes: usize,
}

impl Template {
    /// Makes a plan with holes. An error says that there is none, not that the statement is wrong.
    pub(crate) fn make(asked: &Asked) -> Result<(Shape, Self), SqlError> {
        // Of the query's own text: in that of its statement, constants have other places.
        let tree = parse_query_text(asked.cut.text())?;
        let mut held = BTreeSet::new();
        // Once for the constants that cannot be told from their texts alone.
        for _ in 0..2 {
            match attempt(asked, &tree, &held)? {
                Attempt::Made(made) => return Ok(*made),
                Attempt::Unfit(unfit) => held.extend(unfit),
            }
        }
        Err(not_kept("constants without a type"))
    }

    /// Whether it is still right for a statement.
    pub(crate) fn holds(&self, catalog: &StatementCatalog) -> bool {
        self.tables.hold(catalog)
    }

    pub(crate) fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// The plan of one statement.
    pub(crate) async fn plan(&self, asked: &Asked<'_>) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let value = |hole: &Hole| hole.value(asked.cut, asked.parameters, asked.environment);
        let values = self.holes.iter().map(value).collect::<Result<_, _>>()?;
        let filling = Filling { values, reader: asked.catalog.reader() };
        for (index, variant) in self.variants().into_iter().enumerate() {
            if let Some(plan) = fill(&variant, &filling)? {
                if index > 0 {
                    self.put_first(variant);
                }
                return Ok(plan);
            }
        }
        let filling = Arc::new(filling);
        let variant = self.variant(asked, &filling).await?;
        let plan = fill(&variant, &filling)?.ok_or_else(|| not_kept("partitions that change"))?;
        self.put_first(variant);
        Ok(plan)
    }

    fn variants(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_first(&self, variant: Arc<dyn ExecutionPlan>) {
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        variants.retain(|known| !Arc::ptr_eq(known, &variant));
        variants.insert(0, variant);
        variants.truncate(VARIANTS_MAX);
    }

    /// A physical plan for as many partitions as this filling has.
    async fn variant(&self, asked: &Asked<'_>, filling: &Arc<Filling>) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let base = asked.base;
        let mut state = base.clone();
        state.config_mut().set_extension(Arc::clone(filling));
        let mut plan = base.query_planner().create_physical_plan(&self.logical, &state).await?;
        // What one shard sends need not be spread over partitions here, only to be merged again.
        if let [1] = partitions_of_scans(&plan)?[..] {
            state.config_mut().options_mut().execution.target_partitions = 1;
            plan = base.query_planner().create_physical_plan(&self.logical, &state).await?;
        }
        if asked.catalog.leaves {
            plan = first_rows(plan)?;
        }
        check_may_be_kept(&plan)?;
        Ok(with_filters_for_shards(plan)?)
    }

    /// Of it and all its variants, estimated.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// Filters right above scans will move into fragments as they are.
fn with_filters_for_shards(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let changed = plan.transform_up(|plan| {
        let is_above_scan = matches!(&plan.children()[..], [child] if child.is::<OpenScanExec>());
        if is_above_scan { for_shards(&plan).map(Transformed::yes) } else { Ok(Transformed::no(plan)) }
    });
    changed.data()
}

fn partitions_of_scans(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<usize>> {
    let mut partitions = Vec::new();
    plan.apply(|plan| {
        if plan.is::<OpenScanExec>() {
            partitions.push(plan.output_partitioning().partition_count());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(partitions)
}

enum Attempt {
    Made(Box<(Shape, Template)>),
    /// Constants that are no holes.
    Unfit(BTreeSet<usize>),
}

fn attempt(asked: &Asked, tree: &ast::Query, held: &BTreeSet<usize>) -> Result<Attempt, SqlError> {
    let mut tree = tree.clone();
    let opening = Opening::lift(&mut tree, asked.cut, asked.parameters, held)
        .ok_or_else(|| not_kept("constants that are not found again"))?;
    let shape = Shape {
        constants: opening.open_constants().collect(),
        parameters: opening.open_parameters().iter().copied().collect(),
    };
    check_clock_words(asked, &shape)?;
    let catalog = OpenCatalog::new(asked.catalog);
    let planning =
        Planning::new(asked.base, Arc::clone(asked.environment), &catalog).with_holes(&opening, asked.parameters.len());
    let known: Vec<_> = asked.parameters.iter().map(|value| SqlType::of_arrow(&value.data_type())).collect();
    let opened = opening.finish(planning.query(&tree, &opening.types(&known))?)?;
    if !opened.unfit.is_empty() {
        return Ok(Attempt::Unfit(opened.unfit));
    }
    check_texts(&opened.plan)?;
    let plan = planning.analyze(opened.plan)?;
    check_times(&plan)?;
    let columns = output_columns(&plan)?;
    let logical = holes_as_functions(planning.optimize(plan)?)?;
    drop(planning);
    let size_bytes = size_of_plan(asked, &logical)?;
    let template = Template {
        tables: Tables(catalog.into_found()),
        columns,
        holes: opened.holes,
        logical,
        variants: Mutex::default(),
        size_bytes,
    };
    Ok(Attempt::Made(Box::new((shape, template))))
}

fn not_kept(why: &str) -> SqlError {
    SqlError::new("XX000", format!("a plan with {why} is not kept"))
}

/// A text that is part of the plan may be read as a time while planning: `today` is another day tomorrow.
fn check_clock_words(asked: &Asked, shape: &Shape) -> Result<(), SqlError> {
    let tells_time = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["now", "today", "tomorrow", "yesterday"].iter().any(|word| text.contains(word))
    };
    let constants = asked.cut.constants().iter().enumerate();
    let mut held = constants.filter(|(index, constant)| constant.is_text && !shape.is_open_constant(*index));
    let parameters = asked.parameters.iter().enumerate().filter(|(index, _)| !shape.is_open_parameter(*index));
    let mut texts = parameters.filter_map(|(_, value)| value.try_as_str().flatten().map(str::to_owned));
    if held.any(|(index, _)| tells_time(asked.cut.written(index))) || texts.any(|text| tells_time(&text)) {
        return Err(not_kept("the name of a day"));
    }
    Ok(())
}

/// Texts that are put together could be read as such a time, too, and texts of columns are.
fn check_times(plan: &LogicalPlan) -> Result<()> {
    let check = |expr: &Expr| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args })
            if reads_times(func) && !matches!(args.as_slice(), [Expr::Literal(..)]) =>
        {
            plan_err!("a time that is read from an expression is not kept")
        }
        _ => Ok(TreeNodeRecursion::Continue),
    };
    plan.apply_with_subqueries(|plan| plan.apply_expressions(|expr| expr.apply(check)))?;
    Ok(())
}

/// A literal beside something else than a text is read as that; of a parameter only its own type is known here.
fn check_texts(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        let is_text_hole = |expr: &Expr| {
            matches!(expr, Expr::Placeholder(placeholder) if placeholder.field.as_ref().is_some_and(|field| {
                matches!(SqlType::of_field(field), Some(SqlType::Text))
            }))
        };
        let check_pair = |left: &Expr, right: &Expr| {
            let other = match (is_text_hole(left), is_text_hole(right)) {
                (false, true) => left,
                (true, false) => right,
                _ => return Ok(()),
            };
            match known_type(other, &schema) {
                Some(SqlType::Text | SqlType::Varchar(_)) => Ok(()),
                _ => plan_err!("a text beside another type is not kept"),
            }
        };
        let check = |expr: &Expr| {
            match expr {
                Expr::BinaryExpr(BinaryExpr { left, right, .. }) => check_pair(left, right)?,
                Expr::InList(InList { expr, list, .. }) => {
                    list.iter().try_for_each(|item| check_pair(expr, item))?;
                }
                Expr::Between(between) => {
                    check_pair(&between.expr, &between.low)?;
                    check_pair(&between.expr, &between.high)?;
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        };
        plan.apply_expressions(|expr| expr.apply(check))
    })?;
    Ok(())
}

fn size_of_plan(asked: &Asked, plan: &LogicalPlan) -> Result<usize> {
    let (mut operators, mut expressions) = (0, 0);
    plan.apply_with_subqueries(|plan| {
        operators += 1;
        plan.apply_expressions(|expr| {
            expr.apply(|_| {
                expressions += 1;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let plans = VARIANTS_MAX + 1;
    Ok(asked.cut.shape().len() * 2 + (operators * OPERATOR_BYTES + expressions * EXPRESSION_BYTES) * plans)
}
