//! Messages to the client, put behind one another into the connection's output buffer. Layouts are pgwire's; DataRow and
//! CopyData, which come by the million, are written by the modules that make their values.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus as WireStatus,
};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};

use super::frontend::HEAD_BYTES;
use crate::error::SqlError;
use crate::outcome::{Notice, OutputColumn};
use crate::session::TransactionStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Fields as in PostgreSQL's "Error and Notice Message Fields".
pub fn error(output: &mut BytesMut, severity: Severity, error: &SqlError) {
    let mut fields = fields(severity.name(), &error.sqlstate, &error.message);
    let optional = [
        (b'D', error.detail.clone()),
        (b'H', error.hint.clone()),
        (b'P', error.position.map(|position| position.to_string())),
        (b'W', error.context.clone()),
    ];
    fields.extend(optional.into_iter().filter_map(|(code, value)| Some((code, without_zero(&value?)))));
    put(output, &ErrorResponse::new(fields));
}

pub fn notice(output: &mut BytesMut, notice: &Notice) {
    let mut fields = fields(notice.severity, &notice.sqlstate, &notice.message);
    fields.extend(notice.hint.as_ref().map(|hint| (b'H', without_zero(hint))));
    put(output, &NoticeResponse::new(fields));
}

fn fields(severity: &str, sqlstate: &str, message: &str) -> Vec<(u8, String)> {
    vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', without_zero(sqlstate)),
        (b'M', without_zero(message)),
    ]
}

/// Strings on the wire end at their first zero byte; one inside a message would cut the frame in two.
fn without_zero(text: &str) -> String {
    text.replace('\0', "")
}

pub fn ready_for_query(output: &mut BytesMut, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => WireStatus::Idle,
        TransactionStatus::Open => WireStatus::Transaction,
        TransactionStatus::Failed => WireStatus::Error,
    };
    put(output, &ReadyForQuery::new(status));
}

pub fn command_complete(output: &mut BytesMut, tag: &str) {
    put(output, &CommandComplete::new(tag.to_owned()));
}

pub fn empty_query(output: &mut BytesMut) {
    put(output, &EmptyQueryResponse::new());
}

pub fn parse_complete(output: &mut BytesMut) {
    put(output, &ParseComplete::new());
}

pub fn bind_complete(output: &mut BytesMut) {
    put(output, &BindComplete::new());
}

pub fn close_complete(output: &mut BytesMut) {
    put(output, &CloseComplete::new());
}

pub fn portal_suspended(output: &mut BytesMut) {
    put(output, &PortalSuspended::new());
}

pub fn no_data(output: &mut BytesMut) {
    put(output, &NoData::new());
}

pub fn parameter_description(output: &mut BytesMut, oids: Vec<u32>) {
    put(output, &ParameterDescription::new(oids));
}

/// `binary`: one per column.
pub fn row_description(output: &mut BytesMut, columns: &[OutputColumn], binary: &[bool]) {
    let fields = columns.iter().zip(binary).map(|(column, &binary)| {
        FieldDescription::new(
            without_zero(&column.name),
            column.table_oid.cast_signed(),
            column.attnum,
            column.sql_type.oid(),
            column.sql_type.typlen(),
            column.typmod,
            i16::from(binary),
        )
    });
    put(output, &RowDescription::new(fields.collect()));
}

pub fn copy_in_response(output: &mut BytesMut, binary: bool, column_count: usize) {
    let (count, formats) = copy_formats(binary, column_count);
    put(output, &CopyInResponse::new(i8::from(binary), count, formats));
}

pub fn copy_out_response(output: &mut BytesMut, binary: bool, column_count: usize) {
    let (count, formats) = copy_formats(binary, column_count);
    put(output, &CopyOutResponse::new(i8::from(binary), count, formats));
}

fn copy_formats(binary: bool, column_count: usize) -> (i16, Vec<i16>) {
    // A table has far fewer columns than the wire can count; saturate rather than panic.
    let count = i16::try_from(column_count).unwrap_or(i16::MAX);
    (count, vec![i16::from(binary); usize::try_from(count).unwrap_or_default()])
}

pub fn copy_done(output: &mut BytesMut) {
    put(output, &CopyDone::new());
}

pub fn authentication_ok(output: &mut BytesMut) {
    put(output, &Authentication::Ok);
}

pub fn parameter_status(output: &mut BytesMut, name: &str, value: &str) {
    put(output, &ParameterStatus::new(without_zero(name), without_zero(value)));
}

pub fn backend_key(output: &mut BytesMut, pid: i32, secret: &[u8]) {
    put(output, &BackendKeyData::new(pid, SecretKey::Bytes(bytes::Bytes::copy_from_slice(secret))));
}

pub fn negotiate_version(output: &mut BytesMut, version: i32, unknown_options: Vec<String>) {
    put(output, &NegotiateProtocolVersion::new(version, unknown_options));
}

fn put(output: &mut BytesMut, message: &impl Message) {
    let start = output.len();
    if let Err(error) = message.encode(output) {
        // Half a message would garble all that follow.
        output.truncate(start);
        tracing::error!(error = %error, "a message to the client could not be encoded");
    }
}

/// Begins a message whose length is known only at its end; [`end_message`] takes what this returns.
pub fn begin_message(output: &mut BytesMut, kind: u8) -> usize {
    let start = output.len();
    output.put_u8(kind);
    output.put_u32(0);
    start
}

pub fn end_message(output: &mut BytesMut, start: usize) {
    let length = output.len() - start - 1;
    // Values come from batches of at most some thousand rows; 4 GiB in one row cannot arise before memory ends.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    output[start + 1..start + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_all_its_fields() {
        let mut output = BytesMut::new();
        let refused = SqlError::new("22P02", "bad\0 value")
            .with_detail("d")
            .with_hint("h")
            .with_position(7)
            .with_context("COPY t, line 3");
        error(&mut output, Severity::Error, &refused);
        let body = b"SERROR\0VERROR\0C22P02\0Mbad value\0Dd\0Hh\0P7\0WCOPY t, line 3\0\0";
        assert_eq!(output[0], b'E');
        assert_eq!(output[1..5], u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        assert_eq!(&output[5..], body);
    }

    #[test]
    fn a_message_knows_its_length_at_its_end() {
        let mut output = BytesMut::from(&b"before"[..]);
        let start = begin_message(&mut output, b'd');
        output.put_slice(b"abc");
        end_message(&mut output, start);
        assert_eq!(&output[..], b"befored\0\0\0\x07abc");
    }

    #[test]
    fn status_bytes_are_postgresqls() {
        let mut output = BytesMut::new();
        for status in [TransactionStatus::Idle, TransactionStatus::Open, TransactionStatus::Failed] {
            ready_for_query(&mut output, status);
        }
        assert_eq!(&output[..], b"Z\0\0\0\x05IZ\0\0\0\x05TZ\0\0\0\x05E");
    }
}
