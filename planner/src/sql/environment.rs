//! What expressions of a statement can ask about their session. Fixed when the statement starts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meridian_pgtypes::Format;

use crate::outcome::Notices;
use crate::settings::Settings;

#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// Shared with the session: `set_config` changes them.
    pub settings: Arc<Mutex<Settings>>,
    /// What the session tells its client beside the answer.
    pub notices: Notices,
    /// Whether the transaction may change anything.
    pub read_only: bool,
    pub user: String,
    pub database: String,
    pub pid: i32,
    /// How texts are read and written; `now_us` is the start of the transaction.
    pub format: Arc<Format>,
    pub transaction_us: i64,
    pub statement_us: i64,
}

impl Environment {
    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The zone's name as `timezone()` reads it; `None` for UTC.
    pub(crate) fn zone(&self) -> Option<String> {
        let zone = &self.format.time_zone;
        match zone.fixed_offset_s() {
            Some(0) => None,
            // POSIX counts west of Greenwich.
            Some(east) => {
                let (sign, size) = (if east > 0 { '-' } else { '+' }, east.unsigned_abs());
                Some(format!("{sign}{:02}:{:02}:{:02}", size / 3600, size / 60 % 60, size % 60))
            }
            None => Some(zone.name().to_owned()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn environment(zone: &str) -> Arc<Environment> {
        let mut settings = Settings::new("meridian", &[]).unwrap();
        settings.set("timezone", zone, false).unwrap();
        let now_us = 1_700_000_000_000_000;
        Arc::new(Environment {
            format: Arc::new(settings.format(Some(now_us))),
            settings: Arc::new(Mutex::new(settings)),
            notices: Notices::default(),
            read_only: false,
            user: "meridian".to_owned(),
            database: "meridian".to_owned(),
            pid: 7,
            transaction_us: now_us,
            statement_us: now_us + 1,
        })
    }

    #[test]
    fn zones_are_named_as_timezone_reads_them() {
        assert_eq!(environment("UTC").zone(), None);
        assert_eq!(environment("Europe/Berlin").zone().as_deref(), Some("Europe/Berlin"));
        assert_eq!(environment("5.5").zone().as_deref(), Some("-05:30:00"));
    }
}
