//! `meridian start`: turns flags into the topmost layer of the configuration and runs the node.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, Settings, Sources};
use crate::failure::Failure;

pub const EXAMPLES: &str = "\
Examples:
  meridian start
  meridian start --role access --name an1 --config an1.toml
  meridian start --role data --join 10.0.0.1:5435 --cluster-listen 10.0.0.4:5435 --data-dir /var/lib/meridian";

/// Flags of every command that reads the configuration.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); also MERIDIAN_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What this process is: all, access or data
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Name of the node
    #[arg(long)]
    name: Option<String>,
    /// Folder that this node alone writes to
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// Access nodes of the cluster to join, separated by commas
    #[arg(long, value_name = "ADDRESSES")]
    join: Option<String>,
    /// Address for SQL
    #[arg(long, value_name = "ADDRESS")]
    sql_listen: Option<String>,
    /// Address for other nodes
    #[arg(long, value_name = "ADDRESS")]
    cluster_listen: Option<String>,
    /// Address that other nodes are told
    #[arg(long, value_name = "ADDRESS")]
    cluster_advertise: Option<String>,
    /// Address for health and metrics
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Shards of the data node; 0: one per core
    #[arg(long, value_name = "COUNT")]
    shards: Option<String>,
    /// Log lines: pretty or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Log levels: `info,meridian_meta=debug`
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Any other key: `--set data.memtable=128MiB`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the addresses as one line of JSON once they are bound
    #[arg(long)]
    json: bool,
}

pub fn run(args: StartArgs) -> Result<(), Failure> {
    let config = Config::from_settings(&args.config.settings()?)?;
    crate::telemetry::start(&config)?;
    crate::node::run(config, args.json)
}

impl ConfigArgs {
    /// The settings with these flags on top.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let mut sources = Sources::from_environment();
        if self.config.is_some() {
            sources.file.clone_from(&self.config);
        }
        sources.flags = self.flags()?;
        Settings::load(&sources)
    }

    fn flags(&self) -> Result<Vec<(String, String, String)>, Failure> {
        let named = [
            ("--role", "node.role", &self.role),
            ("--name", "node.name", &self.name),
            ("--data-dir", "node.data_dir", &self.data_dir),
            ("--join", "cluster.join", &self.join),
            ("--sql-listen", "sql.listen", &self.sql_listen),
            ("--cluster-listen", "cluster.listen", &self.cluster_listen),
            ("--cluster-advertise", "cluster.advertise", &self.cluster_advertise),
            ("--admin-listen", "admin.listen", &self.admin_listen),
            ("--shards", "data.shards", &self.shards),
            ("--log-format", "log.format", &self.log_format),
            ("--log-filter", "log.filter", &self.log_filter),
        ];
        let mut flags = Vec::new();
        for (flag, key, value) in named {
            if let Some(value) = value {
                flags.push((key.to_owned(), value.clone(), flag.to_owned()));
            }
        }
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::usage(format!("--set wants KEY=VALUE, not \"{pair}\"")));
            };
            flags.push((key.to_owned(), value.to_owned(), "--set".to_owned()));
        }
        Ok(flags)
    }
}
