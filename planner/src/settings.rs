//! Run-time parameters: one registry behind SET, SHOW, RESET, `current_setting` and `set_config`. A session holds only
//! what differs from the defaults; what a transaction set goes back when it is rolled back, what SET LOCAL set when it
//! ends either way.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use meridian_pgtypes::{ByteaOutput, Format, TimeZone};

use crate::error::SqlError;

pub const SERVER_VERSION: &str = "15.13";

/// What a parameter's values look like, and how they are checked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bool,
    Integer {
        min: i64,
        max: i64,
        unit: Unit,
    },
    Real {
        min: f64,
        max: f64,
    },
    Enum(&'static [&'static str]),
    Text,
    TimeZone,
    /// Only `ISO`, in any order of day, month and year that PostgreSQL's default reads.
    DateStyle,
    Encoding,
    /// Told, never set.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    None,
    Ms,
    KiB,
}

struct Definition {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Told to the client when it changes (ParameterStatus).
    reported: bool,
    /// For SHOW ALL.
    about: &'static str,
}

const INTEGER_MAX: i64 = i32::MAX as i64;

macro_rules! definitions {
    ($($name:literal = $default:literal, $kind:expr, $reported:literal, $about:literal;)*) => {
        &[$(Definition { name: $name, default: $default, kind: $kind, reported: $reported, about: $about },)*]
    };
}

const fn integer(min: i64, max: i64, unit: Unit) -> Kind {
    Kind::Integer { min, max, unit }
}

const LEVELS: Kind =
    Kind::Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error", "info"]);
const ISOLATIONS: Kind = Kind::Enum(&["read uncommitted", "read committed", "repeatable read"]);

