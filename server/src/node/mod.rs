//! A node: what its configuration says, as a process. From bound ports and a locked folder over its roles to an end in
//! order.

mod access;
mod data;
mod folder;
mod grpc;
mod ports;
mod scheduling;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use meridian_client::cluster::{Channels, Cluster, MetaClient};
use serde_json::json;
use tokio::sync::RwLock;

use crate::admin::{Admin, Health, Phase, Sources};
use crate::config::Config;
use crate::failure::Failure;
use crate::signals::Stop;
use crate::version::Version;
use access::Access;
use folder::DataFolder;
use grpc::{Grpc, Services};
use meridian_datanode::DataNode;
use ports::{Ports, local_address};

/// Of every thread. Plans are walked recursively: 2000 operators x 5 KiB = 10 MiB; what is not used takes no memory.
const STACK_BYTES: usize = 32 << 20;
/// Time that tasks of the runtime have to notice the end.
const RUNTIME_END_TIMEOUT: Duration = Duration::from_secs(1);

/// Addresses as they turned out: a port 0 has become a port.
struct Addresses {
    /// Access nodes only.
    sql: Option<String>,
    sql_advertised: Option<String>,
    cluster: String,
    cluster_advertised: String,
    admin: String,
}

/// The parts of a running node. They fill up while it starts.
struct Node {
    config: Config,
    addresses: Addresses,
    folder: DataFolder,
    channels: Channels,
    services: Services,
    health: Health,
    sources: Sources,
    grpc: Option<Grpc>,
    access: Option<Access>,
    /// Shared with the figures.
    data: Arc<RwLock<Option<DataNode>>>,
}

/// Runs a node until it is told to stop.
pub fn run(config: Config, json: bool) -> Result<(), Failure> {
    if config.role.has_data() {
        meridian_datanode::probe_io_uring().map_err(Failure::failed)?;
    }
    // Before the folder: a start that fails here has touched nothing.
    let ports = Ports::bind(&config)?;
    let folder = DataFolder::open(&config.data_dir)?;
    folder.check(config.role)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("meridian")
        .thread_stack_size(STACK_BYTES)
        .on_thread_start(scheduling::take_short_turns)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("could not start: {error}")))?;
    let result = runtime.block_on(run_until_stopped(config, ports, folder, json));
    runtime.shutdown_timeout(RUNTIME_END_TIMEOUT);
    result
}

async fn run_until_stopped(config: Config, ports: Ports, folder: DataFolder, json: bool) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let mut node = Node::new(config, Addresses::of(&ports)?, folder);
    tracing::info!(version = %Version::current(), role = node.config.role.name(), "starting");
    if json {
        node.announce()?;
    }
    let started = tokio::select! {
        started = node.start(ports) => started,
        // A stop that comes first finds whatever parts are up.
        () = stop.next() => return node.drain(stop).await,
    };
    if let Err(failure) = started {
        node.shutdown().await;
        return Err(failure);
    }
    if !json {
        node.greet()?;
    }
    tracing::info!("serving");
    let failure = tokio::select! {
        () = stop.next() => None,
        failure = node.failed() => Some(failure),
    };
    node.drain(stop).await?;
    failure.map_or(Ok(()), Err)
}

impl Addresses {
    fn of(ports: &Ports) -> Result<Self, Failure> {
        let sql = ports.sql.as_ref().map(local_address).transpose()?.map(|address| address.to_string());
        let cluster = local_address(&ports.cluster)?.to_string();
        Ok(Self {
            sql_advertised: sql.clone(),
            sql,
            cluster_advertised: cluster.clone(),
            cluster,
            admin: local_address(&ports.admin)?.to_string(),
        })
    }
}

impl Node {
    fn new(config: Config, mut addresses: Addresses, folder: DataFolder) -> Self {
        if let Some(advertised) = &config.cluster_advertise {
            addresses.cluster_advertised.clone_from(advertised);
        }
        if let (Some(_), Some(advertised)) = (&addresses.sql, &config.sql_advertise) {
            addresses.sql_advertised = Some(advertised.clone());
        }
        Self {
            config,
            addresses,
            folder,
            channels: Channels::new(),
            services: Services::default(),
            health: Health::default(),
            sources: Sources::default(),
            grpc: None,
            access: None,
            data: Arc::default(),
        }
    }

