//! `kvraft sim --ui`: the page that shows a run, while it runs, with buttons that meddle with it.
//!
//! One thread owns the run; connections ask it and wait for its answer. The page asks for what is
//! new when it has painted what it had, so that a slow browser sees fewer moments and never lags.
//!
//! Invariants:
//! - loopback only: it listens there, and answers to no other name than its own, so that a page of
//!   somebody else's cannot reach it;
//! - nothing that arrives ends it: what is not understood is answered with an error.

mod session;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use kvraft_sim::Scenario;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::session::{Answer, Session};
use crate::signals::interrupted;

/// A command is a line of a plan at most.
const COMMAND_SIZE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone)]
struct Server {
    session: Session,
    port: u16,
}

/// Serves a run until interrupted.
///
/// # Errors
/// In words: the scenario cannot be run, or the port cannot be had.
pub(super) fn serve(scenario: Scenario, replay: String, port: u16) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let session = Session::start(scenario, replay)?;
    runtime.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        println!("open http://127.0.0.1:{port}/ (Ctrl-C ends it)");
        let server = Server { session, port };
        let router = Router::new()
            .route("/", get(show_page))
            .route("/live", get(connect))
            .with_state(server);
        let served = axum::serve(listener, router);
        tokio::select! {
            ended = served => ended.map_err(|error| error.to_string())?,
            () = interrupted() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Whether a request comes from this machine's own page, and not from another that a browser was
/// led to believe lies here.
fn is_own(headers: &HeaderMap, port: u16) -> bool {
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_ours = |host: &str| names.iter().any(|name| name == host);
    let from = text(header::ORIGIN.as_str());
    text(header::HOST.as_str()).is_some_and(is_ours)
        && from.is_none_or(|from| from.strip_prefix("http://").is_some_and(is_ours))
}

async fn show_page(State(server): State<Server>, headers: HeaderMap) -> Response {
    if !is_own(&headers, server.port) {
        return StatusCode::FORBIDDEN.into_response();
    }
    match server.session.page().await {
        Some(page) => Html(page).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The opening of a WebSocket (RFC 6455, 4.2).
async fn connect(State(server): State<Server>, mut request: Request) -> Response {
    let headers = request.headers();
    if !is_own(headers, server.port) || !headers.contains_key(header::ORIGIN) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).cloned() else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(COMMAND_SIZE_BYTES_MAX))
            .max_frame_size(Some(COMMAND_SIZE_BYTES_MAX));
        let stream = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        converse(socket, &server.session).await;
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(Body::empty());
    answer.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Answers one command after the other until the page is gone.
async fn converse<S>(mut socket: WebSocketStream<S>, session: &Session)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Some(Answer { status, run }) = session.ask(text.to_string()).await else { return };
        if socket.send(Message::text(status.to_string())).await.is_err() {
            return;
        }
        if let Some(run) = run
            && socket.send(Message::Binary(Bytes::from(run))).await.is_err()
        {
            return;
        }
    }
}
