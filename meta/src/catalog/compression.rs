//! Compression settings of hypertables. Whether chunks are compressed is not known here: that is a fact of data nodes.

use meridian_proto::Refusal;
use meridian_proto::catalog::{Hypertable, Table, TableKind};
use meridian_proto::command::{Reply, SetCompression};
use meridian_proto::compression::Compression;

use super::{Catalog, Outcome};

impl Catalog {
    pub(super) fn set_compression(&mut self, set: &SetCompression) -> Outcome {
        let Some(id) = self.table_id(&set.namespace, &set.table) else {
            return Err(Refusal::catalog("42P01", format!("relation \"{}\" does not exist", set.table)));
        };
        let table = &self.tables[&id];
        let Some(hypertable) = table.hypertable() else {
            return Err(Refusal::catalog("TS001", format!("table \"{}\" is not a hypertable", set.table)));
        };
        let before = hypertable.compression.as_ref();
        let after = set
            .change
            .as_ref()
            .map(|change| Compression::changed(before, change, &table.schema, hypertable.time_column));
        let compression = after.transpose()?;
        if before == compression.as_ref() {
            return Ok(Reply::Done);
        }
        let kind = TableKind::Hypertable(Hypertable { compression, ..hypertable.clone() });
        let table = Table { kind, ..Table::clone(table) };
        self.put_table(table);
        Ok(Reply::Done)
    }
}
