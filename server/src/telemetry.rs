//! Logs: tracing to stderr, pretty for people or JSON for machines.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::failure::Failure;

/// Starts logging for the life of the process.
pub fn start(config: &Config) -> Result<(), Failure> {
    let filter = config.log_filter.parse::<EnvFilter>().map_err(Failure::usage)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Pretty => builder.with_ansi(is_terminal()).with_target(true).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::failed(format!("could not start logging: {error}")))
}

/// Colours only where somebody sees them; `NO_COLOR` is respected.
fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}
