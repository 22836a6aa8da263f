//! The command line: nouns, verbs, flags. Each command ends in `Ok` or in a [`Failure`].

mod cluster;
mod config;
mod start;
pub mod table;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;

#[derive(Debug, Parser)]
#[command(
    name = "meridian",
    version,
    about = "A distributed time-series SQL database",
    after_help = "\
Exit codes: 0 ok, 1 failure, 2 wrong command line or configuration.

Examples:
  meridian start                      a whole database in this process; data in ./meridian-data
  meridian demo                       a cluster of six processes with real data
  meridian cluster status --json",
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
    #[command(after_help = "\
Examples:
  meridian cluster init --cluster 10.0.0.1:5435
  meridian cluster status --cluster 10.0.0.1:5435,10.0.0.2:5435 --json")]
    Cluster {
        #[command(subcommand)]
        verb: cluster::ClusterVerb,
    },
    /// List and remove nodes
    #[command(after_help = "\
Examples:
  meridian node list --cluster 10.0.0.1:5435
  meridian node remove dn4")]
    Node {
        #[command(subcommand)]
        verb: cluster::NodeVerb,
    },
    /// Run a cluster of six processes with real data, in a temporary folder
    #[command(after_help = "Example: meridian demo --exit")]
    Demo(crate::demo::DemoArgs),
    /// Show and check the configuration
    #[command(after_help = "\
Examples:
  meridian config show --origin
  meridian config check --config an1.toml")]
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
    /// The command line. Where help or the version was asked for, prints that and ends the process.
    pub fn read() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => told(&error),
        })
    }

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

/// A mistake on the command line as one line, without the usage that clap prints behind it.
fn told(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more information").next().unwrap_or_default();
    let said = said.trim().trim_start_matches("error: ").replace("\n\n", "; ");
    Failure::usage(format!("{said}; `--help` tells more"))
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
    fn a_mistake_on_the_command_line_is_told_in_one_line() {
        let check = |arguments: &[&str], expected: &str| {
            let error = Cli::try_parse_from(["meridian"].iter().chain(arguments)).unwrap_err();
            assert_eq!(told(&error).to_string(), format!("{expected}; `--help` tells more"));
        };
        check(&["start", "--bogus"], "unexpected argument '--bogus' found");
        check(&["nod"], "unrecognized subcommand 'nod'; tip: a similar subcommand exists: 'node'");
        check(&["node", "remove"], "the following required arguments were not provided: <NODE>");
        check(
            &["node", "list", "--cluster", "a:1,b"],
            "invalid value 'b' for '--cluster <ADDRESSES>': wants an address such as 127.0.0.1:5433, not \"b\"",
        );
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} has no example");
            command.get_subcommands().for_each(|verb| check(verb, &path));
        }
        check(&Cli::command(), "");
    }
}
