//! What the demo loads: nycflights13, carried by the binary, and the tables for it.

/// A table with its content.
pub struct Dataset {
    pub table: &'static str,
    pub rows: u64,
    /// Of the CSV text.
    pub bytes: u64,
    /// zstd over CSV with a header line; `NA` is NULL.
    pub compressed: &'static [u8],
    /// CREATE TABLE, and for a hypertable what makes it one.
    pub statements: &'static [&'static str],
}

/// Reference tables first: the rest refers to them.
pub const DATASETS: &[Dataset] = &[
    Dataset {
        table: "airlines",
        rows: 16,
        bytes: 386,
        compressed: include_bytes!("../../data/nycflights13/airlines.csv.zst"),
        statements: &["CREATE TABLE airlines (carrier text NOT NULL, name text NOT NULL)"],
    },
    Dataset {
        table: "airports",
        rows: 1_458,
        bytes: 104_302,
        compressed: include_bytes!("../../data/nycflights13/airports.csv.zst"),
        statements: &["CREATE TABLE airports (
            faa text NOT NULL, name text, lat double precision, lon double precision, alt integer, tz integer,
            dst text, tzone text)"],
    },
    Dataset {
        table: "planes",
        rows: 3_322,
        bytes: 247_198,
        compressed: include_bytes!("../../data/nycflights13/planes.csv.zst"),
        statements: &["CREATE TABLE planes (
            tailnum text NOT NULL, year integer, type text, manufacturer text, model text, engines integer,
            seats integer, speed integer, engine text)"],
    },
    Dataset {
        table: "weather",
        rows: 26_115,
        bytes: 2_294_215,
        compressed: include_bytes!("../../data/nycflights13/weather.csv.zst"),
        statements: &[
            "CREATE TABLE weather (
                origin text NOT NULL, year integer, month integer, day integer, hour integer, temp double precision,
                dewp double precision, humid double precision, wind_dir integer, wind_speed double precision,
                wind_gust double precision, precip double precision, pressure double precision,
                visib double precision, time_hour timestamptz NOT NULL)",
            "SELECT create_distributed_hypertable('weather', 'time_hour', 'origin',
                chunk_time_interval => INTERVAL '30 days')",
        ],
    },
    Dataset {
        table: "flights",
        rows: 336_776,
        bytes: 31_053_850,
        compressed: include_bytes!("../../data/nycflights13/flights.csv.zst"),
        statements: &[
            "CREATE TABLE flights (
                year integer, month integer, day integer, dep_time integer, sched_dep_time integer,
                dep_delay integer, arr_time integer, sched_arr_time integer, arr_delay integer,
                carrier text NOT NULL, flight integer, tailnum text, origin text NOT NULL, dest text,
                air_time integer, distance integer, hour integer, minute integer, time_hour timestamptz NOT NULL)",
            "SELECT create_distributed_hypertable('flights', 'time_hour', 'carrier',
                chunk_time_interval => INTERVAL '30 days')",
        ],
    },
];

impl Dataset {
    /// The CSV text, decompressed while it is read.
    pub fn reader(&self) -> std::io::Result<impl std::io::Read + use<>> {
        zstd::stream::read::Decoder::new(self.compressed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_carried_files_are_what_the_list_says() {
        for dataset in DATASETS {
            let mut text = String::new();
            dataset.reader().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text.len() as u64, dataset.bytes, "{}", dataset.table);
            assert_eq!(text.lines().count() as u64 - 1, dataset.rows, "{}", dataset.table);
        }
    }
}
