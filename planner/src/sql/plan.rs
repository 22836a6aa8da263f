//! From a query's tree to a logical plan, by one statement's environment and view of the catalog.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, ParamValues, Result, ScalarValue, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, EmptyRelation, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource,
    Volatility, WindowUDF, lit,
};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;
use meridian_proto::SqlType;
use meridian_proto::modifier::Modifier;
use meridian_proto::types::SQL_TYPE_KEY;

use super::comparisons::Comparisons;
use super::environment::Environment;
use super::errors::external;
use super::floats::Floats;
use super::functions::coalesce::coalesce;
use super::functions::series::generate_series;
use super::functions::session::{self, Clock};
use super::guards::guard_plan;
use super::holes::{HoleTypes, Opening};
use super::names::shown;
use super::operators::{Operators, Types};
use super::recursion::RecursiveTerms;
use super::rewrite::{rewrite_expression, rewrite_query};
use super::semantics::Semantics;
use super::set_function::{SetCall, SetFunction};
use super::statement::Name;
use super::subqueries::SingleRows;
use super::untyped::Untyped;
use super::values::unify_values;
use crate::error::SqlError;
use crate::outcome::OutputColumn;

/// Partitions that a gateway works on at the same time per query.
const PARTITIONS: usize = 2;
pub(crate) const BATCH_ROWS: usize = 8192;

/// Tables that a statement can name.
pub(crate) trait Relations: Send + Sync {
    fn find(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>>;

    /// A function about tables and chunks.
    fn function(&self, name: &str, environment: &Arc<Environment>) -> Option<Arc<ScalarUDF>>;

    /// Type of a hypertable's time column.
    fn time_type(&self, relation: &str) -> Result<SqlType, SqlError>;

    /// The rows of a set-returning function; made when they are read.
    fn rows_of(&self, call: SetCall) -> Result<Arc<dyn TableProvider>, SqlError>;
}

/// Functions that plans call and statements do not: ours for casts and operators, and DataFusion's for types that clients
/// cannot read.
const HIDDEN_FUNCTIONS: [&str; 44] = [
    "array_zip",
    "arrays_zip",
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "cast_char",
    "cast_varchar",
    "date_add",
    "date_difference",
    "date_subtract",
    "date_to_timestamp",
    "datepart",
    "datetrunc",
    "double_to_real",
    "file_row_index",
    "from_unixtime",
    "get_field",
    "input_file_name",
    "interval_add",
    "interval_multiply",
    "interval_order",
    "interval_subtract",
    "list_zip",
    "named_struct",
    "numeric_divide",
    "numeric_to_double",
    "pad_char",
    "round_half_even",
    "round_time",
    "row",
    "struct",
    "text_concat",
    "time_add",
    "time_difference",
    "time_subtract",
    "timestamp_to_date",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "union_extract",
    "union_tag",
    "with_metadata",
];

/// Functions of DataFusion's own, unknown to PostgreSQL, that make arrays as large as a number says.
const UNBOUNDED: [&str; 4] = ["array_repeat", "array_resize", "generate_series", "range"];

/// Aggregates of DataFusion's that PostgreSQL does not have, under second names of others.
const HIDDEN_AGGREGATES: [&str; 1] = ["mean"];

/// What all statements share: functions, options, rules.
pub(crate) fn base_state(runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut scalar = SessionStateDefaults::default_scalar_functions();
    scalar.retain(|function| !UNBOUNDED.contains(&function.name()));
    scalar.extend(meridian_hyperfunctions::scalar_functions());
    scalar.push(Arc::new(coalesce()));
    let mut aggregate = SessionStateDefaults::default_aggregate_functions();
    aggregate.extend(meridian_hyperfunctions::aggregate_functions());
    SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(runtime)
        .with_scalar_functions(scalar)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregate)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .build()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(PARTITIONS)
        .with_batch_size(BATCH_ROWS)
        .with_create_default_catalog_and_schema(false)
        .with_round_robin_repartition(false);
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.default_null_ordering = "nulls_max".to_owned();
    // Every timestamptz array is in UTC; the session's zone is where it is read and written.
    options.execution.time_zone = Some("UTC".to_owned());
    // The check compares field metadata too, which a union of a column with a constant does not keep.
    options.execution.skip_physical_aggregate_schema_check = true;
    // Fragments travel as bytes: what is known only while the query runs cannot be in them.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}

/// One statement while it is planned.
pub(crate) struct Planning<'a> {
    base: &'a SessionState,
    environment: Arc<Environment>,
    relations: &'a dyn Relations,
    planners: Vec<Arc<dyn ExprPlanner>>,
    /// Of the parameters; `None` while the statement is only described.
    values: Option<&'a [ScalarValue]>,
    /// The query is planned with holes, to be kept. Then nothing in its plan may come from this statement alone.
    opening: Option<&'a Opening<'a>>,
    /// Numbers of the parameters that are arguments of set-returning functions, which the plan does not show.
    arguments: Mutex<BTreeSet<usize>>,
}

