//! `meridian demo`: a cluster of six processes on loopback, real data, five queries, and nothing left behind.
//!
//! `data` is what is loaded, `processes` the nodes, `load` the way in, `queries` the way out, `leftovers` what is left of
//! a demo that was killed, which the next one removes.

mod data;
mod leftovers;
mod load;
mod processes;
mod queries;

use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::Failure;
use crate::signals::Stop;
use processes::Cluster;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after the queries instead of staying up until Ctrl-C
    #[arg(long)]
    exit: bool,
}

/// How the demo came to its end.
enum End {
    Done,
    /// Ctrl-C or SIGTERM.
    Stopped,
}

pub fn run(args: DemoArgs) -> Result<(), Failure> {
    // One thread: the nodes die with the thread that started them, and this one lives to the end.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("could not start: {error}")))?
        .block_on(run_until_stopped(args.exit))
}

async fn run_until_stopped(exit: bool) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let temporary = std::env::temp_dir();
    for path in leftovers::remove(&temporary) {
        println!("Removed {}, left behind by a demo that was killed.", path.display());
    }
    let unusable = |error| Failure::path("create a folder in", &temporary, &error);
    let folder = tempfile::Builder::new().prefix(leftovers::FOLDER_PREFIX).tempdir_in(&temporary).map_err(unusable)?;
    let _lives = leftovers::hold(folder.path()).map_err(unusable)?;
    let mut cluster = Cluster::new(folder.path().to_owned());
    let result = tokio::select! {
        result = show(&mut cluster, exit) => result,
        () = stop.next() => Ok(End::Stopped),
    };
    if let Ok(End::Stopped) = result {
        println!("\nstopping ...");
    }
    let result = result.map_err(|failure| cluster.explain(failure));
    cluster.stop().await;
    folder.close().map_err(|error| Failure::failed(format!("could not remove the temporary folder: {error}")))?;
    result.map(|_| ())
}

/// The demo as its user sees it.
async fn show(cluster: &mut Cluster, exit: bool) -> Result<End, Failure> {
    let started = Instant::now();
    println!("Starting 3 access nodes and 3 data nodes in {}", cluster.folder().display());
    cluster.start().await?;
    println!("The cluster is ready after {:.1} s.\n", started.elapsed().as_secs_f64());

    let address = cluster.sql_address();
    let client = connect(&address).await?;
    load::load(&client).await?;
    for (number, query) in queries::QUERIES.iter().enumerate() {
        println!("\n{}. {}\n", number + 1, query.title);
        queries::run(&client, query).await?;
    }
    if exit {
        return Ok(End::Done);
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, "5433"));
    println!(
        "\nLook around:\n\n  psql -h {host} -p {port} -U meridian\n\nThe cluster runs until Ctrl-C, then it is gone."
    );
    // Ctrl-C ends the wait from outside; a node that dies ends it from inside.
    Err(cluster.first_to_die().await)
}

async fn connect(address: &str) -> Result<tokio_postgres::Client, Failure> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5433"));
    let mut config = tokio_postgres::Config::new();
    config.host(host).user("meridian").dbname("meridian").application_name("meridian demo");
    config.port(port.parse().unwrap_or(5433)).connect_timeout(Duration::from_secs(10));
    let (client, connection) = config
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(|error| Failure::failed(format!("could not connect to {address}: {}", sql_error(&error))))?;
    // It ends with the client; what breaks it reaches the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

/// A server's error with its code, or what the driver says.
fn sql_error(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}
