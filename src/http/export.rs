//! `/api/v1/ledger.csv` and `/api/v1/ledger.ndjson`: the ledger in bulk.
//!
//! Sent page by page: memory is that of a few pages however long the ledger is, and each page is a
//! read of its own, so a client that reads slowly keeps SQLite's log from nothing. What cannot be
//! read ends the transfer without its last chunk, so a part is never taken for the whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::studies::SpanQuery;
use super::{Api, answer};
use crate::ledger::{ExportRow, Ledger, Span};
use crate::spool::EntryId;

/// Rows of a page.
const PAGE: u32 = 1000;
/// Pages that may wait for the client.
const AHEAD: usize = 2;
/// A client that takes no page for this long is gone.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

/// `GET /api/v1/ledger.csv` (RFC 4180, with a header line).
pub(super) async fn csv(State(api): State<Api>, Query(query): Query<SpanQuery>) -> Response {
    export(api, &query, Format::Csv)
}

/// `GET /api/v1/ledger.ndjson`.
pub(super) async fn ndjson(State(api): State<Api>, Query(query): Query<SpanQuery>) -> Response {
    export(api, &query, Format::Ndjson)
}

fn export(api: Api, query: &SpanQuery, format: Format) -> Response {
    let span = match query.span() {
        Ok(span) => span,
        Err(reason) => return answer(StatusCode::BAD_REQUEST, reason),
    };
    let kind = match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::Ndjson => "application/x-ndjson",
    };
    let (pages, taken) = mpsc::channel(AHEAD);
    tokio::spawn(async move { send(&api.ledger, span, format, &pages).await });
    let body = Body::from_stream(ReaderStream::new(Pages {
        taken,
        page: Bytes::new(),
    }));
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// None ends it: without, something went wrong on the way.
type Page = io::Result<Option<Bytes>>;

/// Ends when everything was sent, when the client is gone, or with a failure that the client sees.
async fn send(ledger: &Ledger, span: Span, format: Format, pages: &mpsc::Sender<Page>) {
    let mut after = None;
    loop {
        let page = match ledger.export(after, span, PAGE).await {
            Ok(rows) => {
                let last = rows.last().and_then(|row| entry(&row.entry));
                // A short page is the last: what arrives during an export is not chased for ever.
                let more = u32::try_from(rows.len()).is_ok_and(|count| count == PAGE);
                encode(rows, format, after.is_none()).map(|page| (page, last.filter(|_| more)))
            }
            Err(err) => {
                tracing::warn!(error = %err, "export of the ledger broken off");
                Err(io::Error::other("the ledger cannot be read"))
            }
        };
        let (page, next) = match page {
            Ok((page, next)) => (Ok(Some(page)), next),
            Err(err) => (Err(err), None),
        };
        let failed = page.is_err();
        if !taken(pages, page).await || failed {
            return;
        }
        after = match next {
            Some(next) => Some(next),
            None => {
                taken(pages, Ok(None)).await;
                return;
            }
        };
    }
}

async fn taken(pages: &mpsc::Sender<Page>, page: Page) -> bool {
    match tokio::time::timeout(STALLED, pages.send(page)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            tracing::info!("export of the ledger broken off: the client does not read");
            false
        }
    }
}

fn entry(name: &str) -> Option<EntryId> {
    EntryId::from_file_name(&format!("{name}.dcm"))
}

fn encode(rows: Vec<ExportRow>, format: Format, first: bool) -> io::Result<Bytes> {
    let mut page = Vec::new();
    match format {
        Format::Ndjson => {
            for row in rows {
                serde_json::to_writer(&mut page, &row)?;
                page.push(b'\n');
            }
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new()
                .has_headers(false)
                .terminator(csv::Terminator::CRLF)
                .from_writer(&mut page);
            if first {
                writer
                    .write_record(ExportRow::COLUMNS)
                    .map_err(io::Error::other)?;
            }
            for row in rows {
                let row = row.for_spreadsheets();
                writer.serialize(row).map_err(io::Error::other)?;
            }
            writer.flush()?;
            drop(writer);
        }
    }
    Ok(page.into())
}

/// The pages as one stream of bytes.
struct Pages {
    taken: mpsc::Receiver<Page>,
    page: Bytes,
}

impl AsyncRead for Pages {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.page.is_empty() {
            match self.taken.poll_recv(context) {
                Poll::Ready(Some(Ok(Some(page)))) => self.page = page,
                Poll::Ready(Some(Ok(None))) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Err(err)),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(io::Error::other("the export was broken off")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = into.remaining().min(self.page.len());
        into.put_slice(&self.page.split_to(count));
        Poll::Ready(Ok(()))
    }
}
