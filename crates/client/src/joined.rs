//! Waiting until all servers are there.

use std::time::Duration;

use futures::future::join_all;
use kvraft_session::EndpointId;

use crate::{client::Client, error::Error};

/// Between two looks at the servers.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Client {
    /// Waits until all configured servers have joined: each answers, votes, and knows of a leader.
    /// It waits as long as that takes; to serve clients, a majority of the servers is enough.
    ///
    /// # Errors
    /// [`Error::Mixed`] if they belong to different clusters: waiting is of no use then.
    pub async fn wait_for_all(&self) -> Result<(), Error> {
        while !self.have_all_joined().await? {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn have_all_joined(&self) -> Result<bool, Error> {
        let endpoints: Vec<(EndpointId, String)> =
            self.endpoints().map(|(endpoint, name)| (endpoint, name.to_owned())).collect();
        let asked = endpoints.iter().map(|(endpoint, _)| self.status(*endpoint));
        let mut first: Option<(u64, &str)> = None;
        let mut have_all = true;
        for ((_, name), status) in endpoints.iter().zip(join_all(asked).await) {
            let Ok(status) = status else {
                have_all = false;
                continue;
            };
            let cluster = status.header.as_ref().map_or(0, |header| header.cluster_id);
            let (known, one) = *first.get_or_insert((cluster, name));
            if known != cluster {
                return Err(Error::Mixed { one: one.to_owned(), other: name.clone() });
            }
            have_all &= status.leader != 0 && !status.is_learner;
        }
        Ok(have_all)
    }
}