    /// Starts the roles, the access node's member first: the data node joins through it.
    async fn start(&mut self, ports: Ports) -> Result<(), Failure> {
        let local = self.channels.listen_local(&self.addresses.cluster_advertised);
        self.grpc = Some(Grpc::start(ports.cluster, local, self.services.clone())?);
        let meta = MetaClient::new(self.channels.clone(), self.access_addresses());
        let admin = Admin { health: self.health.clone(), meta, sources: self.sources.clone() };
        crate::admin::start(ports.admin, admin)?;

        if self.config.role.has_access() {
            self.access = Some(Access::start(self).await?);
        }
        let cluster = Cluster::start(self.channels.clone(), self.access_addresses());
        if self.config.role.has_data() {
            self.waits_for("the data node to open its shards");
            let data = data::start(self, cluster.clone()).await?;
            self.services.add(data.service());
            self.channels.set_data_node(&self.addresses.cluster_advertised, data.local());
            *self.data.write().await = Some(data);
            data::set_figures(&self.sources, &self.data, &cluster);
        }
        if let (Some(access), Some(sql)) = (&mut self.access, ports.sql) {
            self.health.set(Phase::Starting("SQL to open".to_owned()));
            access.open_sql(&self.config, cluster, sql, self.folder.temporary_files()?).await?;
            access.set_figures(&self.sources);
        }
        self.health.set(Phase::Serving);
        Ok(())
    }

    /// Whom to ask for the meta group: this node's own member, and those it joins.
    fn access_addresses(&self) -> Vec<String> {
        let own = self.config.role.has_access().then(|| self.addresses.cluster_advertised.clone());
        own.into_iter().chain(self.config.join.iter().cloned()).collect()
    }

    fn waits_for(&self, what: &str) {
        tracing::info!("waiting for {what}");
        self.health.set(Phase::Starting(format!("waiting for {what}")));
    }

    /// Waits until a part cannot go on.
    async fn failed(&self) -> Failure {
        let access = async {
            match &self.access {
                Some(access) => access.failed().await,
                None => std::future::pending().await,
            }
        };
        // Not under the lock: the figures want it, and the end does.
        let data = self.data.read().await.as_ref().map(DataNode::failed);
        let data = async {
            match data {
                Some(data) => Failure::failed(format!("the data node cannot go on: {}", data.await)),
                None => std::future::pending().await,
            }
        };
        let grpc = async {
            match &self.grpc {
                Some(grpc) => grpc.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failure = access => failure,
            failure = data => failure,
            failure = grpc => failure,
        }
    }

    async fn drain(mut self, stop: Stop) -> Result<(), Failure> {
        tracing::info!("draining; a second signal ends the process at once");
        stop.exit_on_next();
        self.health.set(Phase::Draining);
        self.shutdown().await;
        tracing::info!("ended");
        Ok(())
    }

    /// From the outside in: first no statement comes in any more, last goes what others still ask.
    async fn shutdown(&mut self) {
        if let Some(access) = &mut self.access {
            access.close_sql().await;
        }
        if let Some(data) = self.data.write().await.take() {
            data.shutdown().await;
        }
        if let Some(access) = self.access.take() {
            access.shutdown().await;
        }
        if let Some(grpc) = self.grpc.take() {
            grpc.shutdown().await;
        }
    }

    /// One line of JSON for whoever started the process.
    fn announce(&self) -> Result<(), Failure> {
        let line = json!({
            "role": self.config.role.name(),
            "process": std::process::id(),
            "sql": self.addresses.sql,
            "cluster": self.addresses.cluster,
            "admin": self.addresses.admin,
            "data_dir": self.config.data_dir,
        });
        print(&format!("{line}\n"))
    }

    /// What a person who typed `meridian start` wants to know.
    fn greet(&self) -> Result<(), Failure> {
        let Version { number, .. } = Version::current();
        let folder = self.config.data_dir.display();
        let mut text = format!("Meridian {number} runs: {}. Data is in {folder}.\n", self.roles());
        if let Some(address) = &self.addresses.sql {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "5433"));
            text.push_str(&format!(
                "SQL is open on {address}. Database and superuser `meridian` exist; connections are trusted \
                 (no password), so keep it on loopback.\n\n  psql -h {host} -p {port} -U meridian\n\n"
            ));
        }
        text.push_str("Ctrl-C stops it; the data stays.\n");
        print(&text)
    }

    fn roles(&self) -> String {
        let shards = self.data.try_read().ok().and_then(|data| data.as_ref().map(DataNode::shard_count));
        let data = shards.map(|shards| {
            let plural = if shards == 1 { "" } else { "s" };
            format!("one data node ({shards} shard{plural})")
        });
        let access = self.config.role.has_access().then(|| "one access node".to_owned());
        access.into_iter().chain(data).collect::<Vec<_>>().join(" and ")
    }
}

/// stdout may be a closed pipe, and a node does not end for that.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("could not write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