/// By name. Many are here because clients set them; they change nothing.
static DEFINITIONS: &[Definition] = definitions! {
    "application_name" = "", Kind::Text, true, "Sets the application name to be reported in statistics and logs.";
    "array_nulls" = "on", Kind::Bool, false, "Enable input of NULL elements in arrays.";
    "backslash_quote" = "safe_encoding", Kind::Enum(&["safe_encoding", "on", "off"]), false, "Sets whether \"\\'\" is allowed in string literals.";
    "backtrace_functions" = "", Kind::Text, false, "Log backtrace for errors in these functions.";
    "block_size" = "8192", Kind::Fixed, false, "Shows the size of a disk block.";
    "bytea_output" = "hex", Kind::Enum(&["hex", "escape"]), false, "Sets the output format for bytea.";
    "check_function_bodies" = "on", Kind::Bool, false, "Check routine bodies during CREATE FUNCTION and CREATE PROCEDURE.";
    "client_encoding" = "UTF8", Kind::Encoding, true, "Sets the client's character set encoding.";
    "client_min_messages" = "notice", LEVELS, false, "Sets the message levels that are sent to the client.";
    "cursor_tuple_fraction" = "0.1", Kind::Real { min: 0.0, max: 1.0 }, false, "Sets the planner's estimate of the fraction of a cursor's rows that will be retrieved.";
    "data_directory_mode" = "0700", Kind::Fixed, false, "Shows the mode of the data directory.";
    "DateStyle" = "ISO, MDY", Kind::DateStyle, true, "Sets the display format for date and time values.";
    "default_table_access_method" = "heap", Kind::Text, false, "Sets the default table access method for new tables.";
    "default_tablespace" = "", Kind::Text, false, "Sets the default tablespace to create tables and indexes in.";
    "default_text_search_config" = "pg_catalog.english", Kind::Text, false, "Sets default text search configuration.";
    "default_transaction_deferrable" = "off", Kind::Bool, false, "Sets the default deferrable status of new transactions.";
    "default_transaction_isolation" = "read committed", ISOLATIONS, false, "Sets the transaction isolation level of each new transaction.";
    "default_transaction_read_only" = "off", Kind::Bool, true, "Sets the default read-only status of new transactions.";
    "effective_cache_size" = "4194304", integer(1, INTEGER_MAX, Unit::None), false, "Sets the planner's assumption about the total size of the data caches.";
    "enable_seqscan" = "on", Kind::Bool, false, "Enables the planner's use of sequential-scan plans.";
    "enable_bitmapscan" = "on", Kind::Bool, false, "Enables the planner's use of bitmap-scan plans.";
    "enable_hashagg" = "on", Kind::Bool, false, "Enables the planner's use of hashed aggregation plans.";
    "enable_hashjoin" = "on", Kind::Bool, false, "Enables the planner's use of hash join plans.";
    "enable_indexonlyscan" = "on", Kind::Bool, false, "Enables the planner's use of index-only-scan plans.";
    "enable_indexscan" = "on", Kind::Bool, false, "Enables the planner's use of index-scan plans.";
    "enable_mergejoin" = "on", Kind::Bool, false, "Enables the planner's use of merge join plans.";
    "enable_nestloop" = "on", Kind::Bool, false, "Enables the planner's use of nested-loop join plans.";
    "enable_sort" = "on", Kind::Bool, false, "Enables the planner's use of explicit sort steps.";
    "escape_string_warning" = "on", Kind::Bool, false, "Warn about backslash escapes in ordinary string literals.";
    "extra_float_digits" = "1", integer(-15, 3, Unit::None), false, "Sets the number of digits displayed for floating-point values.";
    "force_parallel_mode" = "off", Kind::Enum(&["off", "on", "regress"]), false, "Forces use of parallel query facilities.";
    "from_collapse_limit" = "8", integer(1, INTEGER_MAX, Unit::None), false, "Sets the FROM-list size beyond which subqueries are not collapsed.";
    "geqo" = "on", Kind::Bool, false, "Enables genetic query optimization.";
    "hot_standby" = "on", Kind::Fixed, false, "Allows connections and queries during recovery.";
    "idle_in_transaction_session_timeout" = "0", integer(0, INTEGER_MAX, Unit::Ms), false, "Sets the maximum allowed idle time between queries, when in a transaction.";
    "idle_session_timeout" = "0", integer(0, INTEGER_MAX, Unit::Ms), false, "Sets the maximum allowed idle time between queries, when not in a transaction.";
    "in_hot_standby" = "off", Kind::Fixed, true, "Shows whether hot standby is currently active.";
    "integer_datetimes" = "on", Kind::Fixed, true, "Shows whether datetimes are integer based.";
    "IntervalStyle" = "postgres", Kind::Enum(&["postgres"]), true, "Sets the display format for interval values.";
    "jit" = "off", Kind::Bool, false, "Allow JIT compilation.";
    "join_collapse_limit" = "8", integer(1, INTEGER_MAX, Unit::None), false, "Sets the FROM-list size beyond which JOIN constructs are not flattened.";
    "lc_collate" = "C", Kind::Fixed, false, "Shows the collation order locale.";
    "lc_ctype" = "C.UTF-8", Kind::Fixed, false, "Shows the character classification and case conversion locale.";
    "lc_messages" = "C", Kind::Text, false, "Sets the language in which messages are displayed.";
    "lc_monetary" = "C", Kind::Text, false, "Sets the locale for formatting monetary amounts.";
    "lc_numeric" = "C", Kind::Text, false, "Sets the locale for formatting numbers.";
    "lc_time" = "C", Kind::Text, false, "Sets the locale for formatting date and time values.";
    "listen_addresses" = "localhost", Kind::Fixed, false, "Sets the host name or IP address(es) to listen to.";
    "lock_timeout" = "0", integer(0, INTEGER_MAX, Unit::Ms), false, "Sets the maximum allowed duration of any wait for a lock.";
    "log_min_duration_statement" = "-1", integer(-1, INTEGER_MAX, Unit::Ms), false, "Sets the minimum execution time above which all statements will be logged.";
    "log_statement" = "none", Kind::Enum(&["none", "ddl", "mod", "all"]), false, "Sets the type of statements logged.";
    "maintenance_work_mem" = "65536", integer(1024, INTEGER_MAX, Unit::KiB), false, "Sets the maximum memory to be used for maintenance operations.";
    "max_connections" = "1000", Kind::Fixed, false, "Sets the maximum number of concurrent connections.";
    "max_identifier_length" = "63", Kind::Fixed, false, "Shows the maximum identifier length.";
    "max_index_keys" = "32", Kind::Fixed, false, "Shows the maximum number of index keys.";
    "max_parallel_workers_per_gather" = "2", integer(0, 1024, Unit::None), false, "Sets the maximum number of parallel processes per executor node.";
    "meridian.enable_leaves" = "on", Kind::Bool, false, "Enables answers from metadata, series directories and ends of series instead of scans of all rows, and whole rows instead of an aggregate per column.";
    "meridian.enable_plan_cache" = "on", Kind::Bool, false, "Enables plans that are kept from one statement to the next.";
    "password_encryption" = "scram-sha-256", Kind::Enum(&["scram-sha-256", "md5"]), false, "Chooses the algorithm for encrypting passwords.";
    "plan_cache_mode" = "auto", Kind::Enum(&["auto", "force_generic_plan", "force_custom_plan"]), false, "Controls the planner's selection of custom or generic plan.";
    "port" = "5433", Kind::Fixed, false, "Sets the TCP port the server listens on.";
    "quote_all_identifiers" = "off", Kind::Bool, false, "When generating SQL fragments, quote all identifiers.";
    "random_page_cost" = "4", Kind::Real { min: 0.0, max: f64::MAX }, false, "Sets the planner's estimate of the cost of a nonsequentially fetched disk page.";
    "row_security" = "on", Kind::Bool, false, "Enable row security.";
    "search_path" = "\"$user\", public", Kind::Text, false, "Sets the schema search order for names that are not schema-qualified.";
    "seq_page_cost" = "1", Kind::Real { min: 0.0, max: f64::MAX }, false, "Sets the planner's estimate of the cost of a sequentially fetched disk page.";
    "server_encoding" = "UTF8", Kind::Fixed, true, "Shows the server (database) character set encoding.";
    "server_version" = "15.13", Kind::Fixed, true, "Shows the server version.";
    "server_version_num" = "150013", Kind::Fixed, false, "Shows the server version as an integer.";
    "session_authorization" = "", Kind::Fixed, true, "Sets the session user name.";
    "is_superuser" = "on", Kind::Fixed, true, "Shows whether the current user is a superuser.";
    "session_replication_role" = "origin", Kind::Enum(&["origin", "replica", "local"]), false, "Sets the session's behavior for triggers and rewrite rules.";
    "shared_preload_libraries" = "timescaledb", Kind::Fixed, false, "Lists shared libraries to preload into server.";
    "ssl" = "off", Kind::Fixed, false, "Enables SSL connections.";
    "standard_conforming_strings" = "on", Kind::Enum(&["on"]), true, "Causes '...' strings to treat backslashes literally.";
    "statement_timeout" = "0", integer(0, INTEGER_MAX, Unit::Ms), false, "Sets the maximum allowed duration of any statement.";
    "synchronize_seqscans" = "on", Kind::Bool, false, "Enable synchronized sequential scans.";
    "synchronous_commit" = "on", Kind::Enum(&["on", "off", "local", "remote_write", "remote_apply"]), false, "Sets the current transaction's synchronization level.";
    "tcp_keepalives_idle" = "0", integer(0, INTEGER_MAX, Unit::None), false, "Time between issuing TCP keepalives.";
    "temp_buffers" = "1024", integer(100, INTEGER_MAX, Unit::None), false, "Sets the maximum number of temporary buffers used by each session.";
    "TimeZone" = "UTC", Kind::TimeZone, true, "Sets the time zone for displaying and interpreting time stamps.";
    "transaction_deferrable" = "off", Kind::Bool, false, "Whether to defer a read-only serializable transaction.";
    "transaction_isolation" = "read committed", ISOLATIONS, false, "Sets the current transaction's isolation level.";
    "transaction_read_only" = "off", Kind::Bool, false, "Sets the current transaction's read-only status.";
    "vacuum_cost_delay" = "0", Kind::Real { min: 0.0, max: 100.0 }, false, "Vacuum cost delay in milliseconds.";
    "wal_level" = "replica", Kind::Fixed, false, "Sets the level of information written to the WAL.";
    "work_mem" = "4096", integer(64, INTEGER_MAX, Unit::KiB), false, "Sets the maximum memory to be used for query workspaces.";
    "xmlbinary" = "base64", Kind::Enum(&["base64", "hex"]), false, "Sets how binary values are to be encoded in XML.";
    "xmloption" = "content", Kind::Enum(&["content", "document"]), false, "Sets whether XML data is to be considered as documents or content fragments.";
};