impl<'a> Planning<'a> {
    pub(crate) fn new(base: &'a SessionState, environment: Arc<Environment>, relations: &'a dyn Relations) -> Self {
        static PLANNERS: LazyLock<Vec<Arc<dyn ExprPlanner>>> =
            LazyLock::new(SessionStateDefaults::default_expr_planners);
        let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators(Arc::clone(&environment)))];
        planners.extend(PLANNERS.iter().cloned());
        Self { base, environment, relations, planners, values: None, opening: None, arguments: Mutex::default() }
    }

    /// For a statement that is to run with these parameters.
    pub(crate) fn with_parameters(mut self, values: &'a [ScalarValue]) -> Self {
        self.values = Some(values);
        self
    }

    /// For a query with holes, whose tree has `parameters` placeholders of its own.
    pub(crate) fn with_holes(mut self, opening: &'a Opening<'a>, parameters: usize) -> Self {
        self.opening = Some(opening);
        // It tells the types that the operators look at.
        self.planners.insert(0, Arc::new(HoleTypes { parameters }));
        self
    }

    /// The value of `$1`; `None` while there are none.
    pub(super) fn value_of(&self, id: &str) -> Result<Option<ScalarValue>, SqlError> {
        let missing = || SqlError::new("42P02", format!("there is no parameter {id}"));
        let number: usize = id.strip_prefix('$').and_then(|digits| digits.parse().ok()).ok_or_else(missing)?;
        let Some(values) = self.values else {
            self.arguments.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
            return Ok(None);
        };
        number.checked_sub(1).and_then(|index| values.get(index)).cloned().map(Some).ok_or_else(missing)
    }

    pub(super) fn relations(&self) -> &dyn Relations {
        self.relations
    }

    pub(crate) fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    fn planner_context(types: &[Option<SqlType>]) -> PlannerContext {
        let field = |(index, sql_type): (usize, &Option<SqlType>)| -> Option<FieldRef> {
            sql_type.as_ref().map(|sql_type| Arc::new(sql_type.field(&format!("${}", index + 1), true)))
        };
        PlannerContext::new().with_prepare_param_data_types(types.iter().enumerate().map(field).collect())
    }

    fn options() -> ParserOptions {
        ParserOptions {
            parse_float_as_decimal: true,
            enable_ident_normalization: true,
            support_varchar_with_length: true,
            enable_options_value_normalization: false,
            collect_spans: false,
            map_string_types_to_utf8view: false,
            default_null_ordering: NullOrdering::NullsMax,
        }
    }

    /// The plan of a query, before any rule. `types`: of the parameters, as far as known.
    pub(crate) fn query(&self, query: &ast::Query, types: &[Option<SqlType>]) -> Result<LogicalPlan, SqlError> {
        let mut query = rewrite_query(query)?;
        let planner = SqlToRel::new_with_options(self, Self::options());
        let cell = |expr: &ast::Expr| {
            planner.sql_to_expr(expr.clone(), &DFSchema::empty(), &mut Self::planner_context(types)).ok()
        };
        unify_values(&mut query, &cell)?;
        let statement = ast::Statement::Query(Box::new(query));
        let mut context = Self::planner_context(types);
        Ok(planner.sql_statement_to_plan_with_context(statement, &mut context)?)
    }

    /// An expression that may name the columns of `schema`.
    pub(crate) fn expression(
        &self,
        expr: &ast::Expr,
        schema: &DFSchema,
        types: &[Option<SqlType>],
    ) -> Result<Expr, SqlError> {
        let expr = rewrite_expression(expr)?;
        let planner = SqlToRel::new_with_options(self, Self::options());
        Ok(planner.sql_to_expr(expr, schema, &mut Self::planner_context(types))?)
    }

    /// Types coerced, PostgreSQL's semantics put in.
    pub(crate) fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        let rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(Untyped(Arc::clone(&self.environment))),
            Arc::new(Comparisons),
            Arc::new(Floats),
            Arc::new(TypeCoercion::new()),
            Arc::new(Semantics(Arc::clone(&self.environment))),
            Arc::new(RecursiveTerms),
            Arc::new(SingleRows),
        ];
        let analyzer = Analyzer::with_rules(rules);
        Ok(analyzer.execute_and_check(plan, self.base.config_options(), |_, _| {})?)
    }

    pub(crate) fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
        Ok(guard_plan(self.base.optimizer().optimize(plan, self.base, |_, _| {})?)?)
    }

    /// An expression without columns, its types coerced.
    pub(crate) fn coerced(&self, expr: Expr) -> Result<Expr, SqlError> {
        let plan = self.analyze(one_row(vec![expr.alias("value")])?)?;
        let expr = plan.expressions().into_iter().next();
        expr.map(Expr::unalias).ok_or_else(|| SqlError::new("XX000", "an expression was lost"))
    }

    /// What an expression without columns comes to.
    pub(super) fn constant(&self, expr: Expr) -> Result<ScalarValue, SqlError> {
        match self.simplify(self.coerced(expr)?)? {
            Expr::Literal(value, _) => Ok(value),
            other => Err(SqlError::unsupported(format!("argument {other} must be a constant"))),
        }
    }

    /// Types of all parameters of a plan, in order: those known, those inferred, text for the rest.
    pub(crate) fn parameter_types(
        &self,
        plan: &LogicalPlan,
        known: &[Option<SqlType>],
    ) -> Result<Vec<SqlType>, SqlError> {
        let mut types = parameter_types(plan, known)?;
        let highest = self.arguments.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or(0);
        if types.len() < highest {
            types.resize(highest, SqlType::Text);
        }
        Ok(types)
    }

    /// A constant's value, as column of `wanted`.
    pub(crate) fn simplify(&self, expr: Expr) -> Result<Expr> {
        let context = SimplifyContext::builder().with_config_options(Arc::clone(self.base.config_options())).build();
        ExprSimplifier::new(context).simplify(expr)
    }
}

