//! The tables that a statement can name: those of its catalog view, as its own transaction changed them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemTable, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use futures::FutureExt;
use meridian_client::cluster::CatalogView;
use meridian_proto::catalog::Table;
use meridian_proto::{SqlType, TableId};

use super::chunk_rows::rows_of;
use super::columns::columns_view;
use super::information::{TIMESCALEDB_INFORMATION, information_table};
use super::source::FragmentSource;
use super::table::{MeridianTable, TableReader};
use super::upkeep::{self, Upkeep};
use crate::error::SqlError;
use crate::sql::environment::Environment;
use crate::sql::plan::Relations;
use crate::sql::set_function::SetCall;
use crate::sql::statement::Name;

pub(crate) const PUBLIC: &str = "public";
const INFORMATION_SCHEMA: &str = "information_schema";

/// A table that the open transaction made and nobody else knows yet, with its rows.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub table: Arc<Table>,
    pub rows: Vec<RecordBatch>,
}

/// What a transaction's DDL changes for its own later statements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    pub created: Vec<Pending>,
    pub dropped: Vec<TableId>,
    /// As they are after an ALTER TABLE.
    pub altered: BTreeMap<TableId, Arc<Table>>,
}

/// A table as it stands for a statement.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Stored(Arc<Table>),
    /// Index into [`Overlay::created`].
    Pending(usize),
}

impl Overlay {
    /// Whether the transaction changed no table.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.dropped.is_empty() && self.altered.is_empty()
    }

    pub(crate) fn find(&self, view: &CatalogView, namespace: &str, name: &str) -> Option<Found> {
        let own = |pending: &Pending| pending.table.namespace == namespace && pending.table.name == name;
        if let Some(index) = self.created.iter().position(own) {
            return Some(Found::Pending(index));
        }
        self.table(view.table_by_name(namespace, name)?).map(Found::Stored)
    }

    /// A table of the catalog as the transaction left it; `None`: dropped.
    pub(crate) fn table(&self, table: &Arc<Table>) -> Option<Arc<Table>> {
        let table = self.altered.get(&table.id).unwrap_or(table);
        (!self.dropped.contains(&table.id)).then(|| Arc::clone(table))
    }
}

/// One statement's catalog.
#[derive(Clone, Debug)]
pub(crate) struct StatementCatalog {
    pub view: Arc<CatalogView>,
    pub overlay: Arc<Overlay>,
    pub source: Arc<dyn FragmentSource>,
    pub upkeep: Arc<dyn Upkeep>,
    pub database: String,
    /// Whether unqualified names are looked for in `public`.
    pub searches_public: bool,
    /// Whether plans may read by other leaves than the plain scan.
    pub leaves: bool,
}

impl StatementCatalog {
    /// The table that a name means.
    pub(crate) fn resolve(&self, name: &Name) -> Option<Found> {
        let namespace = match &name.schema {
            Some(schema) => schema,
            None if self.searches_public => PUBLIC,
            None => return None,
        };
        self.overlay.find(&self.view, namespace, &name.name)
    }

    /// How its tables are read.
    pub(crate) fn reader(&self) -> TableReader {
        TableReader { view: Arc::clone(&self.view), source: Arc::clone(&self.source), leaves: self.leaves }
    }

    fn provider(&self, found: Found) -> Option<Arc<dyn TableProvider>> {
        match found {
            Found::Stored(table) => Some(Arc::new(MeridianTable::new(table, self.reader()))),
            Found::Pending(index) => {
                let pending = &self.overlay.created[index];
                let schema = pending.table.schema.arrow();
                MemTable::try_new(schema, vec![pending.rows.clone()])
                    .ok()
                    .map(|t| Arc::new(t) as Arc<dyn TableProvider>)
            }
        }
    }

    pub(super) fn all(&self) -> BTreeMap<(String, String), Found> {
        let mut all = BTreeMap::new();
        for table in self.view.tables().filter_map(|table| self.overlay.table(table)) {
            all.insert((table.namespace.clone(), table.name.clone()), Found::Stored(table));
        }
        for (index, pending) in self.overlay.created.iter().enumerate() {
            all.insert((pending.table.namespace.clone(), pending.table.name.clone()), Found::Pending(index));
        }
        all
    }
}

impl Relations for StatementCatalog {
    fn find(&self, schema: Option<&str>, name: &str) -> Option<Arc<dyn TableProvider>> {
        if schema == Some(INFORMATION_SCHEMA) && name == "columns" {
            return Some(columns_view(self));
        }
        if schema == Some(INFORMATION_SCHEMA) {
            let provider = InformationSchemaProvider::new(Arc::new(self.clone()));
            // Made of what is in memory: it never waits.
            return provider.table(name).now_or_never()?.ok()?;
        }
        if schema == Some(TIMESCALEDB_INFORMATION) {
            return information_table(self, name);
        }
        let name = Name { schema: schema.map(str::to_owned), name: name.to_owned() };
        self.provider(self.resolve(&name)?)
    }

    fn function(&self, name: &str, environment: &Arc<Environment>) -> Option<Arc<ScalarUDF>> {
        upkeep::find(name, self, environment)
    }

    fn time_type(&self, relation: &str) -> Result<SqlType, SqlError> {
        let table = self.hypertable(relation)?;
        let time = table.hypertable().and_then(|hypertable| table.schema.column(hypertable.time_column));
        time.map(|column| column.sql_type.clone())
            .ok_or_else(|| SqlError::new("XX000", format!("table \"{}\" has no time column", table.name)))
    }

    fn rows_of(&self, call: SetCall) -> Result<Arc<dyn TableProvider>, SqlError> {
        rows_of(self, call)
    }
}

// DataFusion's information_schema walks these.

impl CatalogProviderList for StatementCatalog {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.database.clone()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == self.database).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.all().into_keys().map(|(namespace, _)| namespace).collect();
        names.push(PUBLIC.to_owned());
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schema_names()
            .contains(&name.to_owned())
            .then(|| Arc::new(Namespace { catalog: self.clone(), name: name.to_owned() }) as Arc<dyn SchemaProvider>)
    }
}

#[derive(Debug)]
struct Namespace {
    catalog: StatementCatalog,
    name: String,
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        self.catalog.all().into_keys().filter(|(namespace, _)| *namespace == self.name).map(|(_, name)| name).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.catalog.find(Some(&self.name), name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}