static BY_NAME: LazyLock<HashMap<String, &'static Definition>> =
    LazyLock::new(|| DEFINITIONS.iter().map(|d| (d.name.to_ascii_lowercase(), d)).collect());

/// A row of SHOW ALL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub description: &'static str,
}

type Values = BTreeMap<String, String>;

/// The parameters of one session. Keys are names in small letters; values are in the form in which they are shown.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What RESET goes back to, where it is not the registry's default.
    start: Values,
    current: Values,
    transaction: Option<Saved>,
    told: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug)]
struct Saved {
    /// In force again after a rollback.
    before: Values,
    /// In force after a commit.
    after: Values,
}

impl Settings {
    /// `startup`: what the client sent when it connected. Parameters that are not ours (`user`, `database`) are the
    /// caller's to leave out.
    pub fn new(user: &str, startup: &[(String, String)]) -> Result<Self, SqlError> {
        let mut settings = Self::default();
        settings.start.insert("session_authorization".to_owned(), user.to_owned());
        for (name, value) in startup {
            if name == "options" {
                for (name, value) in parse_options(value)? {
                    settings.start_with(&name, &value)?;
                }
            } else {
                settings.start_with(name, value)?;
            }
        }
        Ok(settings)
    }

    fn start_with(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let key = canonical_key(name);
        let value = check(&key, value)?;
        self.start.insert(key, value);
        Ok(())
    }

