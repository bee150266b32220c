//! What a connection is doing: waiting for a request, or answering one.
//!
//! Owns the phase of one connection, and the moment at which it has lasted too long. It is set by the listener (a request begins),
//! by the body of the answer (it has been handed over) and by the stream (the client does not read). Invariant: a connection whose
//! client has not taken the whole answer counts as answering.

use super::Settings;
use axum::body::Body;
use hyper::body::{Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The phase of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// A request has arrived, and its answer has not been handed over.
    is_answering: bool,
    /// The last write had to wait for the client.
    is_blocked: bool,
    /// When the present wait for a request began.
    waits_since: Instant,
    /// When the last request arrived.
    asked_at: Instant,
}

impl Activity {
    /// A connection that waits for its first request.
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self(Mutex::new(State { is_answering: false, is_blocked: false, waits_since: now, asked_at: now })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while there is no request to answer.
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.lock();
        !state.is_answering && !state.is_blocked
    }

    /// When the connection is closed unless something happens: the client sends a request, or takes its answer.
    pub(super) fn deadline(&self, settings: &Settings) -> Instant {
        let state = self.lock();
        if state.is_answering || state.is_blocked {
            state.asked_at + settings.answer_timeout
        } else {
            state.waits_since + settings.head_timeout
        }
    }

    /// The head of a request has arrived.
    pub(super) fn asked(&self) {
        let mut state = self.lock();
        state.is_answering = true;
        state.asked_at = Instant::now();
    }

    fn answered(&self) {
        let mut state = self.lock();
        state.is_answering = false;
        state.waits_since = Instant::now();
    }

    fn written(&self, is_blocked: bool) {
        let mut state = self.lock();
        if state.is_blocked && !is_blocked {
            state.waits_since = Instant::now();
        }
        state.is_blocked = is_blocked;
    }
}

/// The body of an answer. When it is dropped, the answer has been handed over to the connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.activity.answered();
    }
}

impl hyper::body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a connection; notes whether the client reads.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.written(result.is_pending());
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.activity.written(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