/// One row of these expressions.
pub(crate) fn one_row(exprs: Vec<Expr>) -> Result<LogicalPlan, SqlError> {
    let empty = EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) };
    Ok(LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(empty)).project(exprs)?.build()?)
}

/// Types of all parameters that a plan shows.
pub(crate) fn parameter_types(plan: &LogicalPlan, known: &[Option<SqlType>]) -> Result<Vec<SqlType>, SqlError> {
    let inferred: HashMap<String, Option<FieldRef>> = plan.get_parameter_fields()?;
    let number = |name: &String| name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
    let highest = inferred.keys().filter_map(number).max().unwrap_or(0);
    let of = |index: usize| {
        let said = known.get(index).cloned().flatten();
        let found = || inferred.get(&format!("${}", index + 1)).cloned().flatten().and_then(|f| SqlType::of_field(&f));
        let sql_type = said.or_else(found).unwrap_or(SqlType::Text);
        // A parameter's digits are the client's.
        if matches!(sql_type, SqlType::Numeric(_)) { SqlType::Numeric(None) } else { sql_type }
    };
    Ok((0..highest.max(known.len())).map(of).collect())
}

/// The plan with its parameters' values.
pub(crate) fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan, SqlError> {
    if values.is_empty() {
        return Ok(plan);
    }
    let values = ParamValues::List(values.iter().cloned().map(Into::into).collect());
    Ok(plan.replace_params_with_values(&values)?)
}

