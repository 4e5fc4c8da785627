//! Looking whether a server answers on its peer port, without becoming its peer.
//!
//! Why: whoever is about to give a cluster up must know that nobody is there any more, and a
//! server's peer address may be the only one that is known.
//!
//! Invariant: the greeting is of the earliest incarnation and on the bulk lane, so that it replaces
//! no connection and tells consensus nothing.
//!
//! What it lacks: terms for reads by lease. It greets as one that has none, and whoever refuses it
//! for that alone is there.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use kvraft_base::{ClusterId, MemberId};
use tokio::{net::TcpStream, time};
use tokio_tungstenite::tungstenite::Message;

use super::{
    frame::{Answer, FEATURES, Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN, seal, unseal},
    web_socket_config,
};

/// Whether the member `to` of `cluster` answers at `address` within `patience` when the member
/// `from` greets it.
pub async fn probe_peer(
    address: &str,
    cluster: ClusterId,
    from: MemberId,
    to: MemberId,
    patience: Duration,
) -> bool {
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        cluster,
        from,
        to,
        incarnation: 0,
        lane: Lane::Bulk,
        features: FEATURES,
        addresses: Vec::new(),
        lease: None,
    };
    let answer = time::timeout(patience, greet(address, &hello)).await;
    match answer {
        // Whoever tells the later process, the removed member, or other terms for reads by lease,
        // is of this cluster, too, and the member that was asked for.
        Ok(Some(
            Answer::Welcome { .. }
            | Answer::Superseded { .. }
            | Answer::Removed { .. }
            | Answer::OtherTerms { .. },
        )) => true,
        Ok(Some(Answer::Refused { .. }) | None) | Err(_) => false,
    }
}

/// The answer to a greeting; `None` when there is none that can be understood.
async fn greet(address: &str, hello: &Hello) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let url = format!("ws://{address}/kvraft/peer");
    let config = Some(web_socket_config());
    let connected = tokio_tungstenite::client_async_with_config(url, stream, config).await;
    let (mut socket, _) = connected.ok()?;
    socket.send(Message::Binary(seal(0, &hello.encode()))).await.ok()?;
    let answer = match socket.next().await? {
        Ok(Message::Binary(frame)) => Answer::decode(unseal(0, frame).ok()?).ok()?,
        Ok(_) | Err(_) => return None,
    };
    // What there was to know is known.
    drop(socket.close(None).await);
    Some(answer)
}
