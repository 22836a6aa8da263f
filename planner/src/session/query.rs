//! SELECT and EXPLAIN: planned by one moment of the cluster, run as a stream.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use meridian_client::cluster::CatalogView;
use meridian_proto::SqlType;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Session;
use super::parameter::texts;
use super::statement::text_column;
use super::transaction::{Moment, meta_deadline};
use crate::error::SqlError;
use crate::exec::catalog::{Overlay, PUBLIC, StatementCatalog};
use crate::exec::explain::{Measured, explain_json, explain_text};
use crate::exec::heavy::stoppable;
use crate::exec::open_scan::OpenCatalog;
use crate::exec::rules::distribute;
use crate::exec::source::{ClusterSource, FragmentSource, ReadStamp};
use crate::exec::stream::{cancellable, check, start};
use crate::outcome::{Outcome, OutputColumn};
use crate::plan_cache::{Asked, Description, Lookup, Tables, Template};
use crate::sql::environment::Environment;
use crate::sql::functions::session::clock_us;
use crate::sql::parameters::with_places;
use crate::sql::plan::{Planning, bind, output_columns};
use crate::sql::statement::{ExplainOptions, Query, Statement};

/// A query that is ready to run.
pub(super) struct PlannedQuery {
    pub columns: Vec<OutputColumn>,
    pub plan: Arc<dyn ExecutionPlan>,
    /// Whether the plan was one that is kept.
    pub was_kept: bool,
}

impl Session {
    pub(super) fn environment(&self) -> Arc<Environment> {
        let statement_us = clock_us();
        let transaction_us = self.transaction.as_ref().map_or(statement_us, |open| open.started_us);
        let format = Arc::new(self.settings().format(Some(transaction_us)));
        Arc::new(Environment {
            settings: Arc::clone(&self.settings),
            notices: Arc::clone(&self.notices),
            read_only: self.is_read_only(),
            user: self.user.clone(),
            database: self.database.clone(),
            pid: self.pid,
            format,
            transaction_us,
            statement_us,
        })
    }

    /// The catalog of a statement that reads at `moment`.
    pub(super) fn statement_catalog(&self, moment: &Moment) -> StatementCatalog {
        self.catalog_of(Arc::clone(&moment.view), self.read_stamp(moment))
    }

    fn catalog_of(&self, view: Arc<CatalogView>, stamp: ReadStamp) -> StatementCatalog {
        let source = Arc::new(ClusterSource { cluster: self.gateway.cluster.clone(), stamp });
        let overlay = self.transaction.as_ref().map_or_else(Overlay::default, |open| open.overlay.clone());
        let path = self.settings().text("search_path").to_owned();
        let searches_public = path.split(',').any(|schema| schema.trim().trim_matches('"') == PUBLIC);
        StatementCatalog {
            view,
            overlay: Arc::new(overlay),
            source: Arc::clone(&source) as Arc<dyn FragmentSource>,
            upkeep: source,
            database: self.database.clone(),
            searches_public,
            leaves: self.settings().is_on("meridian.enable_leaves"),
        }
    }

    /// A catalog to analyse a statement by, not to read: the newest that is here, or a confirmed one.
    pub(super) async fn describing_catalog(&mut self, confirmed: bool) -> Result<StatementCatalog, SqlError> {
        let cluster = self.gateway.cluster.clone();
        let mut view = cluster.catalog.current();
        if confirmed {
            let (_, version) = cluster.meta.timestamp(meta_deadline()).await?;
            view = cluster.catalog.wait_for(version, meta_deadline()).await?;
        }
        let stamp = ReadStamp { snapshot: 0.into(), version: view.version(), own: None, query: 0 };
        Ok(self.catalog_of(view, stamp))
    }

    /// What a prepared query takes and gives; from what is kept of it, if anything is.
    pub(super) async fn describe_prepared(
        &mut self,
        query: &Query,
        known: &[Option<SqlType>],
    ) -> Result<(Vec<SqlType>, Vec<OutputColumn>), SqlError> {
        let catalog = self.describing_catalog(false).await?;
        let cut = query.cut().filter(|_| self.keeps_plans() && catalog.overlay.is_empty());
        let Some(cut) = cut else { return self.describe_query(query.tree()?.as_ref(), known).await };
        let (environment, plans) = (self.environment(), &self.gateway.plans);
        if let Some(kept) = plans.find_description(cut, known, &environment, &catalog) {
            return Ok((kept.parameters.clone(), kept.columns.clone()));
        }
        let tree = query.tree()?;
        if plans.has_plans_of(cut) {
            let open = OpenCatalog::new(&catalog);
            let planning = Planning::new(&self.gateway.base, Arc::clone(&environment), &open);
            if let Ok((parameters, columns)) = analyse(&planning, &tree, known) {
                drop(planning);
                let tables = Tables(open.into_found());
                let description = Description { tables, parameters: parameters.clone(), columns: columns.clone() };
                plans.keep_description(cut, known, &environment, &catalog, description);
                return Ok((parameters, columns));
            }
        }
        self.describe_query(&tree, known).await
    }

