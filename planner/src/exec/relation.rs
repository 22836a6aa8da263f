//! What a `regclass` means: a table, or one of the chunks that hypertables consist of, by its name or OID.

use std::sync::Arc;

use meridian_proto::ChunkId;
use meridian_proto::catalog::{Chunk, ChunkState, Hypertable, Table};

use super::catalog::{Found, StatementCatalog};
use crate::error::SqlError;
use crate::sql::statement::Name;

/// SQL schema of the chunks.
pub(crate) const INTERNAL: &str = "_timescaledb_internal";

#[derive(Clone, Debug)]
pub(crate) enum Relation {
    Table(Arc<Table>),
    Chunk(Arc<Table>, Arc<Chunk>),
}

/// The name that TimescaleDB gives a chunk of a distributed hypertable.
pub(crate) fn chunk_name(hypertable: &Hypertable, chunk: ChunkId) -> String {
    format!("_dist_hyper_{}_{chunk}_chunk", hypertable.id)
}

/// The name as a `regclass` is written while `search_path` does not name its schema.
pub(crate) fn qualified_chunk_name(hypertable: &Hypertable, chunk: ChunkId) -> String {
    format!("{INTERNAL}.{}", chunk_name(hypertable, chunk))
}

/// Hypertable and chunk of such a name.
fn parse_chunk_name(name: &str) -> Option<(u32, ChunkId)> {
    let (hypertable, chunk) = name.strip_prefix("_dist_hyper_")?.strip_suffix("_chunk")?.split_once('_')?;
    Some((hypertable.parse().ok()?, ChunkId(chunk.parse().ok()?)))
}

impl Relation {
    /// Without its schema, as messages name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Table(table) => table.name.clone(),
            Self::Chunk(table, chunk) => {
                table.hypertable().map_or_else(|| table.name.clone(), |h| chunk_name(h, chunk.id))
            }
        }
    }
}

impl StatementCatalog {
    /// # Errors
    /// 42P01 when there is none, 42602 for what is no name.
    pub(crate) fn relation(&self, text: &str) -> Result<Relation, SqlError> {
        if let Ok(oid) = text.trim().parse::<u32>() {
            return self.relation_by_oid(oid);
        }
        let name = Name::parse(text)?;
        let found = match &name.schema {
            Some(schema) if schema == INTERNAL => self.chunk_by_name(&name.name),
            _ => self.resolve(&name).map(|found| Relation::Table(self.table_of(&found))),
        };
        found.ok_or_else(|| name.not_found())
    }

    fn relation_by_oid(&self, oid: u32) -> Result<Relation, SqlError> {
        let table = self.tables().into_iter().find(|table| table.id.0 == oid).map(Relation::Table);
        let chunk = || self.chunk(self.view.chunks().find(|chunk| chunk.oid == oid)?);
        let missing = || SqlError::new("42P01", format!("relation with OID {oid} does not exist"));
        table.or_else(chunk).ok_or_else(missing)
    }

    fn chunk_by_name(&self, name: &str) -> Option<Relation> {
        let (_, id) = parse_chunk_name(name)?;
        // The name that it has, and no other that reads the same, such as one with leading zeros.
        self.chunk(self.view.chunk(id)?).filter(|relation| relation.name() == name)
    }

    fn chunk(&self, chunk: &Arc<Chunk>) -> Option<Relation> {
        let table = self.view.table(chunk.table)?;
        let table = self.overlay.table(table)?;
        let is_there = chunk.state == ChunkState::Active && table.hypertable().is_some();
        is_there.then(|| Relation::Chunk(table, Arc::clone(chunk)))
    }

    /// The hypertable that a name means.
    ///
    /// # Errors
    /// TS001 for another table.
    pub(crate) fn hypertable(&self, text: &str) -> Result<Arc<Table>, SqlError> {
        match self.relation(text)? {
            Relation::Table(table) if table.hypertable().is_some() => Ok(table),
            other => {
                let message = format!("\"{}\" is not a hypertable or a continuous aggregate", other.name());
                Err(SqlError::new("TS001", message)
                    .with_hint("The operation is only possible on a hypertable or continuous aggregate."))
            }
        }
    }

    /// The chunks of a table in the order in which they were made.
    pub(crate) fn chunks_of(&self, table: &Table) -> Vec<Arc<Chunk>> {
        let active = self.view.chunks_of(table.id).filter(|chunk| chunk.state == ChunkState::Active);
        let mut chunks: Vec<_> = active.cloned().collect();
        chunks.sort_unstable_by_key(|chunk| chunk.id);
        chunks
    }

    /// All tables by schema and name.
    pub(crate) fn tables(&self) -> Vec<Arc<Table>> {
        self.all().into_values().map(|found| self.table_of(&found)).collect()
    }

    pub(crate) fn table_of(&self, found: &Found) -> Arc<Table> {
        match found {
            Found::Stored(table) => Arc::clone(table),
            Found::Pending(index) => Arc::clone(&self.overlay.created[*index].table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_names_are_read_as_they_are_written() {
        assert_eq!(parse_chunk_name("_dist_hyper_1_100_chunk"), Some((1, ChunkId(100))));
        for name in ["_dist_hyper_1_chunk", "_dist_hyper__1_chunk", "_dist_hyper_1_x_chunk", "_hyper_1_1_chunk", "t"] {
            assert_eq!(parse_chunk_name(name), None, "{name}");
        }
    }
}
