//! What a connection is doing: waiting for a request, or answering one.
//!
//! Owns the phase of one connection, and the moment at which it has lasted too long. The phase is set by the listener (a
//! request begins), by the body of the answer (it is in the connection's buffer) and by the stream (the buffer has been
//! written). Invariant: a connection whose answer has not been written counts as answering.

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
    /// A request has arrived, and its answer has not been written.
    is_answering: bool,
    /// The whole answer is in the connection's buffer.
    is_handed_over: bool,
    /// A request has been answered.
    has_served: bool,
    /// When the present wait for a request began.
    waits_since: Instant,
    /// When the last request arrived; before the first one, when the connection began.
    asked_at: Instant,
}

impl Activity {
    /// A connection that waits for its first request.
    pub(super) fn new() -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self(Mutex::new(State {
            is_answering: false,
            is_handed_over: false,
            has_served: false,
            waits_since: now,
            asked_at: now,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the connection has waited for a request; `None` while there is one to answer.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.is_answering).then_some(state.waits_since)
    }

    /// A request has been answered on this connection.
    pub(super) fn has_served(&self) -> bool {
        self.lock().has_served
    }

    /// When the connection is closed, unless the client sends a request or takes its answer before.
    pub(super) fn deadline(&self, settings: &Settings) -> Instant {
        let state = self.lock();
        if state.is_answering {
            state.asked_at + settings.answer_timeout
        } else {
            state.waits_since + settings.head_timeout
        }
    }

    /// The head of a request has arrived.
    pub(super) fn asked(&self) {
        let mut state = self.lock();
        (state.is_answering, state.is_handed_over) = (true, false);
        state.asked_at = Instant::now();
    }

    /// The connection's buffer is empty: if the answer was in it, the client has it, or the kernel.
    fn flushed(&self) {
        let mut state = self.lock();
        if state.is_handed_over {
            (state.is_answering, state.is_handed_over, state.has_served) = (false, false, true);
            state.waits_since = Instant::now();
        }
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
        self.activity.lock().is_handed_over = true;
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

/// The stream of a connection; notes when everything has been written.
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    /// The HTTP library flushes only when it has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        if result.is_ready() {
            self.activity.flushed();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
