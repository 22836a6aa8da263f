//! The command line: nouns, verbs, flags. Each command ends in `Ok` or in a [`Failure`].

mod cluster;
mod config;
mod start;
pub mod table;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;

#[derive(Debug, Parser)]
#[command(
    name = "meridian",
    version,
    about = "A distributed time-series SQL database",
    after_help = "Exit codes: 0 ok, 1 failure, 2 wrong command line or configuration.\n\n\
                  Example: meridian start",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node; without arguments a whole database in one process
    #[command(after_help = start::EXAMPLES)]
    Start(Box<start::StartArgs>),
    /// Create a cluster, look at it
    Cluster {
        #[command(subcommand)]
        verb: cluster::ClusterVerb,
    },
    /// List and remove nodes
    Node {
        #[command(subcommand)]
        verb: cluster::NodeVerb,
    },
    /// Run a cluster of six processes with real data, in a temporary folder
    #[command(after_help = "Example: meridian demo --exit")]
    Demo(crate::demo::DemoArgs),
    /// Show and check the configuration
    Config {
        #[command(subcommand)]
        verb: config::ConfigVerb,
    },
    /// Print the version
    #[command(after_help = "Example: meridian version --json")]
    Version(OutputArgs),
}

/// How a reading command prints.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Start(args) => start::run(*args),
            Command::Cluster { verb } => cluster::run_cluster(verb),
            Command::Node { verb } => cluster::run_node(verb),
            Command::Demo(args) => crate::demo::run(args),
            Command::Config { verb } => config::run(verb),
            Command::Version(output) => version(output),
        }
    }
}

fn version(output: OutputArgs) -> Result<(), Failure> {
    let version = crate::version::Version::current();
    if output.json { print_json(&version.to_json()) } else { print_line(&version.to_string()) }
}

/// Prints a JSON document on stdout.
pub fn print_json(document: &serde_json::Value) -> Result<(), Failure> {
    print_line(&format!("{document:#}"))
}

/// Prints a line on stdout. A closed pipe (`| head`) is the reader's wish, not a failure.
pub fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("could not write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if command.get_subcommands().next().is_none() {
                assert!(help.contains("Example"), "{path} has no example");
            }
            command.get_subcommands().for_each(|verb| check(verb, &path));
        }
        check(&Cli::command(), "");
    }
}
