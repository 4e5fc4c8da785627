//! Async client library for kvraft and any etcd v3 endpoint.
