//! The etcd v3 protobuf definitions and what is generated from them.