    pub(super) async fn describe_query(
        &mut self,
        query: &ast::Query,
        known: &[Option<SqlType>],
    ) -> Result<(Vec<SqlType>, Vec<OutputColumn>), SqlError> {
        let mut confirmed = false;
        loop {
            let catalog = self.describing_catalog(confirmed).await?;
            let planning = Planning::new(&self.gateway.base, self.environment(), &catalog);
            match analyse(&planning, query, known) {
                // The newest view may be a moment behind what another gateway created.
                Err(error) if !confirmed && error.sqlstate.starts_with("42") => confirmed = true,
                result => return result,
            }
        }
    }

    pub(super) async fn select(
        &mut self,
        query: &Query,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        let PlannedQuery { columns, plan, .. } = self.plan_or_fill(query, parameters, cancel).await?;
        let schema = plan.schema();
        let rows = start(plan, &self.gateway, cancel)?;
        Ok(Outcome::Rows { columns, schema, rows, tag: "SELECT" })
    }

    /// CALL: the query that calls the procedure is run to its end, its rows are nobody's.
    pub(super) async fn call(
        &mut self,
        query: &ast::Query,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        let PlannedQuery { plan, .. } = self.plan_query(query, parameters, cancel).await?;
        let mut rows = start(plan, &self.gateway, cancel)?;
        while let Some(batch) = rows.next().await {
            batch?;
        }
        Ok(Outcome::Done { tag: "CALL".to_owned() })
    }

