//! Ranges of any size, read a page at a time.

use bytes::Bytes;
use futures::{Stream, stream};
use kvraft_proto::{etcdserverpb::RangeRequest, mvccpb::KeyValue};

use crate::{client::Client, error::Error};

/// Records of a page: small enough that a page of the largest values is no burden.
const PAGE_RECORD_COUNT: i64 = 64;

impl Client {
    /// Reads the keys from `key` up to but not including `range_end`, in order, all of them as they
    /// were at the moment of the first page. A page is read when it is wanted, so that a range may
    /// be larger than memory. `range_end` as in etcd: see [`prefix_end`](crate::prefix_end).
    ///
    /// ```no_run
    /// # async fn run(client: kvraft_client::Client) -> Result<(), kvraft_client::Error> {
    /// use futures::TryStreamExt as _;
    ///
    /// let mut users = std::pin::pin!(client.scan("user/", kvraft_client::prefix_end(b"user/")));
    /// while let Some(record) = users.try_next().await? {
    ///     println!("{:?}", record.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The stream ends with the first [`Error`]; one is that the history was compacted meanwhile.
    pub fn scan(
        &self,
        key: impl Into<Bytes>,
        range_end: impl Into<Bytes>,
    ) -> impl Stream<Item = Result<KeyValue, Error>> + Send + 'static {
        let request = RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: PAGE_RECORD_COUNT,
            ..RangeRequest::default()
        };
        let client = self.clone();
        let pages = stream::try_unfold(Some(request), move |next| {
            let client = client.clone();
            async move {
                let Some(mut request) = next else { return Ok(None) };
                let page = client.range(request.clone()).await?;
                let last = page.kvs.last().filter(|_| page.more);
                let next = last.map(|last| {
                    request.revision = page.header.map_or(request.revision, |it| it.revision);
                    // The least key that is greater.
                    request.key = [last.key.as_ref(), b"\0"].concat().into();
                    request
                });
                Ok(Some((stream::iter(page.kvs.into_iter().map(Ok)), next)))
            }
        });
        futures::TryStreamExt::try_flatten(pages)
    }
}
