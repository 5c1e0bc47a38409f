//! The ways in which a server can fail.

use std::time::Duration;

/// What the server does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers as it should, also to a `Range`.
    Ok,
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Answers nothing and keeps the connection open until the client gives up.
    Silent,
    /// Sends the head and so many bytes of the body, then resets the connection.
    ResetAfter(usize),
    /// Sends the head and so many bytes of the body, then closes the connection.
    Truncate(usize),
    /// The same with a chunked body, whose last chunk never comes.
    TruncateChunked(usize),
    /// Sends the head and so many bytes, then nothing more until the client gives up.
    Stall(usize),
    /// Sends what was asked for in pieces of so many bytes with a pause after each.
    Drip(usize, Duration),
    /// As `Drip`, 128 KiB each 10 ms, with this `ETag`.
    Slow(String),
    /// As `Truncate`, with this `ETag`.
    TruncateTagged(usize, String),
    /// States this length, whatever the body's is, and closes after the body.
    Length(u64),
    /// States no length: the body ends with the connection.
    NoLength,
    /// Sends the body in chunks.
    Chunked,
    /// Sends the body with `Content-Encoding: gzip` though nobody asked for it.
    Encoded,
    /// Sends everything with 200, whatever range was asked for.
    IgnoreRange,
    /// Answers a range with other bytes and their `Content-Range`.
    WrongRange,
    /// Answers a range with the right bytes, and says of the whole that it has another size.
    WrongTotal,
    /// Answers with something that is no HTTP.
    Garbage,
    /// Sends headers without an end.
    EndlessHead,
    /// Sends an HTML page with 200.
    Html,
    /// Answers with this status and no body.
    Status(u16),
    /// Answers with this status, these headers and no body.
    Headers(u16, Vec<(&'static str, String)>),
    /// Answers with 401 and a `WWW-Authenticate` of this text.
    Challenge(String),
    /// Answers with this status and a `Retry-After` of this text.
    RetryAfter(u16, String),
    /// Answers with this status and a `Retry-After` so many seconds behind its own `Date`, of 0 to 59.
    RetryAt(u16, u8),
    /// Redirects to this place.
    Redirect(String),
    /// Redirects to where the client is, with this status.
    Loop(u16),
    /// Sends bytes without an end.
    Endless,
    /// Sends what was asked for, with one bit of this byte of the body turned.
    Flip(usize),
    /// Sends the body and these bytes behind it, and states the length of both.
    Extra(Vec<u8>),
    /// Sends the body with this `Link` header.
    Link(String),
    /// Sends the body with this `ETag`.
    Tag(String),
    /// Sends the body with this `Last-Modified`.
    Modified(String),
    /// Sends the body with this `Last-Modified` and this `Date`.
    Dated(&'static str, &'static str),
    /// Sends the body with this `Content-Type`.
    Type(&'static str),
    /// Answers as it should to this `Authorization`, with 401 to others.
    Authorized(String),
}
