//! A SQL connection with the few shapes of question that tests ask.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::PATIENCE;

pub struct Sql {
    pub client: Client,
    connection: tokio::task::JoinHandle<()>,
}

impl Sql {
    /// Connects; tries again while the node is on its way up.
    pub async fn connect(port: u16) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::try_connect(port).await {
                Ok(sql) => return sql,
                Err(error) if Instant::now() > deadline => panic!("could not connect to port {port}: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub async fn try_connect(port: u16) -> Result<Self, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user("meridian").dbname("meridian");
        config.connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        let connection = tokio::spawn(async move {
            // An error of the connection also fails the call that is waiting.
            let _ = connection.await;
        });
        Ok(Self { client, connection })
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn run(&self, sql: &str) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        let sql = sql.to_owned();
        async move {
            if let Err(error) = self.client.batch_execute(&sql).await {
                panic!("{place}: {sql}: {}", error_of(&error));
            }
        }
    }

    /// Runs a statement that must fail; answers its SQLSTATE and message.
    #[track_caller]
    pub fn fail(&self, sql: &str) -> impl Future<Output = (String, String)> {
        let place = std::panic::Location::caller();
        let sql = sql.to_owned();
        async move {
            match self.client.batch_execute(&sql).await {
                Ok(()) => panic!("{place}: {sql}: should fail"),
                Err(error) => {
                    let message = error.as_db_error().map(|db| db.message().to_owned());
                    (sqlstate_of(&error), message.unwrap_or_else(|| error.to_string()))
                }
            }
        }
    }

    /// Rows as text, columns separated by `|`, NULL as `-`.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> impl Future<Output = Vec<String>> {
        let place = std::panic::Location::caller();
        let sql = sql.to_owned();
        async move {
            match self.try_rows(&sql).await {
                Ok(rows) => rows,
                Err(error) => panic!("{place}: {sql}: {}", error_of(&error)),
            }
        }
    }

    pub async fn try_rows(&self, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<_> = (0..row.len()).map(|column| row.get(column).unwrap_or("-")).collect();
                Some(cells.join("|"))
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The only cell of the only row.
    #[track_caller]
    pub fn one(&self, sql: &str) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        let rows = self.rows(sql);
        let sql = sql.to_owned();
        async move {
            let rows = rows.await;
            assert_eq!(rows.len(), 1, "{place}: {sql}: {rows:?}");
            rows.into_iter().next().unwrap_or_default()
        }
    }

    /// COPY FROM STDIN with this data; answers the rows that the server counted.
    pub async fn copy(&self, statement: &str, data: &str) -> Result<u64, tokio_postgres::Error> {
        let sink = self.client.copy_in::<_, Bytes>(statement).await?;
        let mut sink = std::pin::pin!(sink);
        for piece in data.as_bytes().chunks(32 << 10) {
            sink.send(Bytes::copy_from_slice(piece)).await?;
        }
        sink.finish().await
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The SQLSTATE, or empty when the error is not the server's.
pub fn sqlstate_of(error: &tokio_postgres::Error) -> String {
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

pub fn error_of(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {} {:?}", db.code().code(), db.message(), db.where_()),
        None => error.to_string(),
    }
}
