//! Cluster-wide settings. Names are the planner's; the one that the catalog itself reads is checked here.

use meridian_proto::Refusal;
use meridian_proto::catalog::NounKey;
use meridian_proto::command::Reply;

use super::{Catalog, Outcome};

/// Copies of each chunk of a hypertable that is created without saying.
pub const REPLICATION_FACTOR_DEFAULT: &str = "timescaledb.hypertable_replication_factor_default";
/// TimescaleDB's limit of that setting.
const REPLICATION_FACTOR_MAX: u32 = 65_536;

impl Catalog {
    pub(super) fn set_setting(&mut self, name: String, value: Option<String>) -> Outcome {
        if name.is_empty() {
            return Err(Refusal::catalog("42601", "zero-length delimited identifier"));
        }
        if let (REPLICATION_FACTOR_DEFAULT, Some(value)) = (name.as_str(), &value) {
            check_replication_factor(value)?;
        }
        if self.settings.get(&name) == value.as_ref() {
            return Ok(Reply::Done);
        }
        match value {
            Some(value) => self.settings.insert(name.clone(), value),
            None => self.settings.remove(&name),
        };
        self.changed.insert(NounKey::Setting(name));
        Ok(Reply::Done)
    }
}

fn check_replication_factor(value: &str) -> Result<(), Refusal> {
    let name = REPLICATION_FACTOR_DEFAULT;
    match value.parse::<u32>() {
        Err(_) => Err(Refusal::catalog("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))),
        Ok(1) => Ok(()),
        Ok(2..=REPLICATION_FACTOR_MAX) => Err(Refusal::catalog("0A000", "replication is not available yet")),
        Ok(factor) => {
            let range = format!("(1 .. {REPLICATION_FACTOR_MAX})");
            let message = format!("{factor} is outside the valid range for parameter \"{name}\" {range}");
            Err(Refusal::catalog("22023", message))
        }
    }
}