    /// The shown value. 42704 for an unknown name.
    pub fn get(&self, name: &str) -> Result<String, SqlError> {
        let key = canonical_key(name);
        self.find(&key).ok_or_else(|| unrecognized(name))
    }

    fn find(&self, key: &str) -> Option<String> {
        let set = self.current.get(key).or_else(|| self.start.get(key));
        let value = set.cloned().or_else(|| BY_NAME.get(key).map(|d| d.default.to_owned()))?;
        Some(match BY_NAME.get(key).map(|d| d.kind) {
            Some(Kind::Integer { unit, .. }) => show_integer(&value, unit),
            _ => value,
        })
    }

    fn raw(&self, key: &str) -> &str {
        let set = self.current.get(key).or_else(|| self.start.get(key)).map(String::as_str);
        set.or_else(|| BY_NAME.get(key).map(|d| d.default)).unwrap_or_default()
    }

    /// Sets a parameter. `local`: until the end of the transaction. Returns the value as shown.
    pub fn set(&mut self, name: &str, value: &str, local: bool) -> Result<String, SqlError> {
        let key = canonical_key(name);
        let value = check(&key, value)?;
        self.put(&key, Some(value), local);
        self.get(name)
    }

    /// Back to the value that the session began with.
    pub fn reset(&mut self, name: &str, local: bool) -> Result<(), SqlError> {
        let key = canonical_key(name);
        match BY_NAME.get(&key) {
            Some(definition) if definition.kind == Kind::Fixed => Err(cannot_change(definition.name)),
            None if !key.contains('.') => Err(unrecognized(name)),
            _ => {
                self.put(&key, None, local);
                Ok(())
            }
        }
    }

    pub fn reset_all(&mut self) {
        self.current.clear();
        if let Some(saved) = &mut self.transaction {
            saved.after.clear();
        }
    }

