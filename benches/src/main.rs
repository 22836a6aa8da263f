//! `bench`: loads and queries any server that speaks the PostgreSQL protocol, and prints what it measured.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "engine")]
use benches::engine;
use benches::ingest::{Error, Ingest, Method};
use benches::mixed::Mixed;
use benches::tsbs::{Generator, Workload};
use benches::{compress, ingest, mixed, planning, process, queries, report};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

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
    /// Compresses the table that `ingest` loaded: rate, and bytes a row.
    Compress {
        #[command(flatten)]
        server: Server,
    },
    /// Loads the workload, then measures the latency of a steady ingest alone and beside full scans.
    Mixed {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shape: Shape,
        /// INSERTs a second, due by the clock.
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// Rows of one INSERT.
        #[arg(long, default_value_t = 10)]
        batch_rows: usize,
        /// Connections that insert.
        #[arg(long, default_value_t = 8)]
        connections: usize,
        /// Connections that scan.
        #[arg(long, default_value_t = 1)]
        scanners: usize,
        /// Of each phase.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Compress the loaded rows first.
        #[arg(long)]
        compress: bool,
    },
    /// Takes a small SELECT apart into protocol, planning and execution, on what `ingest` loaded.
    Planning {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        shape: Shape,
        #[arg(long, default_value_t = 500)]
        runs: usize,
    },
    /// Bytes a value and GB/s of every encoding of the engine, beside zstd, Gorilla and pco.
    #[cfg(feature = "engine")]
    Codecs {
        #[command(flatten)]
        shape: Shape,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Appends to a shard's log by 1, 8 and 64 writers, beside a plain loop of fdatasync.
    #[cfg(feature = "engine")]
    Wal {
        #[command(flatten)]
        disk: Disk,
        /// Rows of one append.
        #[arg(long, default_value_t = 10)]
        batch_rows: usize,
        #[arg(long, default_value_t = 5000)]
        milliseconds: u64,
    },
    /// Writes, flushes, compresses and scans the workload in one shard, beside a memory copy.
    #[cfg(feature = "engine")]
    Shard {
        #[command(flatten)]
        disk: Disk,
        #[command(flatten)]
        shape: Shape,
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
    /// Runs the statements of a JSON array on standard input, one after the other, and prints their milliseconds as one.
    Time {
        #[command(flatten)]
        server: Server,
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

#[cfg(feature = "engine")]
#[derive(Args)]
struct Disk {
    /// Where a temporary folder is made; its disk is what is measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
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

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match runtime_for(&command).map_err(Error::from).and_then(|runtime| runtime.block_on(run(command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// A client library says "db error", and what the server said only when it is asked for the cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// One connection needs one thread: handing each piece of an answer from a thread to another costs more than to read it.
fn runtime_for(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Planning { .. } => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
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
            let figures = queries::run(&server.url, shape.workload(), runs.max(1), only.as_deref())?;
            report::print(&figures, server.json);
        }
        Command::Compress { server } => {
            let client = ingest::connect(&server.url).await?;
            report::print(&compress::run(&client).await?, server.json);
        }
        Command::Mixed { server, shape, rate, batch_rows, connections, scanners, seconds, compress } => {
            let (workload, phase) = (shape.workload(), Duration::from_secs(seconds.max(1)));
            let (url, rate) = (server.url, rate.max(1));
            let mixed = Mixed { url, workload, rate, batch_rows, connections, scanners, phase, compress };
            report::print(&mixed::run(&mixed).await?, server.json);
        }
        Command::Planning { server, shape, runs } => {
            report::print(&planning::run(&server.url, shape.workload(), runs.max(1)).await?, server.json);
        }
        #[cfg(feature = "engine")]
        Command::Codecs { shape, rounds, json } => {
            report::print(&engine::codecs::run(shape.workload(), rounds)?, json);
        }
        #[cfg(feature = "engine")]
        Command::Wal { disk, batch_rows, milliseconds } => {
            let time = Duration::from_millis(milliseconds.max(1));
            report::print(&engine::wal::run(&disk.folder, batch_rows, time)?, disk.json);
        }
        #[cfg(feature = "engine")]
        Command::Shard { disk, shape } => {
            report::print(&engine::shard::run(&disk.folder, shape.workload())?, disk.json);
        }
        Command::Idle { binary, seconds, json } => {
            report::print(&process::run(binary, Duration::from_secs(seconds)).await?, json);
        }
        Command::Sql { shape, runs } => println!("{}", queries::sql(shape.workload(), runs.max(1))),
        Command::Time { server } => {
            let statements: Vec<String> = serde_json::from_reader(std::io::stdin().lock())?;
            println!("{}", serde_json::to_string(&queries::times(&server.url, &statements)?)?);
        }
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
