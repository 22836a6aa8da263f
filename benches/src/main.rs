//! `bench`: loads and queries any server that speaks the PostgreSQL protocol, and prints what it measured.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::ingest::{Error, Ingest, Method};
use benches::tsbs::{Generator, Workload};
use benches::{ingest, process, queries, report};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about, after_help = "Example: bench ingest --url postgresql://meridian@127.0.0.1:5433/meridian --hours 72")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads the workload into a new table `cpu`.
    Ingest {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shape: Shape,
        #[arg(long, value_enum, default_value = "copy")]
        method: Method,
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Rows of one statement; 0: one COPY per connection.
        #[arg(long, default_value_t = 0)]
        batch_rows: usize,
        /// Make a plain table, for servers without hypertables.
        #[arg(long)]
        plain: bool,
    },
    /// Runs the query set on what `ingest` loaded (same hosts, hours and seed).
    Queries {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shape: Shape,
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// Only the query of this name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Starts a node in a temporary folder: time until SQL, idle CPU, idle memory.
    Idle {
        /// The meridian binary; the one beside this by default.
        #[arg(long)]
        binary: Option<PathBuf>,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the SQL of the query set as JSON, for other programs.
    Sql {
        #[command(flatten)]
        shape: Shape,
        #[arg(long, default_value_t = 20)]
        runs: usize,
    },
    /// Prints the rows as CSV.
    Generate {
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Args)]
struct Server {
    #[arg(long, default_value = "postgresql://meridian@127.0.0.1:5433/meridian")]
    url: String,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Shape {
    #[arg(long, default_value_t = 100)]
    hosts: u32,
    #[arg(long, default_value_t = 72)]
    hours: u64,
    /// Decimals of the metrics, 0 or 2.
    #[arg(long, default_value_t = 0)]
    decimals: u8,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Shape {
    fn workload(&self) -> Workload {
        let steps = self.hours * 3600 / benches::tsbs::STEP_SECONDS;
        Workload { hosts: self.hosts, steps, decimals: self.decimals, seed: self.seed }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Ingest { server, shape, method, connections, batch_rows, plain } => {
            // An INSERT of all rows would be one message; 1000 rows are what drivers send.
            let batch_rows = if method == Method::Insert && batch_rows == 0 { 1000 } else { batch_rows };
            let workload = shape.workload();
            let connections = connections.max(1);
            let ingest = Ingest { url: server.url, workload, method, connections, batch_rows, plain };
            report::print(&ingest::run(&ingest).await?, server.json);
        }
        Command::Queries { server, shape, runs, only } => {
            let figures = queries::run(&server.url, shape.workload(), runs.max(1), only.as_deref()).await?;
            report::print(&figures, server.json);
        }
        Command::Idle { binary, seconds, json } => {
            report::print(&process::run(binary, Duration::from_secs(seconds)).await?, json);
        }
        Command::Sql { shape, runs } => println!("{}", queries::sql(shape.workload(), runs.max(1))),
        Command::Generate { shape } => generate(shape.workload())?,
    }
    Ok(())
}

fn generate(workload: Workload) -> Result<(), Error> {
    let mut generator = Generator::new(workload);
    let mut out = std::io::stdout().lock();
    let mut csv = String::new();
    while generator.csv(1000, &mut csv) > 0 {
        out.write_all(csv.as_bytes())?;
        csv.clear();
    }
    Ok(())
}