/// Columns as clients see them.
pub(crate) fn output_columns(plan: &LogicalPlan) -> Result<Vec<OutputColumn>, SqlError> {
    let column = |field: &FieldRef| {
        let sql_type = SqlType::of_field(field).ok_or_else(|| {
            let message = format!("column \"{}\" has a type that clients cannot read", shown(field.name()));
            SqlError::unsupported(message).with_detail(format!("Its type is {}.", field.data_type()))
        })?;
        let sql_type = match sql_type {
            SqlType::Numeric(Some(limits)) if limits == meridian_proto::types::NUMERIC_UNLIMITED => {
                SqlType::Numeric(None)
            }
            // DataFusion nests arrays; PostgreSQL has dimensions.
            SqlType::Array(element) if matches!(*element, SqlType::Array(_)) => {
                return Err(SqlError::unsupported("arrays of several dimensions are not supported"));
            }
            other => other,
        };
        let is_declared = field.metadata().get(SQL_TYPE_KEY).is_some_and(|name| *name == sql_type.to_string());
        let is_numeric = matches!(sql_type, SqlType::Numeric(_));
        let typmod = match Modifier::of_field(field) {
            Some(modifier) => modifier.typmod(),
            None if is_numeric && !is_declared => -1,
            None => sql_type.typmod(),
        };
        Ok(OutputColumn { name: shown(field.name()).to_owned(), sql_type, typmod, table_oid: 0, attnum: 0 })
    };
    plan.schema().fields().iter().map(column).collect()
}

pub(crate) fn no_such_table(schema: Option<&str>, name: &str) -> SqlError {
    let full = schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"));
    SqlError::new("42P01", format!("relation \"{full}\" does not exist"))
}

impl Name {
    pub(crate) fn not_found(&self) -> SqlError {
        no_such_table(self.schema.as_deref(), &self.name)
    }
}

impl ContextProvider for Planning<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let provider = self.relations.find(name.schema(), name.table());
        let provider = provider.ok_or_else(|| external(no_such_table(name.schema(), name.table())))?;
        Ok(provider_as_source(provider))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        if self.opening.is_some() {
            return plan_err!("the rows of {name} are made for one statement");
        }
        if let Some(function) = SetFunction::find(name) {
            let rows = self.set_function(function, args).map_err(external)?;
            return Ok(provider_as_source(rows));
        }
        if name == "generate_series" {
            let format = Arc::clone(&self.environment.format);
            return Ok(provider_as_source(generate_series(args, &format, |arg| self.constant(arg).map_err(external))?));
        }
        let Some(function) = self.base.table_functions().get(name) else {
            let message = format!("function {name} does not exist");
            return Err(external(SqlError::new("42883", message)));
        };
        let value = |arg: Expr| -> Result<Expr> {
            Ok(match self.constant(arg).map_err(external)? {
                // Those functions know one integer type.
                ScalarValue::Int32(value) => lit(ScalarValue::Int64(value.map(Into::into))),
                value => lit(value),
            })
        };
        let args = args.into_iter().map(value).collect::<Result<Vec<_>>>()?;
        let args = datafusion::catalog::TableFunctionArgs::new(&args, self.base);
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        if HIDDEN_FUNCTIONS.contains(&name) {
            return None;
        }
        if let Some(opening) = self.opening
            && session::is_known(name)
        {
            // What else the session tells would stay in the plan.
            return Clock::find(name).map(|clock| opening.clock(clock));
        }
        if self.opening.is_some() {
            // One that tells the time of a statement that began long ago.
            let function = self.base.scalar_functions().get(name);
            return function.filter(|function| function.signature().volatility != Volatility::Stable).cloned();
        }
        session::find(name, &self.environment)
            .or_else(|| self.relations.function(name, &self.environment))
            .or_else(|| self.base.scalar_functions().get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.base.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        if HIDDEN_AGGREGATES.contains(&name) {
            return None;
        }
        self.base.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.base.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.base.config_options()
    }

    // Suggestions for misspelt functions are not told: DataFusion's list is not PostgreSQL's. Without any name at all
    // it reports an internal error instead of the function that is missing.
    fn udf_names(&self) -> Vec<String> {
        vec!["?".to_owned()]
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        vec!["?".to_owned()]
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
