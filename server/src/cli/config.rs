//! `meridian config`: what the node would run with, and where each value came from.

use clap::Subcommand;
use serde_json::json;

use super::start::ConfigArgs;
use super::table::Table;
use super::{OutputArgs, print_json, print_line};
use crate::config::{Config, Settings};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every key with its value
    #[command(after_help = "Example: meridian config show --origin --config an1.toml")]
    Show {
        #[command(flatten)]
        config: Box<ConfigArgs>,
        #[command(flatten)]
        output: OutputArgs,
        /// Also print which layer each value came from
        #[arg(long)]
        origin: bool,
    },
    /// Check the configuration as `start` would, without starting anything
    #[command(after_help = "Example: meridian config check --config an1.toml")]
    Check {
        #[command(flatten)]
        config: Box<ConfigArgs>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub fn run(verb: ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Show { config, output, origin } => show(&config.settings()?, output, origin),
        ConfigVerb::Check { config, output } => check(&config, output),
    }
}

fn show(settings: &Settings, output: OutputArgs, origin: bool) -> Result<(), Failure> {
    if output.json {
        let keys = settings.iter().map(|(key, _, origin)| {
            json!({
                "key": key.name,
                "value": settings.text(key.name),
                "origin": origin.to_string(),
                "meaning": key.meaning,
                "variable": key.variable(),
            })
        });
        return print_json(&json!({ "keys": keys.collect::<Vec<_>>() }));
    }
    if origin {
        let mut table = Table::new(&["key", "value", "origin"]);
        for (key, value, origin) in settings.iter() {
            table.push(vec![key.name.to_owned(), value.written(key.form), origin.to_string()]);
        }
        return print_line(table.to_string().trim_end());
    }
    print_line(&as_file(settings))
}

/// The settings as a config file that means the same.
fn as_file(settings: &Settings) -> String {
    let mut text = String::new();
    let mut section_before = "";
    for (key, value, _) in settings.iter() {
        let (section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if section != section_before {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{section}]\n"));
            section_before = section;
        }
        text.push_str(&format!("{name} = {}  # {}\n", value.written(key.form), key.meaning));
    }
    text.trim_end().to_owned()
}

fn check(args: &ConfigArgs, output: OutputArgs) -> Result<(), Failure> {
    let config = Config::from_settings(&args.settings()?)?;
    if output.json {
        return print_json(&json!({ "ok": true, "role": config.role.name() }));
    }
    print_line(&format!("configuration is fine: role {}, data in {}", config.role.name(), config.data_dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_show_prints_is_a_config_file_that_means_the_same() {
        let flags = vec![("cluster.join".to_owned(), "a:1,b:2".to_owned(), "--join".to_owned())];
        let settings = Settings::load(&Sources { flags, ..Sources::default() }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(&file, as_file(&settings)).unwrap();
        let again = Settings::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        assert!(as_file(&settings).contains("memtable = \"256MiB\"  # "), "{}", as_file(&settings));
        for (key, value, _) in settings.iter() {
            assert_eq!(value, again.iter().find(|(other, ..)| other.name == key.name).unwrap().1, "{}", key.name);
        }
    }
}