    fn put(&mut self, key: &str, value: Option<String>, local: bool) {
        let write = |values: &mut Values| match &value {
            Some(value) => values.insert(key.to_owned(), value.clone()),
            None => values.remove(key),
        };
        write(&mut self.current);
        if let Some(saved) = self.transaction.as_mut().filter(|_| !local) {
            write(&mut saved.after);
        }
    }

    pub fn begin(&mut self) {
        if self.transaction.is_none() {
            self.transaction = Some(Saved { before: self.current.clone(), after: self.current.clone() });
        }
    }

    pub fn end(&mut self, committed: bool) {
        if let Some(saved) = self.transaction.take() {
            self.current = if committed { saved.after } else { saved.before };
        }
    }

    /// Name as registered, for the column of SHOW.
    #[must_use]
    pub fn display_name(name: &str) -> String {
        let key = canonical_key(name);
        BY_NAME.get(&key).map_or(key, |definition| definition.name.to_owned())
    }

    #[must_use]
    pub fn all(&self) -> Vec<Setting> {
        let mut all: Vec<_> = DEFINITIONS
            .iter()
            .map(|definition| Setting {
                name: definition.name.to_owned(),
                value: self.find(&definition.name.to_ascii_lowercase()).unwrap_or_default(),
                description: definition.about,
            })
            .collect();
        all.sort_by_key(|setting| setting.name.to_ascii_lowercase());
        all
    }

    /// Parameters that a client is told at its start.
    pub fn reported(&mut self) -> Vec<(String, String)> {
        self.told.clear();
        self.take_changed()
    }

    /// Reported parameters whose value is another than was last told.
    pub fn take_changed(&mut self) -> Vec<(String, String)> {
        let mut changed = Vec::new();
        for definition in DEFINITIONS.iter().filter(|definition| definition.reported) {
            let value = self.find(&definition.name.to_ascii_lowercase()).unwrap_or_default();
            if self.told.get(definition.name) != Some(&value) {
                self.told.insert(definition.name, value.clone());
                changed.push((definition.name.to_owned(), value));
            }
        }
        changed
    }

    #[must_use]
    pub fn time_zone(&self) -> TimeZone {
        TimeZone::parse(self.raw("timezone")).unwrap_or_else(TimeZone::utc)
    }

    #[must_use]
    pub fn format(&self, now_us: Option<i64>) -> Format {
        Format {
            time_zone: self.time_zone(),
            extra_float_digits: self.raw("extra_float_digits").parse().unwrap_or(1),
            bytea_output: if self.raw("bytea_output") == "escape" { ByteaOutput::Escape } else { ByteaOutput::Hex },
            now_us,
        }
    }

    #[must_use]
    pub fn statement_timeout(&self) -> Option<Duration> {
        let ms: u64 = self.raw("statement_timeout").parse().unwrap_or(0);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.raw(name) == "on"
    }

    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.raw(name)
    }
}

fn canonical_key(name: &str) -> String {
    let key = name.trim().to_ascii_lowercase();
    if key == "time zone" { "timezone".to_owned() } else { key }
}

fn unrecognized(name: &str) -> SqlError {
    SqlError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

fn cannot_change(name: &str) -> SqlError {
    SqlError::new("55P02", format!("parameter \"{name}\" cannot be changed"))
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::new("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
}

/// The value as it is kept.
fn check(key: &str, value: &str) -> Result<String, SqlError> {
    let Some(definition) = BY_NAME.get(key) else {
        // Names with a dot are the client's own.
        return if key.contains('.') { Ok(value.to_owned()) } else { Err(unrecognized(key)) };
    };
    let name = definition.name;
    match definition.kind {
        Kind::Fixed if value == definition.default => Ok(value.to_owned()),
        Kind::Fixed => Err(cannot_change(name)),
        Kind::Bool => parse_bool(value)
            .map(|on| if on { "on" } else { "off" }.to_owned())
            .ok_or_else(|| SqlError::new("22023", format!("parameter \"{name}\" requires a Boolean value"))),
        Kind::Integer { min, max, unit } => {
            let number = parse_integer(value, unit).ok_or_else(|| invalid(name, value))?;
            if (min..=max).contains(&number) {
                return Ok(number.to_string());
            }
            let message = format!("{number} is outside the valid range for parameter \"{name}\" ({min} .. {max})");
            Err(SqlError::new("22023", message))
        }
        Kind::Real { min, max } => match value.trim().parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
            _ => Err(invalid(name, value)),
        },
        Kind::Enum(values) => check_enum(name, value, values),
        Kind::Text => Ok(value.to_owned()),
        Kind::TimeZone => TimeZone::parse(value).map(|zone| zone.name().to_owned()).ok_or_else(|| invalid(name, value)),
        Kind::DateStyle => check_date_style(value),
        Kind::Encoding => {
            match value.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
                "utf8" | "unicode" => Ok("UTF8".to_owned()),
                _ => Err(SqlError::unsupported(format!("client encoding \"{value}\" is not supported"))
                    .with_hint("Use UTF8.")),
            }
        }
    }
}

