//! A TCP proxy that cuts connections, at any byte, or freezes them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    frozen: watch::Sender<bool>,
    _listening: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let frozen = watch::Sender::new(false);
        let (list, ice) = (Arc::clone(&connections), frozen.clone());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                let (source, _) = listener.accept().await.unwrap();
                let ice = ice.clone();
                let handle = tasks.spawn(async move {
                    let Ok(target) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (source_in, source_out) = source.into_split();
                    let (target_in, target_out) = target.into_split();
                    // The first end cuts both ways.
                    tokio::select! {
                        () = forward(source_in, target_out, ice.subscribe()) => {}
                        () = forward(target_in, source_out, ice.subscribe()) => {}
                    }
                });
                list.lock().unwrap().push(handle);
                while tasks.try_join_next().is_some() {}
            }
        });
        Self { address, connections, frozen, _listening: listening }
    }

    /// Cuts all connections that are up, wherever they are in a frame.
    pub(super) fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Stops moving bytes, without closing anything.
    pub(super) fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn forward(
    mut source: tcp::OwnedReadHalf,
    mut target: tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(count) = source.read(&mut bytes).await else {
            return;
        };
        if frozen.wait_for(|frozen| !frozen).await.is_err() || count == 0 {
            return;
        }
        if target.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