    pub(super) async fn plan_query(
        &mut self,
        query: &ast::Query,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<PlannedQuery, SqlError> {
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        self.plan_by(&catalog, self.environment(), query, parameters, cancel).await
    }

    /// The plan of a query: one that is kept, if there is any.
    async fn plan_or_fill(
        &mut self,
        query: &Query,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<PlannedQuery, SqlError> {
        let moment = self.moment(cancel).await?;
        let catalog = self.statement_catalog(&moment);
        let environment = self.environment();
        // What its own transaction did to tables is known to one statement after the other only.
        let cut = query.cut().filter(|_| self.keeps_plans() && catalog.overlay.is_empty());
        let Some(cut) = cut else {
            return self.plan_by(&catalog, environment, query.tree()?.as_ref(), parameters, cancel).await;
        };
        let gateway = Arc::clone(&self.gateway);
        let asked = Asked { cut, parameters, environment: &environment, catalog: &catalog, base: &gateway.base };
        let has_failed = match self.plan_kept(&asked, cancel).await {
            Ok(Some(planned)) => return Ok(planned),
            Ok(None) => false,
            Err(error) => {
                debug!(error = %error, "a kept plan was not used");
                true
            }
        };
        check(cancel)?;
        let tree = query.tree()?;
        let planned = self.plan_by(&catalog, Arc::clone(&environment), &tree, parameters, cancel).await?;
        if has_failed {
            gateway.plans.note_failure(&asked);
        }
        Ok(planned)
    }

    pub(super) fn keeps_plans(&self) -> bool {
        self.settings().is_on("meridian.enable_plan_cache")
    }

    /// `None`: nothing is kept of it. An error is no answer: the statement may still be planned.
    async fn plan_kept(&self, asked: &Asked<'_>, cancel: &CancellationToken) -> Result<Option<PlannedQuery>, SqlError> {
        let (template, new) = match self.gateway.plans.find(asked) {
            Lookup::New => return Ok(None),
            Lookup::Kept(template) => (template, None),
            Lookup::Worth => {
                let (shape, template) = Template::make(asked)?;
                (Arc::new(template), Some(shape))
            }
        };
        let plan = stoppable(cancellable(cancel, template.plan(asked)).await?, cancel)?;
        let was_kept = new.is_none();
        if let Some(shape) = new {
            self.gateway.plans.keep(asked, shape, &template);
        }
        Ok(Some(PlannedQuery { columns: template.columns().to_vec(), plan, was_kept }))
    }

    async fn plan_by(
        &self,
        catalog: &StatementCatalog,
        environment: Arc<Environment>,
        query: &ast::Query,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<PlannedQuery, SqlError> {
        let (plan, columns) = {
            let planning = Planning::new(&self.gateway.base, environment, catalog).with_parameters(parameters);
            let plan = planning.query(query, &types_of(parameters))?;
            check_parameters(&plan, parameters)?;
            let plan = planning.analyze(bind(plan, parameters)?)?;
            let columns = output_columns(&plan)?;
            check(cancel)?;
            (planning.optimize(plan)?, columns)
        };
        check(cancel)?;
        let plan = self.physical(&plan, cancel).await?;
        Ok(PlannedQuery { columns, plan, was_kept: false })
    }

    pub(super) async fn physical(
        &self,
        plan: &LogicalPlan,
        cancel: &CancellationToken,
    ) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let base = &self.gateway.base;
        let plan = cancellable(cancel, base.query_planner().create_physical_plan(plan, base)).await?;
        let leaves = self.settings().is_on("meridian.enable_leaves");
        Ok(stoppable(distribute(plan, leaves)?, cancel)?)
    }

    pub(super) async fn explain(
        &mut self,
        options: ExplainOptions,
        statement: &Statement,
        parameters: &[ScalarValue],
        cancel: &CancellationToken,
    ) -> Result<Outcome, SqlError> {
        let started = Instant::now();
        let (query, parameters) = match statement {
            Statement::Query(query) => (query.clone(), parameters.to_vec()),
            Statement::Execute { name, arguments } => {
                let prepared = self.find_prepared(name)?;
                let Statement::Query(query) = &prepared.statement else {
                    return Err(SqlError::unsupported("EXPLAIN of this statement is not supported"));
                };
                (query.clone(), self.evaluate_arguments(name, arguments, &prepared.parameters)?)
            }
            Statement::Insert(_) => return Err(SqlError::unsupported("EXPLAIN INSERT is not supported")),
            Statement::Refused(error) => return Err(error.clone()),
            _ => return Err(SqlError::unsupported("EXPLAIN of this statement is not supported")),
        };
        let PlannedQuery { plan, was_kept, .. } = self.plan_or_fill(&query, &parameters, cancel).await?;
        let planned = started.elapsed();
        let mut measured = None;
        if options.analyze {
            let mut rows = start(Arc::clone(&plan), &self.gateway, cancel)?;
            let began = Instant::now();
            while let Some(batch) = rows.next().await {
                batch?;
            }
            measured = Some(Measured { planning: planned, execution: began.elapsed() });
        }
        let view = self.gateway.cluster.catalog.current();
        let lines = if options.json {
            vec![explain_json(plan.as_ref(), &view, was_kept, measured.as_ref())]
        } else {
            explain_text(plan.as_ref(), &view, was_kept, measured.as_ref())
        };
        texts(vec![text_column("QUERY PLAN")], lines.into_iter().map(|line| vec![line]).collect(), "EXPLAIN")
    }

    /// The constants of `EXECUTE name(...)`.
    pub(super) fn evaluate_arguments(
        &self,
        name: &str,
        arguments: &[ast::Expr],
        types: &[SqlType],
    ) -> Result<Vec<ScalarValue>, SqlError> {
        if arguments.len() != types.len() {
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("Expected {} parameters but got {}.", types.len(), arguments.len());
            return Err(SqlError::new("42601", message).with_detail(detail));
        }
        let stamp = ReadStamp { snapshot: 0.into(), version: 0.into(), own: None, query: 0 };
        let catalog = self.catalog_of(self.gateway.cluster.catalog.current(), stamp);
        let planning = Planning::new(&self.gateway.base, self.environment(), &catalog);
        let evaluate = |(expr, sql_type): (&ast::Expr, &SqlType)| super::rows::constant_of(&planning, expr, sql_type);
        arguments.iter().zip(types).map(evaluate).collect()
    }
}

fn analyse(
    planning: &Planning,
    query: &ast::Query,
    known: &[Option<SqlType>],
) -> Result<(Vec<SqlType>, Vec<OutputColumn>), SqlError> {
    let known = with_places(query, known);
    let plan = planning.query(query, &known)?;
    let parameters = planning.parameter_types(&plan, &known)?;
    // Now that all parameters have types, so have all columns.
    let typed: Vec<_> = parameters.iter().cloned().map(Some).collect();
    let plan = if parameters.is_empty() { plan } else { planning.query(query, &typed)? };
    let plan = planning.analyze(plan)?;
    Ok((parameters, output_columns(&plan)?))
}

pub(super) fn types_of(parameters: &[ScalarValue]) -> Vec<Option<SqlType>> {
    parameters.iter().map(|value| SqlType::of_arrow(&value.data_type())).collect()
}

/// 42P02 for a parameter that nobody gave.
pub(super) fn check_parameters(plan: &LogicalPlan, parameters: &[ScalarValue]) -> Result<(), SqlError> {
    let number = |name: &String| name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
    match plan.get_parameter_names()?.iter().filter_map(number).find(|number| *number > parameters.len()) {
        Some(number) => Err(SqlError::new("42P02", format!("there is no parameter ${number}"))),
        None => Ok(()),
    }
}