fn check_enum(name: &str, value: &str, values: &[&str]) -> Result<String, SqlError> {
    if let Some(known) = values.iter().find(|known| known.eq_ignore_ascii_case(value)) {
        return Ok((*known).to_owned());
    }
    if name.ends_with("transaction_isolation") && value.eq_ignore_ascii_case("serializable") {
        return Err(SqlError::unsupported("isolation level SERIALIZABLE is not supported")
            .with_hint("REPEATABLE READ is snapshot isolation."));
    }
    // PostgreSQL takes booleans for enums that have on and off.
    if let Some(on) = parse_bool(value) {
        let word = if on { "on" } else { "off" };
        if values.contains(&word) {
            return Ok(word.to_owned());
        }
    }
    let known_elsewhere = matches!(name, "IntervalStyle" | "standard_conforming_strings");
    if known_elsewhere {
        return Err(SqlError::unsupported(format!("{name} can only be {}", values.join(" or "))));
    }
    Err(invalid(name, value).with_hint(format!("Available values: {}.", values.join(", "))))
}

fn check_date_style(value: &str) -> Result<String, SqlError> {
    let mut order = "MDY";
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.trim_matches('"').to_ascii_uppercase().as_str() {
            "ISO" | "DEFAULT" => {}
            "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => order = "MDY",
            "DMY" | "EURO" | "EUROPEAN" | "YMD" | "SQL" | "POSTGRES" | "GERMAN" => {
                return Err(SqlError::unsupported(format!("DateStyle \"{value}\" is not supported"))
                    .with_hint("Use ISO, MDY; dates written as 2024-12-31 are read the same in every style."));
            }
            _ => return Err(invalid("DateStyle", value)),
        }
    }
    Ok(format!("ISO, {order}"))
}

/// PostgreSQL's booleans: `on`, `off`, `true`, `false`, `yes`, `no`, `1`, `0`, and unambiguous beginnings.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Some(true)
    } else if text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}

/// In the parameter's own unit.
fn parse_integer(text: &str, unit: Unit) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '+' || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let factor = match (unit, text[digits..].trim()) {
        (_, "") => 1.0,
        (Unit::Ms, "us") => 0.001,
        (Unit::Ms, "ms") => 1.0,
        (Unit::Ms, "s") => 1000.0,
        (Unit::Ms, "min") => 60_000.0,
        (Unit::Ms, "h") => 3_600_000.0,
        (Unit::Ms, "d") => 86_400_000.0,
        (Unit::KiB, "B") => 1.0 / 1024.0,
        (Unit::KiB, "kB") => 1.0,
        (Unit::KiB, "MB") => 1024.0,
        (Unit::KiB, "GB") => 1_048_576.0,
        (Unit::KiB, "TB") => 1_073_741_824.0,
        _ => return None,
    };
    let value = (number * factor).round();
    (value.abs() < 9e15).then_some(value as i64)
}

/// In the greatest unit that divides it, as PostgreSQL shows it.
fn show_integer(raw: &str, unit: Unit) -> String {
    let units: &[(i64, &str)] = match unit {
        Unit::None => return raw.to_owned(),
        Unit::Ms => &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")],
        Unit::KiB => &[(1_073_741_824, "TB"), (1_048_576, "GB"), (1024, "MB"), (1, "kB")],
    };
    match raw.parse::<i64>() {
        Ok(number) if number > 0 => {
            let fitting = units.iter().find(|(size, _)| number % size == 0);
            fitting.map_or_else(|| raw.to_owned(), |(size, name)| format!("{}{name}", number / size))
        }
        _ => raw.to_owned(),
    }
}

/// `-c name=value` and `--name=value`, with backslashes before spaces.
fn parse_options(text: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (c, _) if c.is_whitespace() => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut options = Vec::new();
    let malformed =
        |word: &str| SqlError::new("42601", format!("invalid command-line argument for server process: {word}"));
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().ok_or_else(|| malformed(&word))?,
            Some(setting) => setting.to_owned(),
            None => return Err(malformed(&word)),
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| malformed(&word))?;
        options.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("meridian", &[]).unwrap()
    }

    fn shown(name: &str, value: &str) -> String {
        settings().set(name, value, false).unwrap()
    }

    #[test]
    fn values_are_shown_as_postgresql_shows_them() {
        assert_eq!(shown("statement_timeout", "5000"), "5s");
        assert_eq!(shown("statement_timeout", "1.5min"), "90s");
        assert_eq!(shown("work_mem", "65536"), "64MB");
        assert_eq!(shown("JIT", "tru"), "on");
        assert_eq!(shown("timezone", "europe/berlin"), "Europe/Berlin");
        assert_eq!(shown("datestyle", "iso"), "ISO, MDY");
        assert_eq!(shown("my.own", "x"), "x");
    }

    #[test]
    fn wrong_names_and_values_are_refused() {
        let code = |name: &str, value: &str| settings().set(name, value, false).unwrap_err().sqlstate;
        assert_eq!(code("nonsense", "1"), "42704");
        assert_eq!(code("timezone", "Mars/Olympus"), "22023");
        assert_eq!(code("server_version", "16"), "55P02");
        assert_eq!(code("extra_float_digits", "4"), "22023");
        assert_eq!(code("client_encoding", "latin1"), "0A000");
        assert_eq!(code("jit", "perhaps"), "22023");
        assert_eq!(settings().get("nonsense").unwrap_err().sqlstate, "42704");
    }

    #[test]
    fn a_transaction_gives_back_what_it_set() {
        let mut settings = settings();
        settings.set("timezone", "Asia/Tokyo", false).unwrap();
        settings.begin();
        settings.set("timezone", "Europe/Berlin", true).unwrap();
        settings.set("application_name", "a", false).unwrap();
        settings.end(true);
        assert_eq!(settings.get("timezone").unwrap(), "Asia/Tokyo");
        assert_eq!(settings.get("application_name").unwrap(), "a");
        settings.begin();
        settings.set("application_name", "b", false).unwrap();
        settings.end(false);
        assert_eq!(settings.get("application_name").unwrap(), "a");
        settings.reset("timezone", false).unwrap();
        assert_eq!(settings.get("TimeZone").unwrap(), "UTC");
    }

    #[test]
    fn changes_are_told_once() {
        let mut settings = settings();
        assert!(settings.reported().contains(&("server_version".to_owned(), SERVER_VERSION.to_owned())));
        assert!(settings.take_changed().is_empty());
        settings.set("timezone", "Asia/Tokyo", false).unwrap();
        assert_eq!(settings.take_changed(), [("TimeZone".to_owned(), "Asia/Tokyo".to_owned())]);
        assert!(settings.take_changed().is_empty());
    }

    #[test]
    fn options_of_the_start_are_what_reset_goes_back_to() {
        let options = "-c statement_timeout=1s --search-path=a\\ b -cjit=off".to_owned();
        let mut settings = Settings::new("u", &[("options".to_owned(), options)]).unwrap();
        assert_eq!(settings.get("search_path").unwrap(), "a b");
        settings.set("statement_timeout", "0", false).unwrap();
        settings.reset_all();
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(1)));
    }
}
